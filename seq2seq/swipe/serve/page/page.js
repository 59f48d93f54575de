// The page: draws a layout, sends what a finger draws, and shows what a model makes of it.
//
// All positions are pixels of the layout's file; `scale` is CSS pixels for each of them. Nothing is sent anywhere but to
// the server of this page.

const PAUSE = 120; // milliseconds between predictions while a finger is still drawing
const SHOWN = 4; // suggestions

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((found) => [found.id, found]));
const canvas = element.keyboard;
const pen = canvas.getContext("2d");

let choices; // what /api/choices says
let layout; // the one that is drawn
let scale = 1;
let trace = emptyTrace();
let pointer = null; // the id of the pointer that draws
let answer = null; // the last prediction
let pinned = null; // the letter that was clicked
let pointed = null; // the letter under the mouse or with the focus
let waiting = null; // what aborts the request on its way
let asked = 0; // when the last one was sent

function emptyTrace() {
  return { x: [], y: [], t: [] };
}

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Choices ------------------------------------------------------------------------------------------------------------

function fill(select, names, labels = {}) {
  const before = select.options.length ? select.value : names[0];
  select.replaceChildren(...names.map((name) => make("option", { value: name, textContent: labels[name] ?? name })));
  if (names.includes(before)) select.value = before;
}

function chooseModel() {
  const model = choices.models[element.model.value];
  fill(element.layout, Object.keys(model.layouts));
  fill(element.lexicon, [...model.lexicons, ""], { "": "none" });
  element.size.textContent = sizeOf(model.summary);
  chooseLayout();
}

function sizeOf({ model_bytes: model, lexicon_bytes: words }) {
  return `${[model, words].map((bytes) => (bytes / 2 ** 20).toFixed(1)).join(" + ")} MiB`;
}

function chooseLayout() {
  layout = choices.models[element.model.value].layouts[element.layout.value];
  forget();
  element.letters.replaceChildren(
    ...layout.keys
      .filter(isLetter)
      .map((key, place) => {
        const button = make("button", { type: "button", textContent: key.label, tabIndex: place ? -1 : 0 });
        button.setAttribute("aria-pressed", "false");
        button.addEventListener("focus", () => point(key.label));
        button.addEventListener("blur", () => point(null));
        button.addEventListener("click", () => pin(key.label));
        return button;
      }),
  );
  resize();
}

// Drawing ------------------------------------------------------------------------------------------------------------

function resize() {
  const ratio = window.devicePixelRatio || 1;
  scale = canvas.clientWidth / layout.width;
  const height = Math.round(layout.height * scale);
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(canvas.clientWidth * ratio);
  canvas.height = Math.round(height * ratio);
  pen.setTransform(ratio * scale, 0, 0, ratio * scale, 0, 0);
  const letters = layout.keys.filter(isLetter);
  [...element.letters.children].forEach((button, place) => {
    const key = letters[place];
    Object.assign(button.style, {
      left: `${key.x * scale}px`,
      top: `${key.y * scale}px`,
      width: `${key.width * scale}px`,
      height: `${key.height * scale}px`,
    });
  });
  draw();
}

function draw() {
  pen.clearRect(0, 0, layout.width, layout.height);
  const letter = pointed ?? pinned;
  layout.keys.forEach((key) => drawCap(key, key.label === letter));
  if (answer && letter && answer.posterior[letter]) drawReading(answer.points, answer.posterior[letter]);
  else drawTrace();
  layout.keys.forEach(drawLabel);
}

function isLetter(key) {
  return layout.alphabet.includes(key.label);
}

function drawCap(key, lit) {
  const gap = 2.5 / scale;
  const [x, y, width, height] = [key.x + gap, key.y + 1.6 * gap, key.width - 2 * gap, key.height - 3.2 * gap];
  const radius = 6 / scale;
  pen.beginPath();
  pen.roundRect(x, y + 1.2 / scale, width, height, radius);
  pen.fillStyle = colour("key-edge");
  pen.fill();
  pen.beginPath();
  pen.roundRect(x, y, width, height, radius);
  pen.fillStyle = colour(lit ? "key-lit" : isLetter(key) ? "key" : "key-soft");
  pen.fill();
}

