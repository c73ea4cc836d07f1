// How long to wait with an answer's first sound, so that what comes late by the network leaves no gap.
// The server holds its first sound back until it can go on without one, so this is for the way only.

const LEAST = 0.04; // seconds
const MOST = 1.0;
const SPARE = 0.02; // beyond what would have done
const REMEMBERED = 6; // answers

export class PlayoutDelay {
  constructor() {
    this.needs = []; // of the last answers: the delay, in seconds, that would have left no gap
    this.began = null; // when the present answer's first sound came
    this.sound = 0; // seconds of it that have come
  }

  /** Seconds to wait after an answer's first sound has come. */
  get seconds() {
    return Math.min(MOST, Math.max(LEAST, ...this.needs.map((need) => need + SPARE)));
  }

  /** An answer's first sound is expected. */
  begin() {
    this.began = null;
    this.sound = 0;
  }

  /** `seconds` of sound came at the time `now`, in seconds. */
  arrived(now, seconds) {
    if (this.began === null) {
      this.began = now;
      this.needs.push(0);
      if (this.needs.length > REMEMBERED) this.needs.shift();
    }
    const last = this.needs.length - 1;
    this.needs[last] = Math.max(this.needs[last], now - this.began - this.sound);
    this.sound += seconds;
  }
}
