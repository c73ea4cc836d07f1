// Changes the rate of sound that comes in pieces, by a windowed sinc. How the pieces are cut does not matter.

const ZEROS = 16; // zero crossings of the sinc on either side
const PASS = 0.92; // of the lower Nyquist frequency

export class Resampler {
  /** Rates in Hz, whole numbers. */
  constructor(from, to) {
    const common = gcd(from, to);
    this.step = from / common; // of the position, in 1/phases of an input sample
    this.phases = to / common;
    const cutoff = PASS * Math.min(1, to / from);
    this.half = Math.ceil(ZEROS / cutoff); // input samples on either side
    this.kernels = Array.from({ length: this.phases }, (_, phase) => kernel(phase / this.phases, this.half, cutoff));
    this.held = new Float32Array(this.half - 1); // before the first sample there is silence
    this.position = 0; // of the next output sample, relative to held[half - 1]
  }

  /** The next samples in → the samples that are certain, `half` input samples behind. */
  push(samples) {
    const input = new Float32Array(this.held.length + samples.length);
    input.set(this.held);
    input.set(samples, this.held.length);
    const out = [];
    let first = Math.floor(this.position / this.phases);
    while (first + 2 * this.half <= input.length) {
      const weights = this.kernels[this.position % this.phases];
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * input[first + i];
      out.push(sum);
      this.position += this.step;
      first = Math.floor(this.position / this.phases);
    }
    const used = Math.min(first, input.length);
    this.held = input.slice(used);
    this.position -= used * this.phases;
    return Float32Array.from(out);
  }
}

/** Weights of the 2 × half input samples around a point `fraction` of a sample behind the middle one. */
function kernel(fraction, half, cutoff) {
  const weights = new Float32Array(2 * half);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    const x = i - (half - 1) - fraction; // from -half to half
    const window = Math.cos((Math.PI * x) / (2 * half)) ** 2;
    weights[i] = window * (x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x));
    sum += weights[i];
  }
  return weights.map((weight) => weight / sum); // constant sound stays as loud
}

function gcd(a, b) {
  return b ? gcd(b, a % b) : a;
}
