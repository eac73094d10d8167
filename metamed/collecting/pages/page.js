"use strict";

// Answers are kept by the server before the next question comes; one that could not be sent lies in localStorage until
// it has been: the server knows a question by its id, so that sending twice keeps it once.

const $ = (id) => document.getElementById(id);
const SHORTEST = 150; // milliseconds: a second click of a double click answers nothing
let study, key, question, shown, chosen, busy = true;

const remembered = (name, value) => {
  const at = `metamed.${study.study}.${name}`;
  if (value === undefined) return localStorage.getItem(at);
  if (value === null) localStorage.removeItem(at);
  else localStorage.setItem(at, value);
};

const say = (text) => { $("message").textContent = text; };
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function send(path, body) {
  for (let wait = 500; ; wait = Math.min(wait * 2, 5000)) {
    let response;
    try {
      response = await fetch(path, {
        method: "POST", cache: "no-store", body: JSON.stringify(body),
        headers: { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) },
      });
      if (response.status >= 500) throw new Error(response.statusText);
    } catch {
      say("No connection. Your answer is kept here and sent as soon as possible …");
      await sleep(wait);
      continue;
    }
    say("");
    const told = await response.json();
    if (response.ok) return told;
    const error = new Error(told.error || "Something went wrong");
    error.status = response.status;
    throw error;
  }
}

function show(section) {
  for (const id of ["join", "ask", "end"]) $(id).hidden = id !== section;
}

async function showState(state) {
  question = state.question;
  $("progress").hidden = false;
  $("bar").max = state.of;
  $("bar").value = state.done;
  $("count").textContent = `${state.done} of ${state.of}`;
  $("game").hidden = state.points === undefined;
  if (state.points !== undefined) $("points").textContent = `${state.points} points`;
  $("leaders").replaceChildren(...(state.leaders || []).map((row) => {
    const item = document.createElement("li");
    item.textContent = `${row.name}: ${row.points}`;
    if (row.you) item.className = "you";
    return item;
  }));
  if (!question) return show("end");
  await showQuestion();
}

async function showQuestion() {
  const images = { anchor: $("anchor"), left: $("left").firstElementChild, right: $("right").firstElementChild };
  $("sure").classList.add("off");
  for (const side of ["left", "right"]) {
    $(side).classList.remove("chosen");
    $(side).disabled = true;
  }
  document.activeElement.blur(); // no ring around a candidate suggests it
  show("ask");
  $("ask").style.visibility = "hidden"; // all three appear at once: the time counts from then
  for (let tries = 0; ; tries++) {
    for (const [part, image] of Object.entries(images)) image.src = `/image/${question[part]}${tries ? `?again=${tries}` : ""}`;
    try {
      await Promise.all(Object.values(images).map((image) => image.decode()));
      break;
    } catch {
      say("The images do not load. Trying again …");
      await sleep(1000);
    }
  }
  say("");
  $("ask").style.visibility = "visible";
  await new Promise(requestAnimationFrame);
  shown = performance.now();
  for (const side of ["left", "right"]) $(side).disabled = false;
  chosen = undefined;
  busy = false;
}

async function choose(side) {
  if (busy || !question || performance.now() - shown < SHORTEST) return;
  if (chosen === undefined) chosen = { question: question.id, side, seconds: (performance.now() - shown) / 1000 };
  else if (study.confidence) chosen.side = side; // changed his mind before saying how sure he is
  for (const each of ["left", "right"]) $(each).classList.toggle("chosen", each === chosen.side);
  if (study.confidence) $("sure").classList.remove("off");
  else await answer(chosen);
}

async function answer(given) {
  busy = true;
  remembered("answer", JSON.stringify(given));
  try {
    const state = await send("/answer", given);
    remembered("answer", null);
    await showState(state);
  } catch (error) {
    await failed(error);
  }
}

async function failed(error) {
  if (error.status === 401) { // another study's key, or another store's
    remembered("key", null);
    remembered("answer", null);
    key = null;
    welcome();
  } else if (error.status === 404) { // an answer of another store: nothing to be kept here
    remembered("answer", null);
    await showState(await send("/next", {}));
  }
  say(error.message);
}

function welcome() {
  show("join");
  $("progress").hidden = $("game").hidden = true;
  $("about").textContent = `${study.instruction} There are ${study.questions} questions. Click an image, or press the left or right arrow key. You can stop at any time and go on later in this browser.`;
  $("name").focus();
}

$("join").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (event.submitter) event.submitter.disabled = true;
  try {
    const state = await send("/join", { name: $("name").value });
    key = state.key;
    remembered("key", key);
    await showState(state);
  } catch (error) {
    say(error.message);
  } finally {
    if (event.submitter) event.submitter.disabled = false;
  }
});

for (const side of ["left", "right"]) $(side).addEventListener("click", () => choose(side));
for (const button of $("sure").querySelectorAll("button")) {
  button.addEventListener("click", () => sure(Number(button.dataset.confidence)));
}

async function sure(confidence) {
  if (busy || chosen === undefined) return;
  $("sure").classList.add("off");
  await answer({ ...chosen, confidence });
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || $("ask").hidden) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    event.preventDefault();
    choose(event.key === "ArrowLeft" ? "left" : "right");
  } else if (chosen !== undefined && study.confidence && "123".includes(event.key)) {
    event.preventDefault();
    sure((Number(event.key) - 1) / 2);
  }
});

(async () => {
  try {
    const response = await fetch("/study", { cache: "no-store" });
    study = await response.json();
    if (!response.ok) return say(study.error);
    $("instruction").textContent = study.instruction;
    $("ask").classList.toggle("confident", study.confidence);
    $("sure").hidden = !study.confidence;
    key = remembered("key");
    if (!key) return welcome();
    const unsent = remembered("answer");
    await (unsent ? answer(JSON.parse(unsent)) : showState(await send("/next", {})));
  } catch (error) {
    if (study && !study.error) await failed(error);
    else say("No connection. Reload the page to try again.");
  }
})();
