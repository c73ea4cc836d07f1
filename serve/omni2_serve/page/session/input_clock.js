// When a piece of the input was heard, and when speech was last heard in it.

const KEPT = 1500; // frames of 20 ms: half a minute
const BELOW_PEAK = 0.03; // of the loudest frame's level: 30 dB
const ABOVE_NOISE = 3; // times the level of the quietest tenth
const LEAST = 0.001; // level below which nothing is speech

export class InputClock {
  constructor() {
    this.frames = []; // { end, at, level }: position in ms, time of performance.now(), root mean square
    this.position = 0; // ms of sound that was sent
  }

  /** A frame of this length in ms was sent at the time `at`. */
  add(ms, at, level) {
    this.position += ms;
    this.frames.push({ end: this.position, at, level });
    if (this.frames.length > KEPT) this.frames.shift();
  }

  /** When the last voiced frame between two positions (ms) was heard; null where there is none. */
  lastVoiced(begin, end) {
    const frames = this.frames.filter((frame) => begin < frame.end && frame.end <= end);
    const peak = Math.max(0, ...frames.map((frame) => frame.level));
    const least = Math.max(LEAST, BELOW_PEAK * peak, Math.min(ABOVE_NOISE * this.#noise(), 0.5 * peak));
    return frames.findLast((frame) => frame.level >= least)?.at ?? null;
  }

  /** Level of the quietest tenth of all that is kept. */
  #noise() {
    const levels = this.frames.map((frame) => frame.level).sort((a, b) => a - b);
    return levels[Math.floor(levels.length / 10)] ?? 0;
  }
}
