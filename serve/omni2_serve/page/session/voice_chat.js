// A conversation with the server: microphone and typed words out, answers to the loudspeaker, and what to show.

import { Microphone } from "../audio/microphone.js";
import { decode, encode } from "../audio/pcm.js";
import { Player } from "../audio/player.js";
import { EMPTY, reduce } from "./conversation.js";
import { InputClock } from "./input_clock.js";
import { Socket } from "./socket.js";

const FORMAT = { type: "audio/pcm", rate: 24000 };
const FRAME = 20; // ms
const HARMLESS = new Set(["response_cancel_not_active"]); // the answer had just ended
const ASK = "ask"; // event_id of every response.create: an error names it
const SHORTEST = 200; // ms of speech

export class VoiceChat {
  /**
   * `settings`: { model, key, voice, handsFree, silence }, read when they are needed; `silence` in ms.
   * `onChange()`: something that is shown has changed. `onProblem(message)`: it is shown, too.
   * `onLevels({ microphone })` or `({ loudspeaker })`: root mean square, 0 … 1.
   */
  constructor(settings, { onChange, onProblem, onLevels }) {
    this.settings = settings;
    this.onChange = onChange;
    this.onProblem = onProblem;
    this.onLevels = onLevels;
    this.conversation = EMPTY;
    this.phase = "closed"; // "opening", "open"
    this.holding = false; // push to talk: the button is down
    this.playing = false;
    this.underruns = 0;
    this.microphone = null;
    this.silenced = null; // the response whose sound is not played any more
    this.asked = false; // an answer was asked for, and has not begun
    this.owed = false; // one is to be asked for when the present one has ended
    this.ended = null; // when the turn that is to be answered was over, of those that the page ends itself
  }

  /** Whether the microphone is open. */
  get listening() {
    return this.microphone !== null;
  }

  /** Whether an answer is made, or was asked for. */
  get answering() {
    return this.asked || this.conversation.answering !== null;
  }

  /** Connect, with the microphone or, to type, without. */
  async start(microphone) {
    try {
      if (this.phase === "closed") await this.#open();
      if (microphone && !this.microphone) this.microphone = await Microphone.open((frame) => this.#frame(frame));
    } catch (error) {
      this.onProblem(error.message);
      if (this.phase === "opening") await this.#close();
    }
    this.onChange();
  }

  /** Hang up. */
  async stop() {
    await this.#close();
    this.onChange();
  }

  /** Ask in writing. */
  async type(text) {
    await this.start(false);
    if (this.phase !== "open") return;
    await this.stopAnswer();
    const now = performance.now();
    this.ended = { spoken: now, decided: now };
    const item = { type: "message", role: "user", content: [{ type: "input_text", text }] };
    this.socket.send("conversation.item.create", { item });
    this.#ask();
  }

  /** Push to talk: the button went down, or up. */
  async hold(holding) {
    if (this.phase !== "open" || holding === this.holding) return;
    this.holding = holding;
    this.onChange();
    if (holding) {
      this.began = this.clock.position;
      this.socket.send("input_audio_buffer.clear");
      await this.stopAnswer();
      return;
    }
    if (this.clock.position - this.began < SHORTEST) {
      this.onProblem("Hold the button while you speak; or press it, speak, and press it again.");
      return;
    }
    const now = performance.now();
    this.ended = { spoken: this.clock.lastVoiced(this.began, this.clock.position) ?? now, decided: now };
    this.socket.send("input_audio_buffer.commit");
    this.#ask();
  }

  /** Silence the answer; the model forgets what was not heard. */
  async stopAnswer() {
    if (this.answering) this.socket.send("response.cancel");
    await this.#silence();
  }

  /** Tell the server of changed settings. */
  configure() {
    if (this.phase !== "open") return;
    const { handsFree, silence, voice } = this.settings;
    const turn_detection = handsFree ? { type: "server_vad", silence_duration_ms: silence } : null;
    const transcription = {}; // a server that has a recogniser writes down what the person says
    const audio = { input: { format: FORMAT, turn_detection, transcription }, output: { format: FORMAT, voice } };
    this.socket.send("session.update", { session: { type: "realtime", output_modalities: ["audio"], audio } });
    if (!handsFree) this.socket.send("input_audio_buffer.clear"); // what was said so far is no turn any more
  }

  async #open() {
    this.phase = "opening";
    this.conversation = EMPTY;
    this.clock = new InputClock();
    this.began = 0; // where the present turn begins in the input, ms
    this.onChange();
    this.player = await Player.open(
      (item, at) => this.#dispatch({ type: "page.heard", item_id: item, at }),
      (report) => this.#reported(report),
    );
    this.socket = await Socket.open(
      this.settings.model,
      this.settings.key,
      (event) => this.#received(event),
      (problem) => this.#closed(problem),
    );
    this.phase = "open";
    this.configure();
  }

