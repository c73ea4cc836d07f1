// The page: its controls, and what they show.

import { QUESTIONS } from "./questions.js";
import { KeyNeeded, about } from "./session/about.js";
import { HoldButton } from "./session/hold_button.js";
import { VoiceChat } from "./session/voice_chat.js";
import { LogView } from "./view/log_view.js";

const KEY = "omni2-key"; // in the tab's own storage
const FULL_SCALE = 60; // dB of a meter

const $ = (id) => document.getElementById(id);
const settings = { model: "", key: sessionStorage.getItem(KEY) ?? "", voice: "", handsFree: true, silence: 500 };
const log = new LogView($("log"));
const chat = new VoiceChat(settings, { onChange: show, onProblem: problem, onLevels: levels });
const button = new HoldButton((talking) => chat.hold(talking));

async function learn() {
  try {
    const { model, voices, typed, remembers, openDomain } = await about(settings.key);
    settings.model = log.name = $("model").textContent = model;
    settings.voice = voices[0];
    $("voice").replaceChildren(...voices.map((voice) => new Option(voice)));
    $("toy").hidden = $("questions").hidden = openDomain;
    $("typing").hidden = $("taught").hidden = !typed;
    $("untaught").hidden = typed;
    $("remembers").hidden = !remembers;
    $("forgetful").hidden = remembers;
    $("start").disabled = false;
    $("locked").hidden = true;
    $("problem").textContent = "";
  } catch (error) {
    $("locked").hidden = !(error instanceof KeyNeeded);
    problem(error.message);
  }
}

function show() {
  const { phase, listening } = chat;
  log.render(chat.conversation.turns);
  $("empty").hidden = chat.conversation.turns.length > 0;
  $("status").textContent = status();
  document.body.dataset.state = phase;
  $("start").hidden = listening;
  $("start").disabled = phase === "opening" || !settings.model;
  $("end").hidden = phase !== "open";
  $("hold").hidden = !listening || settings.handsFree;
  $("hold").textContent = chat.holding ? "Listening: let go, or press again" : "Hold to talk, or press once";
  $("hold").ariaPressed = String(chat.holding);
  $("hush").disabled = phase !== "open" || !(chat.playing || chat.answering);
  $("voice").disabled = phase !== "closed";
  $("underruns").textContent = chat.underruns;
}

function status() {
  const { phase, listening, conversation, playing, holding, answering } = chat;
  if (phase !== "open") return phase === "closed" ? "Not connected" : "Connecting";
  if (conversation.speaking || holding) return "You are speaking";
  if (playing) return "Answering";
  if (answering) return "Thinking";
  if (!listening) return "Connected";
  return settings.handsFree ? "Listening" : "Ready";
}

function problem(message) {
  $("problem").textContent = message;
}

function levels(now) {
  for (const [name, level] of Object.entries(now)) {
    $(name).value = level > 0 ? Math.max(0, 1 + (20 * Math.log10(level)) / FULL_SCALE) : 0;
  }
}

$("start").addEventListener("click", async () => {
  problem("");
  await chat.start(true);
  if (chat.listening) (settings.handsFree ? $("end") : $("hold")).focus();
});
$("end").addEventListener("click", async () => {
  await chat.stop();
  $("start").focus();
});
$("hush").addEventListener("click", () => chat.stopAnswer());
$("typing").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  problem("");
  $("text").value = "";
  chat.type(text);
});
$("locked").addEventListener("submit", (event) => {
  event.preventDefault();
  settings.key = $("key").value;
  sessionStorage.setItem(KEY, settings.key);
  learn();
});
for (const mode of document.getElementsByName("mode")) {
  mode.addEventListener("change", () => {
    button.cancel();
    settings.handsFree = mode.value === "free";
    chat.configure();
    show();
  });
}
$("silence").addEventListener("change", () => {
  settings.silence = Number($("silence").value);
  chat.configure();
});
$("voice").addEventListener("change", () => (settings.voice = $("voice").value));

$("hold").addEventListener("pointerdown", (event) => {
  $("hold").setPointerCapture(event.pointerId);
  button.press(event.timeStamp);
});
$("hold").addEventListener("pointerup", (event) => button.release(event.timeStamp));
$("hold").addEventListener("pointercancel", () => button.cancel());
$("hold").addEventListener("contextmenu", (event) => event.preventDefault()); // of a long press on a telephone
$("hold").addEventListener("blur", () => button.cancel());
for (const key of [" ", "Enter"]) {
  $("hold").addEventListener("keydown", (event) => {
    if (event.key !== key) return;
    event.preventDefault();
    if (!event.repeat) button.press(event.timeStamp);
  });
  $("hold").addEventListener("keyup", (event) => {
    if (event.key !== key) return;
    event.preventDefault(); // Firefox clicks with this
    button.release(event.timeStamp);
  });
}
$("hold").addEventListener("click", (event) => {
  if (event.pointerType) return; // pressed and released above
  if (event.detail === 0) button.press(event.timeStamp); // a screen reader's click has neither press nor release
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("hush").disabled) chat.stopAnswer();
});

$("examples").replaceChildren(
  ...QUESTIONS.map((question) => Object.assign(document.createElement("li"), { textContent: question })),
);
show();
learn();
