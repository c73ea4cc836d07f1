import assert from "node:assert/strict";
import { test } from "node:test";

import { PlayQueue } from "../../serve/omni2_serve/page/audio/play_queue.js";
import { PlayoutDelay } from "../../serve/omni2_serve/page/audio/playout_delay.js";
import { Ring } from "../../serve/omni2_serve/page/audio/ring.js";

const RATE = 1000;
const BLOCK = 10; // samples that are rendered at a time: 10 ms

/** A queue with a clock: `run` renders up to a time and returns the sound; `begun` are answers with their times. */
class Listener {
  constructor() {
    this.queue = new PlayQueue(RATE);
    this.now = 0;
    this.begun = [];
  }

  run(until) {
    const heard = [];
    for (; this.now < until - 1e-9; this.now += BLOCK / RATE) {
      const out = new Float32Array(BLOCK);
      for (const item of this.queue.render(out, this.now)) this.begun.push([item, Math.round(1000 * this.now)]);
      heard.push(...out);
    }
    return heard;
  }

  add(item, milliseconds, value = 1) {
    this.queue.add(item, new Float32Array(milliseconds).fill(value), this.now);
  }
}

test("a ring gives back what was put in, in order, however it grows", () => {
  const ring = new Ring(4);
  let put = 0;
  let got = 0;
  for (const [push, pull] of [[3, 2], [4, 1], [0, 4], [9, 5], [20, 30], [2, 0], [5, 7]]) {
    ring.push(Float32Array.from({ length: push }, () => put++));
    const out = new Float32Array(pull);
    const count = ring.pull(out);
    assert.deepEqual([...out.subarray(0, count)], Array.from({ length: count }, () => got++));
    assert.equal(ring.length, put - got);
  }
});

test("an answer begins after the delay, and is heard whole", () => {
  const listener = new Listener();
  listener.add("a", 100);
  const heard = listener.run(0.3);
  assert.deepEqual(listener.begun, [["a", 40]]);
  assert.equal(heard.indexOf(1), 40);
  assert.equal(heard.lastIndexOf(1), 139);
  assert.equal(listener.queue.underruns, 0);
});

test("an answer that is there whole does not wait", () => {
  const listener = new Listener();
  listener.add("a", 30);
  listener.queue.finish("a");
  assert.equal(listener.run(0.1).filter(Boolean).length, 30);
  assert.deepEqual(listener.begun, [["a", 0]]);
  assert.equal(listener.queue.current, null);
});

test("a gap within an answer is counted once, and the next answer waits as long as would have done", () => {
  const listener = new Listener();
  listener.add("a", 100);
  listener.run(0.4); // 100 ms are over at 140
  assert.equal(listener.queue.underruns, 0, "no gap is known before the answer goes on");
  listener.add("a", 100);
  listener.queue.finish("a");
  listener.run(0.6);
  assert.equal(listener.queue.underruns, 1);
  assert.equal(listener.queue.current, null);
  listener.begun = [];
  listener.add("b", 100);
  listener.run(1.2);
  assert.deepEqual(listener.begun, [["b", 920]]); // 300 ms late of 400, and 20 to spare
});

test("the end of the answer is no gap, though it is said late", () => {
  const listener = new Listener();
  listener.add("a", 50);
  listener.run(0.5);
  listener.queue.finish("a");
  assert.equal(listener.queue.underruns, 0);
  assert.equal(listener.queue.current, null);
});

test("stopping says how much was played, and leaves silence", () => {
  const listener = new Listener();
  listener.add("a", 500);
  listener.run(0.2);
  assert.deepEqual({ ...listener.queue.stop() }, { item: "a", left: 340, played: 160, whole: false });
  assert.ok(listener.run(0.5).every((sample) => sample === 0));
  assert.equal(listener.queue.stop(), null);
});

test("answers follow one another without a pause, and each is counted alone", () => {
  const listener = new Listener();
  listener.add("a", 105, 1);
  listener.add("b", 50, 2);
  listener.queue.finish("b");
  const heard = listener.run(0.3).slice(listener.begun[0][1]);
  assert.equal(heard.indexOf(2) - heard.indexOf(1), 105);
  assert.equal(heard.filter((sample) => sample === 2).length, 50);
  assert.equal(listener.queue.current, null);
});

test("the delay follows what came late, forgets it after six answers, and has bounds", () => {
  const delay = new PlayoutDelay();
  const answer = (late) => {
    delay.begin();
    delay.arrived(10, 0.5);
    delay.arrived(10.5 + late, 0.5);
  };
  assert.equal(delay.seconds, 0.04);
  answer(-0.3); // early
  assert.equal(delay.seconds, 0.04);
  answer(0.2);
  assert.ok(Math.abs(delay.seconds - 0.22) < 1e-9);
  answer(7);
  assert.equal(delay.seconds, 1);
  for (let i = 0; i < 6; i++) answer(0);
  assert.equal(delay.seconds, 0.04);
});
