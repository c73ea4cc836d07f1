import assert from "node:assert/strict";
import { test } from "node:test";

import { Resampler } from "../../serve/omni2_serve/page/audio/resampler.js";

function tone(frequency, rate, seconds) {
  const length = Math.round(rate * seconds);
  return Float32Array.from({ length }, (_, n) => Math.sin((2 * Math.PI * frequency * n) / rate));
}

/** The samples pushed in pieces of the given lengths, over and over. */
function inPieces(resampler, samples, lengths) {
  const out = [];
  for (let start = 0, i = 0; start < samples.length; start += lengths[i++ % lengths.length]) {
    out.push(...resampler.push(samples.subarray(start, start + lengths[i % lengths.length])));
  }
  return Float32Array.from(out);
}

function power(samples) {
  return samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
}

for (const rate of [8000, 16000, 22050, 32000, 44100, 48000, 96000]) {
  test(`a tone of ${rate} Hz is the same tone at 24 kHz`, () => {
    const frequency = 1234;
    const resampled = new Resampler(rate, 24000).push(tone(frequency, rate, 0.5));
    const wanted = tone(frequency, 24000, 0.5).subarray(0, resampled.length);
    const error = wanted.map((sample, n) => sample - resampled[n]).subarray(200); // behind the silence before the tone
    assert.ok(resampled.length > 0.49 * 24000, "no more than the kernel's half is held back");
    assert.ok(10 * Math.log10(power(wanted) / power(error)) > 60, "signal to noise in dB");
  });

  test(`pieces of any length give the samples of the whole at ${rate} Hz`, () => {
    const samples = tone(777, rate, 0.2);
    const whole = new Resampler(rate, 24000).push(samples);
    assert.deepEqual(inPieces(new Resampler(rate, 24000), samples, [128]), whole);
    assert.deepEqual(inPieces(new Resampler(rate, 24000), samples, [1, 700, 3, 64]), whole);
  });
}

test("what 24 kHz cannot hold is not folded into it", () => {
  for (const frequency of [12500, 15000, 20000]) {
    const resampled = new Resampler(48000, 24000).push(tone(frequency, 48000, 0.5)).subarray(200);
    assert.ok(10 * Math.log10(power(resampled) / 0.5) < -40, `${frequency} Hz`);
  }
});
