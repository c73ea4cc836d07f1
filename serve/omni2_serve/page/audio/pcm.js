// Samples as numbers, as signed 16-bit little-endian bytes, and as base64.

const PIECE = 0x8000; // bytes that String.fromCharCode takes at once

/** Float32 samples in ±1 → Int16Array; what is louder is clipped. */
export function toInt16(samples) {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    out[i] = Math.round(Math.max(-1, Math.min(32767 / 32768, samples[i])) * 32768);
  }
  return out;
}

/** Int16Array → Float32Array in ±1. */
export function toFloat32(samples) {
  return Float32Array.from(samples, (sample) => sample / 32768);
}

/** Samples of s16le → base64. */
export function encode(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let start = 0; start < bytes.length; start += PIECE) {
    text += String.fromCharCode(...bytes.subarray(start, start + PIECE));
  }
  return btoa(text);
}

/** Base64 of s16le → Int16Array. */
export function decode(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length - (text.length % 2));
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return new Int16Array(bytes.buffer);
}

/** Root mean square of float samples; 0 where there are none. */
export function rms(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  return samples.length ? Math.sqrt(sum / samples.length) : 0;
}
