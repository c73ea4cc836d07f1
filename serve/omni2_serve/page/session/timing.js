// Where the time between the end of speech and the first sound went.

const PARTS = [
  ["decided", "until your turn was over"],
  ["worded", "until the first words"],
  ["voiced", "until their sound"],
  ["heard", "until it was heard"],
];

/**
 * `marks` are times of performance.now(), those that are known: `spoken` (the last voiced frame, or a typed turn was
 * sent), `decided` (the turn is over), `worded`, `voiced` (first text and sound came), `heard` (first sound left the
 * loudspeaker).
 *
 * Returns { total, parts: [{ name, ms }] }, or null before the sound is heard. The parts add up to the total; what
 * happened before its time, such as the text of an answer that was begun early, takes 0.
 */
export function delayOf(marks) {
  if (marks.spoken === undefined || marks.heard === undefined) return null;
  let before = marks.spoken;
  const parts = [];
  for (const [mark, name] of PARTS) {
    const at = Math.min(Math.max(marks[mark] ?? before, before), marks.heard);
    parts.push({ name, ms: at - before });
    before = at;
  }
  return { total: marks.heard - marks.spoken, parts };
}
