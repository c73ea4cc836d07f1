// The microphone: asks for it, and gives frames of 20 ms at 24 kHz.

import { Problem } from "../problem.js";

const REASONS = {
  NotAllowedError:
    "This page may not use the microphone. Allow it in the browser's settings for this page, then start again.",
  NotFoundError: "There is no microphone here. Connect one, or type.",
  NotReadableError: "Another program holds the microphone. Close it, then start again.",
};

export class Microphone {
  /** `onFrame({ samples, level })` gets Int16Array of 480 samples and their root mean square. */
  static async open(onFrame) {
    if (!navigator.mediaDevices) {
      throw new Problem("Browsers give the microphone to pages of https addresses and of localhost only.");
    }
    const wanted = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted }).catch((error) => {
      throw new Problem(REASONS[error.name] ?? `The microphone cannot be used (${error.name}).`);
    });
    const context = new AudioContext();
    await context.audioWorklet.addModule(new URL("capture_worklet.js", import.meta.url));
    const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => onFrame(data);
    context.createMediaStreamSource(stream).connect(capture);
    await context.resume();
    return new Microphone(context, stream);
  }

  constructor(context, stream) {
    this.context = context;
    this.stream = stream;
  }

  async close() {
    for (const track of this.stream.getTracks()) track.stop();
    await this.context.close();
  }
}