function drawLabel(key) {
  const size = isLetter(key) ? Math.min(key.height * 0.4, 23 / scale) : Math.min(12 / scale, (1.5 * key.width) / key.label.length);
  pen.font = `${size}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = colour(isLetter(key) ? "text" : "soft");
  pen.fillText(key.label, key.x + key.width / 2, key.y + key.height / 2, key.width);
}

function drawTrace() {
  const { x, y } = trace;
  if (!x.length) return;
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = pen.fillStyle = colour("accent");
  pen.lineWidth = 5 / scale;
  pen.globalAlpha = 0.7;
  pen.beginPath();
  x.forEach((_, at) => pen.lineTo(x[at], y[at]));
  pen.stroke();
  pen.globalAlpha = 1;
  dot(x.at(-1), y.at(-1), 5);
}

function drawReading(points, weights) {
  pen.lineCap = "round";
  pen.strokeStyle = colour("soft");
  pen.lineWidth = 3 / scale;
  pen.globalAlpha = 0.45;
  pen.beginPath();
  points.forEach(([x, y]) => pen.lineTo(x, y));
  pen.stroke();
  pen.strokeStyle = pen.fillStyle = colour("accent");
  pen.lineWidth = 7 / scale;
  points.forEach(([x, y], at) => {
    pen.globalAlpha = weights[at];
    dot(x, y, 3 + 4 * weights[at]);
    if (!at) return;
    pen.globalAlpha = Math.min(weights[at], weights[at - 1]);
    pen.beginPath();
    pen.moveTo(...points[at - 1]);
    pen.lineTo(x, y);
    pen.stroke();
  });
  pen.globalAlpha = 1;
}

function dot(x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius / scale, 0, 2 * Math.PI);
  pen.fill();
}

// The finger ---------------------------------------------------------------------------------------------------------

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
}

function within(value, size) {
  return Math.min(Math.max(value, -size), 2 * size);
}

function add(event) {
  if (trace.x.length >= choices.limits.points) return;
  if (!trace.x.length) trace.start = event.timeStamp;
  const t = Math.max(Math.round(event.timeStamp - trace.start), trace.t.at(-1) ?? 0);
  if (t > choices.limits.milliseconds) return;
  const [x, y] = place(event);
  trace.x.push(within(x, layout.width));
  trace.y.push(within(y, layout.height));
  trace.t.push(t);
}

function begin(event) {
  if (pointer !== null || event.button !== 0) return;
  event.preventDefault();
  forget();
  pointer = event.pointerId;
  canvas.setPointerCapture(pointer);
  add(event);
  draw();
}

function move(event) {
  if (pointer === null && event.pointerType === "mouse") return point(letterAt(...place(event)));
  if (event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents?.() ?? [];
  (events.length ? events : [event]).forEach(add);
  draw();
  if (!waiting && performance.now() - asked > PAUSE) ask(false);
}

function end(event) {
  if (event.pointerId !== pointer) return;
  pointer = null;
  if (event.type === "pointercancel") return forget();
  add(event);
  draw();
  ask(true);
}

function letterAt(x, y) {
  const inside = (key) => x >= key.x && x < key.x + key.width && y >= key.y && y < key.y + key.height;
  const key = layout.keys.find(inside);
  return key && isLetter(key) ? key.label : null;
}

function forget() {
  waiting?.abort();
  trace = emptyTrace();
  answer = pinned = pointed = null;
  element.suggestions.replaceChildren();
  element.chips.replaceChildren();
  element.announcement.textContent = "";
  if (layout) draw();
}

// Predictions --------------------------------------------------------------------------------------------------------

async function ask(finished) {
  waiting?.abort();
  const mine = (waiting = new AbortController());
  asked = performance.now();
  try {
    const found = await fetchJson("api/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        model: element.model.value,
        layout: element.layout.value,
        lexicon: element.lexicon.value || null,
        x: trace.x,
        y: trace.y,
        t: trace.t,
      }),
      signal: mine.signal,
    });
    element["round-trip"].textContent = `${Math.round(performance.now() - asked)} ms`;
    show(found, finished);
  } catch (error) {
    if (error.name !== "AbortError") element.error.textContent = error.message;
  } finally {
    if (waiting === mine) waiting = null;
  }
}

async function fetchJson(address, options) {
  const response = await fetch(address, options);
  const found = await response.json();
  if (!response.ok) throw new Error(found.error);
  element.error.textContent = "";
  return found;
}

function show(found, finished) {
  element.latency.textContent = `${found.milliseconds} ms`;
  element.memory.textContent = `${Math.round(found.resident_mib)} MiB`;
  const best = found.suggestions.slice(0, SHOWN);
  element.suggestions.replaceChildren(...best.map(suggestion));
  if (!finished) return;
  if (!best.length) element.suggestions.append(make("li", { className: "none", textContent: "No word found" }));
  answer = found;
  showReading(best[0]?.word ?? "");
  element.announcement.textContent = best.length
    ? best.map(({ displayed, probability }) => `${displayed} ${percent(probability)}`).join(", ")
    : "No word found";
  draw();
}

function percent(probability) {
  return probability > 0 && probability < 0.01 ? "< 1 %" : `${Math.round(100 * probability)} %`;
}

function suggestion({ displayed, probability }) {
  const bar = make("span", { className: "bar" });
  bar.style.width = `${100 * probability}%`;
  const button = make(
    "button",
    { type: "button" },
    make("span", { className: "word", textContent: displayed }),
    make("span", { className: "share", textContent: percent(probability) }),
    bar,
  );
  button.setAttribute("aria-label", `Insert ${displayed}, ${percent(probability)}`);
  button.addEventListener("click", () => insert(displayed));
  return make("li", {}, button);
}

function insert(word) {
  const text = element.text;
  const [before, after] = [text.value.slice(0, text.selectionEnd), text.value.slice(text.selectionEnd)];
  const start = before && !before.endsWith(" ") ? `${before} ${word} ` : `${before}${word} `;
  text.value = start + after.trimStart();
  text.setSelectionRange(start.length, start.length);
  forget();
}

function deleteWord() {
  element.text.value = element.text.value.replace(/\S+\s*$/u, "");
  element.text.focus();
}

// Where the model reads a letter -------------------------------------------------------------------------------------

function showReading(word) {
  const letters = [...new Set(word)].filter((letter) => answer.posterior[letter]);
  element.chips.replaceChildren(...letters.map(chip));
}

function chip(letter) {
  const button = make("button", { type: "button" }, make("span", { textContent: letter }));
  button.append(profile(answer.posterior[letter]));
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Show where ${letter} is read`);
  button.dataset.letter = letter;
  button.addEventListener("pointerenter", () => point(letter));
  button.addEventListener("pointerleave", () => point(null));
  button.addEventListener("focus", () => button.matches(":focus-visible") && point(letter));
  button.addEventListener("blur", () => point(null));
  button.addEventListener("click", () => pin(letter));
  return button;
}

