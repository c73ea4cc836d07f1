import assert from "node:assert/strict";
import { test } from "node:test";

import { EMPTY, reduce } from "../../serve/omni2_serve/page/session/conversation.js";
import { delayOf } from "../../serve/omni2_serve/page/session/timing.js";

/** Fold events; each happens at its `now`, or a millisecond after the one before. */
function after(events, state = EMPTY) {
  let clock = 0;
  for (const event of events) state = reduce(state, event, (clock = event.now ?? clock + 1));
  return state;
}

const VOICE = { type: "input_audio", transcript: null };

function message(id, role, part, status = "completed") {
  return { id, type: "message", role, status, content: part ? [part] : [] };
}

const SPOKEN = [
  { type: "input_audio_buffer.speech_started", item_id: "u", audio_start_ms: 900, now: 1000 },
  { type: "input_audio_buffer.speech_stopped", item_id: "u", audio_end_ms: 3000, now: 3010 },
  { type: "page.spoke", at: 2500 },
  { type: "input_audio_buffer.committed", item_id: "u", previous_item_id: null },
  { type: "conversation.item.added", item: message("u", "user", VOICE), previous_item_id: null },
  { type: "conversation.item.done", item: message("u", "user", VOICE), previous_item_id: null },
];
const BEGUN = [
  { type: "response.created", response: { id: "r", status: "in_progress", output: [] } },
  { type: "response.output_item.added", response_id: "r", item: message("a", "assistant", null, "in_progress") },
  { type: "conversation.item.added", item: message("a", "assistant", null, "in_progress"), previous_item_id: "u" },
  { type: "response.output_audio_transcript.delta", item_id: "a", delta: "It is", now: 3100 },
  { type: "response.output_audio.delta", item_id: "a", delta: "", now: 3200 },
  { type: "page.heard", item_id: "a", at: 3300 },
  { type: "response.output_audio_transcript.delta", item_id: "a", delta: " seven.", now: 3250 },
  { type: "response.output_audio.delta", item_id: "a", delta: "", now: 3400 },
];

function done(status) {
  const spoken = { type: "output_audio", transcript: "It is seven." };
  const answer = message("a", "assistant", spoken, status === "completed" ? status : "incomplete");
  return [
    { type: "conversation.item.done", item: answer, previous_item_id: "u" },
    { type: "response.done", response: { id: "r", status, output: [answer] } },
  ];
}

test("a spoken turn and its answer", () => {
  const state = after([...SPOKEN, ...BEGUN, ...done("completed")]);
  assert.deepEqual(state.turns.map(({ id, role, spoken, text, status }) => ({ id, role, spoken, text, status })), [
    { id: "u", role: "user", spoken: true, text: "", status: "completed" },
    { id: "a", role: "assistant", spoken: false, text: "It is seven.", status: "completed" },
  ]);
  assert.equal(state.answering, null);
  assert.equal(state.speaking, false);
});

test("the delay's parts are told by the first of each thing, and add up", () => {
  const [, answer] = after([...SPOKEN, ...BEGUN]).turns;
  const { total, parts } = delayOf(answer.marks);
  assert.equal(total, 800);
  assert.deepEqual(parts.map(({ ms }) => ms), [510, 90, 100, 100]);
});

test("there is no delay before the answer is heard, nor for one that was not asked for by voice", () => {
  assert.equal(delayOf({ spoken: 1, decided: 2, worded: 3, voiced: 4 }), null);
  assert.equal(delayOf({ voiced: 4, heard: 5 }), null);
});

test("text from before the decision takes no time, and marks that are missing none", () => {
  const { total, parts } = delayOf({ spoken: 100, decided: 600, worded: 550, heard: 700 });
  assert.equal(total, 600);
  assert.deepEqual(parts.map(({ ms }) => ms), [500, 0, 0, 100]);
});

test("who speaks is shown from the first sample on, and who answers", () => {
  const speaking = after(SPOKEN.slice(0, 1));
  assert.equal(speaking.speaking, true);
  assert.equal(speaking.turns[0].status, "listening");
  assert.equal(after(BEGUN).answering, "r");
});

test("speech that is forgotten leaves no turn", () => {
  const state = after([...SPOKEN.slice(0, 1), { type: "input_audio_buffer.cleared" }]);
  assert.deepEqual(state.turns, []);
  assert.equal(state.speaking, false);
});

test("an interrupted answer keeps its text, and says what of it was heard", () => {
  const cut = message("a", "assistant", { type: "output_audio", transcript: "It is" }, "incomplete");
  const state = after([...SPOKEN, ...BEGUN, ...done("cancelled"), { type: "conversation.item.retrieved", item: cut }]);
  const [, answer] = state.turns;
  assert.deepEqual([answer.text, answer.heard, answer.status], ["It is seven.", "It is", "cancelled"]);
});

test("the response's status stays, whether its item or the response itself is told first", () => {
  const told = done("cancelled");
  for (const events of [told, told.toReversed()]) {
    assert.equal(after([...SPOKEN, ...BEGUN, ...events]).turns[1].status, "cancelled");
  }
});

test("a recogniser's words are the user's text", () => {
  const state = after([
    ...SPOKEN,
    { type: "conversation.item.input_audio_transcription.delta", item_id: "u", delta: "Wat" },
    { type: "conversation.item.input_audio_transcription.completed", item_id: "u", transcript: "What is it?" },
  ]);
  assert.equal(state.turns[0].text, "What is it?");
});

test("items stand where the server says", () => {
  const typed = (id, previous_item_id) => ({
    type: "conversation.item.added",
    item: message(id, "user", { type: "input_text", text: id }),
    previous_item_id,
  });
  const state = after([typed("a", null), typed("c", "a"), typed("b", "a")]);
  assert.deepEqual(state.turns.map(({ id }) => id), ["a", "b", "c"]);
  const without = after([{ type: "conversation.item.deleted", item_id: "b" }], state);
  assert.deepEqual(without.turns.map(({ id }) => id), ["a", "c"]);
});

test("events that show nothing leave the same state, and turns that are not concerned the same objects", () => {
  const state = after([...SPOKEN, ...BEGUN]);
  assert.equal(reduce(state, { type: "rate_limits.updated" }, 0), state);
  const next = reduce(state, { type: "response.output_audio_transcript.delta", item_id: "a", delta: "!" }, 0);
  assert.equal(next.turns[0], state.turns[0]);
  assert.notEqual(next.turns[1], state.turns[1]);
});
