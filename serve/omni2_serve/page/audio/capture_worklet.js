// The microphone's thread: sound of the device's rate in, frames of 20 ms at 24 kHz out, with their level.

import { rms, toInt16 } from "./pcm.js";
import { Resampler } from "./resampler.js";

const RATE = 24000;
const FRAME = 480; // samples

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate, RATE);
    this.frame = new Float32Array(FRAME);
    this.filled = 0;
  }

  process([channels]) {
    if (!channels.length) return true; // the device is being changed
    for (const sample of this.resampler.push(mono(channels))) {
      this.frame[this.filled++] = sample;
      if (this.filled === FRAME) this.#send();
    }
    return true;
  }

  #send() {
    const samples = toInt16(this.frame);
    this.port.postMessage({ samples, level: rms(this.frame) }, [samples.buffer]);
    this.filled = 0;
  }
}

function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
}

registerProcessor("capture", Capture);
