// A button to talk: held while speaking, or pressed once to begin and once more to end.

const HELD = 400; // ms from which on a press was a hold

export class HoldButton {
  /** `onChange(talking)` is told of each change. */
  constructor(onChange) {
    this.onChange = onChange;
    this.talking = false;
    this.pressedAt = null; // null while nothing is pressed, or where this press has ended the talk
  }

  press(now) {
    if (this.talking) {
      this.pressedAt = null;
      this.#set(false);
    } else {
      this.pressedAt = now;
      this.#set(true);
    }
  }

  release(now) {
    if (this.pressedAt !== null && now - this.pressedAt >= HELD) this.#set(false);
    this.pressedAt = null;
  }

  /** The press went astray: the window lost the focus, or the finger was taken by a scroll. */
  cancel() {
    this.pressedAt = null;
    this.#set(false);
  }

  #set(talking) {
    if (talking === this.talking) return;
    this.talking = talking;
    this.onChange(talking);
  }
}
