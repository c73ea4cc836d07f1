// The loudspeaker: takes answers' sound, tells when each begins to be heard and how much was played.

import { toFloat32 } from "./pcm.js";

const RATE = 24000;

export class Player {
  /**
   * Open it from a key press or click: browsers let no page sound unasked.
   * `onBegun(item, at)`: an answer is heard from `at` on, a time of performance.now().
   * `onReport({ busy, level, queued, underruns, delay })`: twenty times a second; `queued` and `delay` in seconds.
   */
  static async open(onBegun, onReport) {
    const context = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    const resumed = context.resume();
    await context.audioWorklet.addModule(new URL("player_worklet.js", import.meta.url));
    await resumed;
    return new Player(context, onBegun, onReport);
  }

  constructor(context, onBegun, onReport) {
    this.context = context;
    this.node = new AudioWorkletNode(context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.connect(context.destination);
    this.busy = false;
    this.stops = []; // who waits for "stopped"
    this.node.port.onmessage = ({ data }) => {
      if (data.type === "begun") {
        onBegun(data.item, performance.now() + 1000 * (data.time - context.currentTime + this.latency));
      }
      if (data.type === "stopped") this.stops.shift()(data);
      if (data.type === "report") {
        this.busy = data.busy;
        onReport(data);
      }
    };
  }

  /** Seconds from a sample's rendering to the ear. */
  get latency() {
    return (this.context.baseLatency || 0) + (this.context.outputLatency || 0);
  }

  /** Play `samples` (Int16Array at 24 kHz) of an answer behind what came before. */
  add(item, samples) {
    this.busy = true;
    this.node.port.postMessage({ type: "add", item, samples: toFloat32(samples) });
  }

  /** No more of this answer will come. */
  finish(item) {
    this.node.port.postMessage({ type: "finish", item });
  }

  /** Be silent at once. Resolves to { item, heard }: the answer that was played, or null; the seconds heard of it. */
  async stop() {
    this.busy = false;
    const stopped = new Promise((resolve) => this.stops.push(resolve));
    this.node.port.postMessage({ type: "stop" });
    const { item, played } = await stopped;
    return { item, heard: Math.max(0, played - this.latency) };
  }

  async close() {
    await this.context.close();
  }
}
