// `@openai/agents-realtime`: every kind of turn. Arguments: as of openai_client.py.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import assert from "node:assert/strict";
import { RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

const [address, recording, hold] = process.argv.slice(2);
const speech = readFileSync(recording).subarray(44);
const silence = Buffer.alloc(48_000);
const url = `ws://${address}/v1/realtime?model=any`;

/** A session whose events wait to be taken. */
class Talk {
  constructor() {
    this.waiting = [];
    this.told = () => {};
    this.errors = [];
    const agent = new RealtimeAgent({ name: "test", instructions: "Be brief." });
    this.session = new RealtimeSession(agent, { transport: "websocket" });
    this.session.on("transport_event", (event) => this.#note(event.type, event));
    for (const name of ["audio", "audio_interrupted", "agent_end"]) {
      this.session.on(name, (...values) => this.#note(`sdk ${name}`, values));
    }
    this.session.on("error", (error) => this.errors.push(error));
  }

  #note(type, event) {
    this.waiting.push({ type, event });
    this.told();
  }

  /** Take events up to one of this type. */
  async until(type) {
    for (;;) {
      while (this.waiting.length === 0) {
        await new Promise((resolve) => (this.told = resolve));
      }
      const next = this.waiting.shift();
      if (next.type === type) return next.event;
    }
  }

  say(...sounds) {
    const sound = Buffer.concat(sounds);
    for (let start = 0; start < sound.length; start += 4800) {
      const piece = sound.subarray(start, start + 4800);
      this.session.sendAudio(piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.length));
    }
  }

  /** A turn. What the SDK sends when speech begins goes before the silence that ends it. */
  async ask() {
    this.say(silence, speech);
    await this.until("input_audio_buffer.speech_started");
    this.say(silence);
  }

  /** What the SDK has made of the conversation's last message of a role. */
  last(role) {
    return this.session.history.filter((item) => item.role === role).at(-1);
  }
}

const talk = new Talk();
await talk.session.connect({ apiKey: "any", url });
let updated = await talk.until("session.updated");
if (updated.session.instructions === "") updated = await talk.until("session.updated"); // the SDK's update of tracing
assert.equal(updated.session.instructions, "Be brief.");
assert.equal(updated.session.audio.input.turn_detection.type, "semantic_vad");
talk.session.transport.updateSessionConfig({
  instructions: "Be brief.",
  audio: { input: { turnDetection: { type: "server_vad", silenceDurationMs: 300, interruptResponse: true } } },
});
await talk.until("session.updated");

console.log("a spoken turn");
await talk.ask();
await talk.until("input_audio_buffer.committed");
await talk.until("sdk audio");
let done = await talk.until("response.done");
assert.equal(done.response.status, "completed");
await talk.until("sdk agent_end");
assert.equal(talk.last("user").content[0].type, "input_audio");
assert.ok(talk.last("assistant").content[0].transcript);

console.log("typed turns");
for (const text of ["one", "two"]) {
  talk.session.sendMessage(text);
  await talk.until("sdk agent_end");
  assert.equal(talk.last("user").content[0].text, text);
}

console.log("cancel");
writeFileSync(hold, "");
await talk.ask();
await talk.until("sdk audio");
talk.session.interrupt();
await talk.until("sdk audio_interrupted");
done = await talk.until("response.done");
assert.equal(done.response.status_details.reason, "client_cancelled");

console.log("barge-in, truncate, retrieve");
await talk.ask();
await talk.until("sdk audio");
await talk.ask();
rmSync(hold);
await talk.until("sdk audio_interrupted");
const truncated = await talk.until("conversation.item.truncated");
const retrieved = await talk.until("conversation.item.retrieved");
assert.equal(retrieved.item.id, truncated.item_id);
await talk.until("sdk agent_end");

assert.deepEqual(talk.errors, []);
console.log("a wrong event");
talk.session.transport.sendEvent({ type: "no.such.event", event_id: "mine" });
const error = await talk.until("error");
assert.equal(error.error.event_id, "mine");

talk.session.close();
console.log("reconnect");
const again = new Talk();
await again.session.connect({ apiKey: "any", url });
again.session.sendMessage("one");
await again.until("sdk agent_end");
again.session.close();
assert.deepEqual(again.errors, []);
process.exit(0);