  async #close() {
    const { socket, microphone, player } = this;
    Object.assign(this, { socket: null, microphone: null, player: null, phase: "closed" });
    Object.assign(this, { holding: false, playing: false, asked: false, owed: false });
    socket?.close();
    await Promise.all([microphone?.close(), player?.close()]);
    this.onLevels({ microphone: 0 });
    this.onLevels({ loudspeaker: 0 });
  }

  async #closed(problem) {
    if (problem === null) return;
    this.onProblem(problem.message);
    await this.stop();
  }

  #frame({ samples, level }) {
    this.onLevels({ microphone: level });
    if (this.phase !== "open" || !(this.settings.handsFree || this.holding)) return;
    this.clock.add(FRAME, performance.now(), level);
    this.socket.send("input_audio_buffer.append", { audio: encode(samples) });
  }

  #received(event) {
    this.#dispatch(event);
    VoiceChat.#effects[event.type]?.(this, event);
  }

  #reported({ busy, level, underruns }) {
    this.onLevels({ loudspeaker: level });
    if (busy === this.playing && underruns === this.underruns) return;
    Object.assign(this, { playing: busy, underruns });
    this.onChange();
  }

  #dispatch(event) {
    this.conversation = reduce(this.conversation, event, performance.now());
    this.onChange();
  }

  /** Ask for an answer, now or when the present one has ended: until then the times of this turn would be taken for its. */
  #ask() {
    this.owed = this.answering;
    if (this.owed) return;
    this.asked = true;
    this.#dispatch({ type: "page.spoke", at: this.ended.spoken });
    this.#dispatch({ type: "page.decided", at: this.ended.decided });
    this.socket.send("response.create", { event_id: ASK });
  }

  /** The turn has ended at this position of the input: note when speech was last heard in it. */
  #spoke(end) {
    this.#dispatch({ type: "page.spoke", at: this.clock.lastVoiced(this.began, end) ?? performance.now() });
  }

  async #silence() {
    this.silenced = this.conversation.answering;
    if (!this.player.busy) return;
    const { item, heard } = await this.player.stop();
    if (item === null) return;
    const audio_end_ms = Math.floor(1000 * heard);
    this.socket?.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms });
  }

  // What the events ask of the page, beside being shown.
  static #effects = {
    error: (chat, { error }) => {
      if (error.event_id === ASK) chat.asked = false;
      if (!HARMLESS.has(error.code)) chat.onProblem(error.message);
    },
    "response.created": (chat) => (chat.asked = false),
    "input_audio_buffer.speech_started": (chat, { audio_start_ms }) => {
      chat.began = audio_start_ms;
      chat.#silence();
    },
    "input_audio_buffer.speech_stopped": (chat, { audio_end_ms }) => chat.#spoke(audio_end_ms),
    "conversation.item.truncated": (chat, { item_id }) => chat.socket.send("conversation.item.retrieve", { item_id }),
    "response.output_audio.delta": (chat, { response_id, item_id, delta }) => {
      if (response_id !== chat.silenced) chat.player.add(item_id, decode(delta));
    },
    "response.output_audio.done": (chat, { item_id }) => chat.player.finish(item_id),
    "response.done": (chat, { response }) => {
      if (response.status === "failed") chat.onProblem(response.status_details.error.message);
      if (chat.owed) chat.#ask();
    },
  };
}
