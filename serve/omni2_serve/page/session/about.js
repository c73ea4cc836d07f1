// What the server says of its model.

import { Problem } from "../problem.js";

export class KeyNeeded extends Problem {}

/**
 * Resolves to { model, voices, typed, remembers, openDomain }: its name; names of voices, the default first; whether it
 * was taught typed questions; whether it is given earlier turns; whether it answers questions of any kind.
 * Throws KeyNeeded where the server wants another key.
 */
export async function about(key) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const answer = await fetch("/v1/models", { headers }).catch(() => {
    throw new Problem("The server did not answer. Is it still running?");
  });
  if (answer.status === 401) throw new KeyNeeded(key ? "That is not the server's key." : "This server wants a key.");
  if (!answer.ok) throw new Problem(`The server answered ${answer.status}. Try again in a moment.`);
  const [{ id, voices, typed_turns, history_turns, open_domain }] = (await answer.json()).data;
  return { model: id, voices, typed: typed_turns, remembers: history_turns !== 0, openDomain: open_domain };
}
