// The conversation as the page shows it: the server's events, and the page's own, folded into one value.
// Values are never changed, so that what is the same object needs not be drawn again.

export const EMPTY = { turns: [], speaking: false, answering: null, spoken: null, decided: null };

/**
 * A turn is { id, role, spoken, text, status, heard, marks }. `status`: "listening", "in_progress", "completed",
 * "incomplete", "cancelled", "failed". `heard`: the text that was heard, of an interrupted answer; null where all was.
 * `marks`: see timing.js.
 *
 * `event` is one of the server, or of the page's own:
 *   page.spoke { at }: when the last voiced frame was heard;
 *   page.decided { at }: the person ended the turn;
 *   page.heard { item_id, at }: an answer is heard.
 * `now` is a time of performance.now().
 */
export function reduce(state, event, now) {
  return EVENTS[event.type]?.(state, event, now) ?? state;
}

const EVENTS = {
  "page.spoke": (state, { at }) => ({ ...state, spoken: at }),
  "page.decided": (state, { at }) => ({ ...state, decided: at }),
  "page.heard": (state, { item_id, at }) => mark(state, item_id, "heard", at),
  "input_audio_buffer.speech_started": (state, { item_id }) => ({
    ...insert(state, turn({ id: item_id, role: "user", spoken: true, status: "listening" })),
    speaking: true,
  }),
  "input_audio_buffer.speech_stopped": (state, _, now) => ({ ...state, speaking: false, decided: now }),
  "input_audio_buffer.cleared": (state) => ({
    ...state,
    speaking: false,
    turns: state.turns.filter((each) => each.status !== "listening"),
  }),
  "input_audio_buffer.committed": (state, { item_id, previous_item_id }) =>
    insert(state, turn({ id: item_id, role: "user", spoken: true, status: "completed" }), previous_item_id),
  "conversation.item.added": (state, { item, previous_item_id }) => insert(state, shown(item), previous_item_id),
  "conversation.item.done": (state, { item }) =>
    change(state, item.id, (each) => ({ ...each, status: settled(each, item) })),
  "conversation.item.deleted": (state, { item_id }) => ({
    ...state,
    turns: state.turns.filter((each) => each.id !== item_id),
  }),
  "conversation.item.retrieved": (state, { item }) =>
    change(state, item.id, (each) => (item.role === "assistant" ? { ...each, heard: textOf(item) } : each)),
  "conversation.item.input_audio_transcription.delta": (state, { item_id, delta }) =>
    change(state, item_id, (each) => ({ ...each, text: each.text + delta })),
  "conversation.item.input_audio_transcription.completed": (state, { item_id, transcript }) =>
    change(state, item_id, (each) => ({ ...each, text: transcript })),
  "response.created": (state, { response }) => ({ ...state, answering: response.id }),
  "response.output_item.added": (state, { item }) => {
    const marks = { spoken: state.spoken ?? undefined, decided: state.decided ?? undefined };
    const answered = insert(state, { ...shown(item), marks });
    return { ...answered, spoken: null, decided: null };
  },
  "response.output_audio_transcript.delta": (state, event, now) => worded(state, event, now),
  "response.output_text.delta": (state, event, now) => worded(state, event, now),
  "response.output_audio.delta": (state, { item_id }, now) => mark(state, item_id, "voiced", now),
  "response.done": (state, { response }) => {
    const ended = response.output.reduce(
      (before, { id }) => change(before, id, (each) => ({ ...each, status: response.status })),
      state,
    );
    return { ...ended, answering: ended.answering === response.id ? null : ended.answering };
  },
};

function turn(fields) {
  return { spoken: false, text: "", heard: null, marks: {}, ...fields };
}

/** An item of the server as a turn. */
function shown(item) {
  const spoken = item.role === "user" && item.content.some((part) => part.type === "input_audio");
  return turn({ id: item.id, role: item.role, spoken, text: textOf(item), status: item.status });
}

function textOf(item) {
  return item.content.map((part) => part.transcript ?? part.text ?? "").join("");
}

/** A response's own word on how it ended says more than its item's. */
function settled(each, item) {
  return ["cancelled", "failed"].includes(each.status) ? each.status : item.status;
}

/** Put a turn behind another; at the end where that is not known. One that is there stays, and learns its status. */
function insert(state, added, previous = null) {
  if (state.turns.some((each) => each.id === added.id)) {
    return change(state, added.id, (each) => ({ ...each, status: added.status, text: each.text || added.text }));
  }
  const before = state.turns.findIndex((each) => each.id === previous);
  const place = before < 0 ? state.turns.length : before + 1;
  return { ...state, turns: state.turns.toSpliced(place, 0, added) };
}

function change(state, id, how) {
  return { ...state, turns: state.turns.map((each) => (each.id === id ? how(each) : each)) };
}

/** Note when something first happened. */
function mark(state, id, name, at) {
  return change(state, id, (each) => (name in each.marks ? each : { ...each, marks: { ...each.marks, [name]: at } }));
}

function worded(state, { item_id, delta }, now) {
  return change(mark(state, item_id, "worded", now), item_id, (each) => ({ ...each, text: each.text + delta }));
}
