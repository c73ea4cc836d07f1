// The loudspeaker's thread: plays the queue, and tells how far it is.

import { rms } from "./pcm.js";
import { PlayQueue } from "./play_queue.js";

const REPORT = 0.05; // seconds between two reports

class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.queue = new PlayQueue(sampleRate);
    this.reported = 0;
    this.busy = false;
    this.port.onmessage = ({ data }) => this.#told(data);
  }

  process(_, [[out]]) {
    for (const item of this.queue.render(out, currentTime)) {
      this.port.postMessage({ type: "begun", item, time: currentTime });
    }
    const busy = this.queue.current !== null;
    if (busy !== this.busy || (busy && currentTime - this.reported >= REPORT)) this.#report(busy, rms(out));
    return true;
  }

  #told(message) {
    if (message.type === "add") this.queue.add(message.item, message.samples, currentTime);
    if (message.type === "finish") this.queue.finish(message.item);
    if (message.type === "stop") {
      const answer = this.queue.stop();
      const { item, played } = answer ?? { item: null, played: 0 };
      this.port.postMessage({ type: "stopped", item, played: played / sampleRate });
    }
  }

  #report(busy, level) {
    this.busy = busy;
    this.reported = currentTime;
    this.port.postMessage({
      type: "report",
      busy,
      level,
      queued: this.queue.ring.length / sampleRate,
      underruns: this.queue.underruns,
      delay: this.queue.delay.seconds,
    });
  }
}

registerProcessor("playback", Playback);