function profile(weights) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const area = document.createElementNS(svg.namespaceURI, "path");
  const floor = document.createElementNS(svg.namespaceURI, "line");
  const step = 100 / Math.max(weights.length - 1, 1);
  const top = weights.map((weight, at) => `L${(at * step).toFixed(1)} ${(20 - 19 * weight).toFixed(1)}`);
  svg.setAttribute("viewBox", "0 0 100 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  area.setAttribute("d", `M0 20${top.join("")}L100 20Z`);
  for (const [name, value] of Object.entries({ x1: 0, y1: 20, x2: 100, y2: 20 })) floor.setAttribute(name, value);
  svg.append(floor, area);
  return svg;
}

function point(letter) {
  if (letter === pointed) return;
  pointed = letter;
  draw();
}

function pin(letter) {
  pinned = pinned === letter ? null : letter;
  for (const button of [...element.chips.children, ...element.letters.children]) {
    button.setAttribute("aria-pressed", String((button.dataset.letter ?? button.textContent) === pinned));
  }
  draw();
}

function moveFocus(event) {
  const letters = [...element.letters.children];
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: "up", ArrowDown: "down", Home: "first", End: "last" }[event.key];
  const now = letters.indexOf(document.activeElement);
  const typed = letters.find((button) => button.textContent === event.key);
  if (step === undefined && !typed) return;
  event.preventDefault();
  const next = typed ?? target(letters, now, step);
  letters.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
  next.focus();
}

function target(letters, now, step) {
  if (step === "first") return letters[0];
  if (step === "last") return letters.at(-1);
  if (typeof step === "number") return letters[(now + step + letters.length) % letters.length];
  const boxes = letters.map((button) => button.getBoundingClientRect());
  const from = boxes[now];
  const away = (box) => Math.abs(box.top - from.top) * 4 + Math.abs(box.left - from.left);
  const beyond = letters.filter((_, at) => (step === "up" ? boxes[at].bottom <= from.top + 1 : boxes[at].top >= from.bottom - 1));
  return beyond.sort((one, other) => away(boxes[letters.indexOf(one)]) - away(boxes[letters.indexOf(other)]))[0] ?? letters[now];
}

// Start --------------------------------------------------------------------------------------------------------------

canvas.addEventListener("pointerdown", begin);
canvas.addEventListener("pointermove", move);
canvas.addEventListener("pointerup", end);
canvas.addEventListener("pointercancel", end);
canvas.addEventListener("pointerleave", () => pointer === null && point(null));
element.letters.addEventListener("keydown", moveFocus);
element.undo.addEventListener("click", deleteWord);
element.model.addEventListener("change", chooseModel);
element.layout.addEventListener("change", chooseLayout);
element.lexicon.addEventListener("change", () => trace.x.length && ask(true));
window.addEventListener("resize", () => layout && resize());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => layout && draw());

try {
  choices = await fetchJson("api/choices");
  element.memory.textContent = `${Math.round(choices.resident_mib)} MiB`;
  fill(element.model, Object.keys(choices.models));
  chooseModel();
} catch (error) {
  element.error.textContent = error.message;
}
