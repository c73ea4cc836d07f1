// What is to be played, answer after answer: when to begin, how much of each was played, where it ran dry.

import { PlayoutDelay } from "./playout_delay.js";
import { Ring } from "./ring.js";

export class PlayQueue {
  /** `rate` in Hz. All times are seconds of one clock. */
  constructor(rate) {
    this.rate = rate;
    this.ring = new Ring();
    this.delay = new PlayoutDelay();
    this.answers = []; // { item, left, played, whole }: samples in the ring, samples played, whether no more will come
    this.startAt = null; // when to play what waits; null while playing, or without anything to play
    this.underruns = 0;
  }

  /** The answer that is played, or waits to be. */
  get current() {
    return this.answers[0] ?? null;
  }

  /** Sound of an answer has come. */
  add(item, samples, now) {
    let answer = this.answers.at(-1);
    if (answer?.item !== item) {
      answer = { item, left: 0, played: 0, whole: false };
      if (this.answers.length) this.answers.at(-1).whole = true;
      this.answers.push(answer);
      this.delay.begin();
      if (this.answers.length === 1) this.startAt = now + this.delay.seconds;
    }
    this.delay.arrived(now, samples.length / this.rate);
    answer.left += samples.length;
    this.ring.push(samples);
  }

  /** No more sound of this answer will come. */
  finish(item) {
    const answer = this.answers.find((each) => each.item === item);
    if (answer) answer.whole = true;
    this.#dropPlayed();
  }

  /** Forget everything. Returns the answer that was played, or null. */
  stop() {
    const answer = this.current;
    this.answers = [];
    this.ring.clear();
    this.startAt = null;
    return answer;
  }

  /** Fill `out` with what is to be heard from `now` on. Returns names of answers that begin in it. */
  render(out, now) {
    out.fill(0);
    const begun = [];
    let filled = 0;
    while (filled < out.length && this.current && this.#due(now + filled / this.rate)) {
      const answer = this.current;
      const count = this.ring.pull(out.subarray(filled, filled + Math.min(answer.left, out.length - filled)));
      if (count && !answer.played) begun.push(answer.item);
      answer.left -= count;
      answer.played += count;
      filled += count;
      this.#dropPlayed();
      if (this.current === answer && filled < out.length) this.#ranDry(now + filled / this.rate);
    }
    return begun;
  }

  #due(now) {
    if (this.startAt === null) return true;
    if (!this.current.left || (now < this.startAt && !this.current.whole)) return false;
    if (this.current.played) this.underruns += 1; // there was a gap within an answer
    this.startAt = null;
    return true;
  }

  #ranDry(now) {
    this.startAt = now + this.delay.seconds;
  }

  #dropPlayed() {
    while (this.current?.whole && !this.current.left) {
      this.answers.shift();
      this.startAt = null;
    }
  }
}
