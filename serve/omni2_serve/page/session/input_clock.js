// When a piece of the input was heard, and when somebody last spoke in it.

const KEPT = 1500; // frames of 20 ms: half a minute
const BELOW_PEAK = 0.03; // of the loudest frame's level: 30 dB
const ABOVE_NOISE = 3; // times the level of the quietest tenth
const LEAST = 0.001; // level below which nothing is speech

export class InputClock {
  constructor() {
    this.frames = []; // { end, at, level }: position in ms, time of performance.now(), root mean square
    this.position = 0; // ms of sound that was sent
  }

  /** A frame of so many ms was sent at the time `at`. */
  add(ms, at, level) {
    this.position += ms;
    this.frames.push({ end: this.position, at, level });
    if (this.frames.length > KEPT) this.frames.shift();
  }

  /** When the last voiced frame up to the position `end` (ms) was heard; null where there is none. */
  lastVoiced(end = Infinity) {
    const frames = this.frames.filter((frame) => frame.end <= end);
    const levels = frames.map((frame) => frame.level).sort((a, b) => a - b);
    if (!levels.length) return null;
    const floor = levels[Math.floor(levels.length / 10)];
    const least = Math.max(LEAST, BELOW_PEAK * levels.at(-1), Math.min(ABOVE_NOISE * floor, 0.5 * levels.at(-1)));
    return frames.findLast((frame) => frame.level >= least)?.at ?? null;
  }
}
