// A queue of samples that grows when it is full.

export class Ring {
  constructor(capacity = 1 << 16) {
    this.samples = new Float32Array(capacity);
    this.start = 0;
    this.length = 0;
  }

  /** Append samples. */
  push(samples) {
    if (this.length + samples.length > this.samples.length) this.#grow(this.length + samples.length);
    const end = (this.start + this.length) % this.samples.length;
    const fits = Math.min(samples.length, this.samples.length - end);
    this.samples.set(samples.subarray(0, fits), end);
    this.samples.set(samples.subarray(fits), 0);
    this.length += samples.length;
  }

  /** Take the oldest samples into the beginning of `out`; says how many there were. */
  pull(out) {
    const count = Math.min(out.length, this.length);
    const fits = Math.min(count, this.samples.length - this.start);
    out.set(this.samples.subarray(this.start, this.start + fits));
    out.set(this.samples.subarray(0, count - fits), fits);
    this.start = (this.start + count) % this.samples.length;
    this.length -= count;
    return count;
  }

  clear() {
    this.start = 0;
    this.length = 0;
  }

  #grow(least) {
    let capacity = this.samples.length;
    while (capacity < least) capacity *= 2;
    const grown = new Float32Array(capacity);
    const length = this.pull(grown);
    this.samples = grown;
    this.start = 0;
    this.length = length;
  }
}
