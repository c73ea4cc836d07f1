import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, encode, rms, toFloat32, toInt16 } from "../../serve/omni2_serve/page/audio/pcm.js";
import { HoldButton } from "../../serve/omni2_serve/page/session/hold_button.js";
import { InputClock } from "../../serve/omni2_serve/page/session/input_clock.js";

test("samples survive base64, and are little-endian", () => {
  const samples = Int16Array.from({ length: 70_000 }, (_, n) => (n * 7919) % 65536 - 32768);
  assert.deepEqual(decode(encode(samples)), samples);
  assert.equal(encode(Int16Array.of(1, -2)), Buffer.from([1, 0, 0xfe, 0xff]).toString("base64"));
  assert.deepEqual(toInt16(toFloat32(samples)), samples);
});

test("what is too loud is clipped, not wrapped", () => {
  assert.deepEqual([...toInt16(Float32Array.of(2, -2, 1, -1, 0))], [32767, -32768, 32767, -32768, 0]);
});

test("a level is the root mean square", () => {
  assert.equal(rms(Float32Array.of(0.5, -0.5)), 0.5);
  assert.equal(rms(new Float32Array(0)), 0);
});

/** Frames of 20 ms whose levels are given; frame n was heard at 1000 + 20 n. */
function heard(levels) {
  const clock = new InputClock();
  levels.forEach((level, n) => clock.add(20, 1000 + 20 * n, level));
  return clock;
}

const SPEECH = [...Array(50).fill(0.1), 0.02, ...Array(25).fill(0)];

test("the last voiced frame is the last that is loud, in silence and in noise", () => {
  assert.equal(heard(SPEECH).lastVoiced(0, Infinity), 1000 + 20 * 50);
  const noisy = [...Array(50).fill(0.004), ...SPEECH.map((level) => level + 0.004)];
  assert.equal(heard(noisy).lastVoiced(0, Infinity), 1000 + 20 * 100);
});

test("earlier and later speech do not count", () => {
  const clock = heard([...SPEECH, 0.1, 0.1]);
  assert.equal(clock.lastVoiced(0, 76 * 20), 1000 + 20 * 50);
  assert.equal(clock.lastVoiced(60 * 20, 76 * 20), null);
});

test("where nothing was said there is no last voiced frame", () => {
  assert.equal(new InputClock().lastVoiced(0, Infinity), null);
  assert.equal(heard(Array(20).fill(0)).lastVoiced(0, Infinity), null);
});

function pressed(...steps) {
  const changes = [];
  const button = new HoldButton((talking) => changes.push(talking));
  for (const [step, at] of steps) button[step](at);
  return changes;
}

test("a button that is held talks while it is held", () => {
  assert.deepEqual(pressed(["press", 0], ["release", 900]), [true, false]);
});

test("a short press begins, and the next one ends", () => {
  assert.deepEqual(pressed(["press", 0], ["release", 100]), [true]);
  assert.deepEqual(pressed(["press", 0], ["release", 100], ["press", 3000], ["release", 3900]), [true, false]);
});

test("clicks of a screen reader, which have no release, begin and end in turn", () => {
  assert.deepEqual(pressed(["press", 0], ["press", 5000], ["press", 9000]), [true, false, true]);
});

test("a press that goes astray ends the talk", () => {
  assert.deepEqual(pressed(["press", 0], ["cancel", 100], ["release", 900]), [true, false]);
});
