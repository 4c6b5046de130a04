
"use strict";
// Shows the pairs of one order, two videos in step, and sends or saves the answers.
const find = (id) => document.getElementById(id);
const study = JSON.parse(find("study").textContent);
const sides = ["left", "right"];
const place = `mimicmotion-study-${study.study}`;
const FAR = 0.08, NEAR = 0.02; // seconds by which one video may be ahead, and at which it goes on
const PATIENCE = 15000; // milliseconds

// The browser may refuse to remember (private windows): then a reload begins anew.
const remember = (answers) => { try { localStorage.setItem(place, JSON.stringify(answers)); } catch {} };
const recall = () => { try { return JSON.parse(localStorage.getItem(place)); } catch { return null; } };

function newcomer() {
  const given = new URLSearchParams(location.search).get("participant") ?? "";
  const code = /^[A-Za-z0-9_-]{1,32}$/.test(given) ? given : null;
  const known = recall();
  if (known && (code === null || known.participant === code)) return known;
  const random = crypto.getRandomValues(new Uint32Array(3));
  const count = study.orders.length;
  return {
    study: study.study,
    participant: code ?? [random[0], random[1]].map((n) => n.toString(16).padStart(8, "0")).join(""),
    order: code !== null && /^[0-9]{1,9}$/.test(code) ? Number(code) % count : random[2] % count,
    started: null, finished: null, choices: [],
  };
}

let answers = newcomer();
let shown = null; // the pair on the screen
let upcoming = null; // the next one, loading
const pairs = () => study.orders[answers.order];

function load(number) {
  if (number >= pairs().length) return null;
  const videos = pairs()[number].map((clip) => Object.assign(document.createElement("video"), {
    muted: true, playsInline: true, preload: "auto", src: `clips/${clip}.mp4`, disablePictureInPicture: true,
  }));
  return { number, videos, chosen: null, plays: 0, seen: null, playing: false };
}

function show() {
  const number = answers.choices.length;
  for (const id of ["start", "pair", "end"]) find(id).hidden = id !== (number < pairs().length ? "pair" : "end");
  if (number >= pairs().length) return finish();
  answers.started ??= new Date().toISOString();
  shown = upcoming?.number === number ? upcoming : load(number);
  find("number").textContent = `Pair ${number + 1} of ${pairs().length}`;
  find("done").value = number;
  const pair = shown;
  sides.forEach((side, i) => {
    const video = pair.videos[i];
    video.setAttribute("aria-label", `${side} video`);
    video.onerror = () => tell("A video cannot be played. Please tell the person who sent you here.");
    video.onloadedmetadata = () => fit(video);
    find(side).querySelector(".frame").replaceChildren(video);
  });
  fit(pair.videos[0]);
  update();
  play();
  upcoming = load(number + 1);
}

function fit(video) {
  if (!video.videoWidth) return; // not loaded yet
  find("pair").style.setProperty("--aspect", video.videoWidth / video.videoHeight);
  find("videos").classList.toggle("wide", video.videoWidth > video.videoHeight);
}

async function play() {
  const pair = shown;
  pair.playing = true;
  tell("Loading …");
  update();
  for (const video of pair.videos) {
    if (video.error) return video.onerror();
    // Phones that save data load nothing before it plays: after a while it starts all the same.
    if (video.readyState < 4) await new Promise((ready) => { video.oncanplaythrough = ready; setTimeout(ready, PATIENCE); });
    video.currentTime = 0;
  }
  if (pair !== shown) return;
  pair.plays += 1;
  tell("Watch both to the end.");
  try {
    await Promise.all(pair.videos.map((video) => video.play()));
  } catch { // a phone that saves power wants to be asked
    pair.playing = false;
    find("again").disabled = false;
    return tell("Press “Play again” to start.");
  }
  requestAnimationFrame(() => keepStep(pair));
}

// The video that is ahead waits for the other: nothing is skipped.
function keepStep(pair) {
  if (pair !== shown) return;
  const [a, b] = pair.videos;
  if (a.ended && b.ended) return ended(pair);
  for (const [video, other] of [[a, b], [b, a]]) {
    const ahead = other.ended ? 0 : video.currentTime - other.currentTime;
    if (!video.paused && !video.ended && ahead > FAR) video.pause();
    else if (video.paused && !video.ended && ahead < NEAR) video.play().catch(() => {});
  }
  requestAnimationFrame(() => keepStep(pair));
}

function ended(pair) {
  pair.playing = false;
  pair.seen ??= performance.now();
  tell("Which one is better?");
  update();
}

function choose(side) {
  if (!shown || shown.seen === null || shown.playing) return;
  shown.chosen = side;
  update();
  find("next").focus();
}

function next() {
  if (!shown?.chosen || shown.playing) return;
  const [left, right] = pairs()[shown.number];
  const seconds = Math.round(performance.now() - shown.seen) / 1000;
  answers.choices.push({ left, right, chosen: shown.chosen, seconds, plays: shown.plays });
  if (answers.choices.length === pairs().length) answers.finished = new Date().toISOString();
  remember(answers);
  document.activeElement.blur();
  show();
}

function update() {
  const open = shown.seen !== null && !shown.playing;
  for (const side of sides) {
    const button = find(side).querySelector("button");
    button.disabled = !open;
    button.setAttribute("aria-pressed", String(shown.chosen === side));
  }
  find("again").disabled = !open;
  find("next").disabled = !open || !shown.chosen;
}

async function finish() {
  shown = null;
  const text = JSON.stringify(answers, null, 1);
  if (location.protocol.startsWith("http")) {
    find("outcome").textContent = "Sending your answers …";
    try {
      if (answers.sent || (await fetch("answers", { method: "POST", body: text })).ok) {
        remember(Object.assign(answers, { sent: true }));
        find("outcome").textContent = "Your answers are saved. You can close this page.";
        return;
      }
    } catch {} // no server behind the page, or it cannot be reached: the answers become a file
  }
  const name = `answers-${answers.participant}.json`;
  find("outcome").textContent = `Your answers are in the file ${name}, among your downloads. Please send it to the person who sent you here.`;
  find("save").hidden = false;
  find("save").onclick = () => save(name, text);
  save(name, text);
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = name;
  link.click();
}

function tell(text) {
  find("status").textContent = text;
}

find("begin").onclick = show;
find("again").onclick = play;
find("next").onclick = next;
for (const side of sides) find(side).querySelector("button").onclick = () => choose(side);
find("other").onclick = () => { try { localStorage.removeItem(place); } catch {} location.href = location.pathname; };
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !shown) return;
  if (event.key === "ArrowLeft") choose("left");
  else if (event.key === "ArrowRight") choose("right");
  else if (event.key.toLowerCase() === "r" && !find("again").disabled) play();
  else return;
  event.preventDefault();
});
if (answers.choices.length) {
  find("begin").textContent = answers.choices.length < pairs().length ? `Go on at pair ${answers.choices.length + 1}` : "Show my answers";
}
