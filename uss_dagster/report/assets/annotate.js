"use strict";

// Names of images and classes are put in as text, never as markup.

const at = (id) => document.getElementById(id);
const canvas = at("canvas"), layers = { picture: at("picture"), labels: at("labels"), top: canvas };
const PALETTE = [[86, 180, 233], [230, 120, 40], [0, 158, 115], [213, 94, 160], [120, 110, 230], [170, 200, 60], [240, 100, 100], [60, 200, 200], [190, 150, 90], [150, 90, 170]];
const SELECTION = [255, 196, 0], REMOVAL = [235, 60, 60], WHITE = [255, 255, 255], DARK = [20, 20, 20];
const MODES = ["new", "add", "subtract", "paint", "erase"];
const HINTS = {
  new: "Click on a thing.", add: "Click on what to add.", subtract: "Click on what to take away.", paint: "Paint what belongs to it.", erase: "Erase what does not.",
};
const STEP = 1.35; // as in annotation/pool.py
const MOST_BYTES = 96 * 2 ** 20;
const state = { images: [], names: [], works: new Map(), work: null, mode: "new", hover: null, point: null, drag: null, zoom: 1, turn: 0 };

async function fetched(path, options) {
  const answer = await fetch(path, options);
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(value.error || answer.statusText), { status: answer.status });
  return value;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const colourOf = (name) => PALETTE[Math.max(0, state.names.indexOf(name)) % PALETTE.length];
const painting = () => state.mode === "paint" || state.mode === "erase";

// -- images. A work is all about one image: { number, width, height, image, pool, instances, selection, done, revision, undone, redone, unsaved, saving }.

async function started() {
  const { images, names, file } = await fetched("images");
  Object.assign(state, { images, names, file });
  at("saved").textContent = `Saves to ${file}`;
  named();
  listed();
  asked();
  const first = images.findIndex((image) => !image.done);
  await opened(Math.max(0, first));
}

async function opened(number) {
  if (number < 0 || number >= state.images.length) return;
  const turn = ++state.turn;
  flushed();
  say("Loading the image…");
  try {
    const work = await loaded(number);
    if (turn !== state.turn) return;
    Object.assign(state, { work, hover: null, point: [Math.floor(work.width / 2), Math.floor(work.height / 2)] });
    for (const layer of Object.values(layers)) Object.assign(layer, { width: work.width, height: work.height });
    layers.picture.getContext("2d").drawImage(work.image, 0, 0, work.width, work.height);
    at("layers").style.setProperty("--ratio", work.width / work.height);
    at("radius").max = Math.max(20, Math.round(Math.max(work.width, work.height) / 10));
    at("name").textContent = `${number + 1} of ${state.images.length}: ${state.images[number].name}`;
    canvas.setAttribute("aria-label", `${state.images[number].name}, ${work.width} by ${work.height} pixels`);
    zoomed(1);
    shown();
    say(work.selection ? "There is a selection that is not accepted yet." : HINTS[state.mode]);
    if (number + 1 < state.images.length) loaded(number + 1).catch(() => {}); // ahead, so that it is there at once
  } catch (error) {
    if (turn === state.turn) say(error.message, true);
  }
}

// The work of an image; loaded once. Of images far away only what is not in the file stays in memory.
function loaded(number) {
  const known = state.works.get(number);
  if (known) return known;
  const image = new Image();
  image.src = `picture?number=${number}`;
  const buffer = fetch(`pool?number=${number}`).then((answer) => (answer.ok ? answer.arrayBuffer() : answer.json().then(({ error }) => { throw new Error(error); })));
  const work = Promise.all([fetched(`sheet?number=${number}`), buffer, image.decode()]).then(([sheet, words]) => {
    const { width, height } = sheet;
    const mask = ({ runs, ...rest }) => ({ ...rest, bits: bitsOf(runs, width, height) });
    const draft = sheet.draft && mask(sheet.draft);
    return {
      number, width, height, image, pool: new Candidates(words), revision: sheet.revision, done: sheet.done, instances: sheet.instances.map(mask),
      selection: draft ? { bits: draft.bits, mask: draft.mask } : null, editing: draft ? draft.instance : null, undone: [], redone: [],
    };
  });
  state.works.set(number, work);
  work.catch(() => state.works.delete(number));
  for (const other of state.works.keys()) {
    if (Math.abs(other - number) > 3) state.works.get(other).then((far) => !far.unsaved && !far.saving && far !== state.work && state.works.delete(other));
  }
  return work;
}

function listed() {
  at("pictures").replaceChildren(...state.images.map((image) => {
    const thumb = made("img", { src: `picture?number=${image.number}&side=240`, alt: "", loading: "lazy" });
    const button = made("button", { type: "button", title: image.name }, thumb, made("span", { textContent: image.name }), made("b"));
    button.addEventListener("click", () => opened(image.number));
    return made("li", {}, button);
  }));
}

function counted() {
  const done = state.images.filter((image) => image.done).length;
  at("count").textContent = `${done} of ${state.images.length} images done`;
  at("pictures").querySelectorAll("button").forEach((button, i) => {
    button.setAttribute("aria-current", String(state.work && state.work.number === i));
    button.querySelector("b").textContent = state.images[i].done ? "✓ done" : state.images[i].instances ? String(state.images[i].instances) : "";
  });
}

// -- changes. Each remembers what was there before; masks are never changed in place, so remembering them costs nothing.

function remembered(work = state.work) {
  const { instances, selection, editing, done } = work;
  work.undone.push({ instances, selection, editing, done });
  work.redone = [];
  const most = Math.max(8, Math.floor(MOST_BYTES / (work.width * work.height)));
  if (work.undone.length > most) work.undone.shift();
}

function stepped(from, to) {
  const work = state.work;
  if (!work || !work[from].length) return say(from === "undone" ? "Nothing to undo." : "Nothing to redo.");
  const { instances, selection, editing, done } = work;
  work[to].push({ instances, selection, editing, done });
  const before = work[from].pop(), rank = before.done !== done || before.instances !== instances;
  Object.assign(work, before);
  changed(rank);
  say(from === "undone" ? "Undone." : "Redone.");
}

function changed(rank = false, work = state.work) {
  const image = state.images[work.number];
  Object.assign(image, { done: work.done, instances: work.instances.length });
  shown();
  saved(work, rank && (work.done || image.ranked));
  image.ranked = work.done;
}

// Save soon; what changes meanwhile is saved afterwards.
function saved(work, rank = false) {
  Object.assign(work, { unsaved: true, rank: work.rank || rank });
  at("saved").textContent = "Saving…";
  clearTimeout(work.timer);
  work.timer = setTimeout(() => sent(work), rank ? 0 : 150);
}

function flushed() {
  if (state.work && state.work.unsaved) sent(state.work);
}

async function sent(work) {
  clearTimeout(work.timer);
  if (work.saving || work.lost) return;
  Object.assign(work, { saving: true, unsaved: false });
  const { instances, selection } = work;
  const mask = (of) => (of.mask ? { mask: of.mask } : { runs: runsOf(of.bits, work.width, work.height) });
  const body = {
    revision: work.revision, done: work.done, instances: instances.map((one) => ({ id: one.id ?? null, name: one.name, ...mask(one) })),
    draft: selection ? { instance: work.editing, ...mask(selection) } : null,
  };
  try {
    const answer = await fetched(`sheet?number=${work.number}`, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    work.revision = answer.revision;
    answer.instances.forEach((one, i) => Object.assign(instances[i], one));
    work.saving = false;
    if (answer.names.join("\n") !== state.names.join("\n")) {
      state.names = answer.names;
      named();
      shown();
    }
    if (work.rank) {
      work.rank = false;
      asked();
    }
    if (work.unsaved) return sent(work);
    at("saved").textContent = `Saved in ${state.file}`;
    at("saved").classList.remove("bad");
  } catch (error) {
    Object.assign(work, { saving: false, unsaved: true, lost: error.status === 409 });
    at("saved").textContent = error.status ? `Not saved: ${error.message}` : "Not saved: `uss annotate` does not answer. Is it still running?";
    at("saved").classList.add("bad");
    if (!work.lost) work.timer = setTimeout(() => sent(work), 3000);
  }
}

// -- the selection: { bits, base, sign, chain, place }. base: what was selected before the last region, which is added to or taken from it.

function picked(x, y, mode = state.mode) {
  const work = state.work;
  if (!work) return;
  state.point = [x, y];
  const choice = chosen(x, y, mode);
  if (!choice) return say(work.pool.at(x, y).chain.length ? HINTS[mode] : "The methods found nothing there. Paint it with the brush.");
  remembered();
  work.selection = choice;
  if (mode === "new") work.editing = null;
  changed();
  told();
}

// What a click at a pixel would select; null for nothing.
function chosen(x, y, mode) {
  const { pool, selection } = state.work, { chain, place } = pool.at(x, y);
  if (!chain.length) return null;
  const base = mode === "new" || !selection ? null : selection.bits, sign = mode === "subtract" ? -1 : 1;
  if (!base) return sign < 0 ? null : placed({ base, sign, chain, place });
  let first = place;
  if (sign > 0) while (first < chain.length - 1 && !pool.bits(chain[first]).some((bit, i) => bit && !base[i])) first++;
  return placed({ base, sign, chain, place: first });
}

function placed(selection) {
  const region = state.work.pool.bits(selection.chain[selection.place]);
  return { ...selection, mask: undefined, bits: combined(selection.base, region, selection.sign) };
}

// A larger (1) or smaller (-1) region: one that differs visibly in area, or the very next one.
function grown(step, fine = false) {
  const selection = state.work && state.work.selection;
  if (!selection || !selection.chain) return say("Click on a thing first; then its region can be made larger or smaller.");
  const { chain, place } = selection, area = state.work.pool.area, end = step > 0 ? chain.length - 1 : 0;
  if (place === end) return say(step > 0 ? "There is no larger region here." : "There is no smaller region here.");
  let next = place + step;
  while (!fine && next !== end && (step > 0 ? area[chain[next]] < STEP * area[chain[place]] : area[chain[next]] > area[chain[place]] / STEP)) next += step;
  grownTo(next);
}

function grownTo(place) {
  const selection = state.work.selection;
  remembered();
  state.work.selection = placed({ ...selection, place });
  changed();
  told();
}

function told() {
  const { selection, width, height } = state.work, share = areaOf(selection.bits) / (width * height);
  say(`${(100 * share).toFixed(share < 0.1 ? 1 : 0)} % of the image selected. Enter accepts it as ${at("class").value || "…"}.`);
}

function cleared() {
  const work = state.work;
  if (!work || (!work.selection && work.editing === null)) return;
  remembered();
  Object.assign(work, { selection: null, editing: null });
  changed();
  say("Selection dropped.");
}

function filled() {
  const work = state.work;
  if (!work || !work.selection) return say("Select something first.");
  remembered();
  work.selection = { bits: withoutHoles(work.selection.bits, work.width, work.height) };
  changed();
  told();
}

function painted(from, to) {
  const work = state.work, value = state.mode === "paint" ? 1 : 0;
  if (!state.drag || !state.drag.bits) {
    remembered();
    const bits = work.selection ? work.selection.bits.slice() : new Uint8Array(work.width * work.height);
    work.selection = { bits };
    state.drag = { ...state.drag, bits };
  }
  stroke(state.drag.bits, work.width, work.height, from, to, Number(at("radius").value), value);
  topDrawn();
}

// -- instances

function accepted() {
  const work = state.work, name = at("class").value.trim();
  if (!work || !work.selection || !areaOf(work.selection.bits)) return say("Nothing is selected. Click on a thing first.", true);
  if (!name) {
    at("class").focus();
    return say("Give it a name first.", true);
  }
  remembered();
  if (!state.names.includes(name)) state.names = [...state.names, name];
  const old = work.instances.find((one) => one.id === work.editing && work.editing !== null);
  const instance = { id: old ? old.id : undefined, name, bits: work.selection.bits, mask: work.selection.mask };
  work.instances = old ? work.instances.map((one) => (one === old ? instance : one)) : [...work.instances, instance];
  Object.assign(work, { selection: null, editing: null });
  named();
  changed(true);
  say(`${old ? "Changed" : "Accepted"}: ${name}. ${HINTS.new}`);
  moded("new");
}

function edited(instance) {
  const work = state.work;
  if (instance.id === undefined) return say("A moment: it is being saved.");
  remembered();
  Object.assign(work, { selection: { bits: instance.bits, mask: instance.mask }, editing: instance.id });
  at("class").value = instance.name;
  changed();
  say(`Editing ${instance.name}: change its region or its name, then Enter. Esc leaves it as it was.`);
}

function deleted(instance) {
  const work = state.work;
  remembered();
  work.instances = work.instances.filter((one) => one !== instance);
  if (work.editing !== null && work.editing === instance.id) Object.assign(work, { selection: null, editing: null });
  changed(true);
  say(`${instance.name} deleted. Undo brings it back.`);
}

function finished() {
  const work = state.work;
  if (!work) return;
  if (!work.done && work.selection) return say("There is a selection that is not accepted. Accept it with Enter, or drop it with Esc.", true);
  remembered();
  work.done = !work.done;
  changed(true);
  if (!work.done) return say("Not done any more.");
  const count = state.images.length;
  const next = Array.from({ length: count }, (_, i) => (work.number + 1 + i) % count).find((i) => !state.images[i].done);
  if (next === undefined) return say("All images are done.");
  opened(next);
}

function named() {
  at("names").replaceChildren(...state.names.map((name) => made("option", { value: name })));
  at("chips").replaceChildren(...state.names.slice(0, 12).map((name) => {
    const chip = made("button", { type: "button" }, swatch(name), made("span", { textContent: name }));
    chip.addEventListener("click", () => {
      at("class").value = name;
      if (state.work && state.work.selection) accepted();
    });
    return chip;
  }));
}

function swatch(name) {
  const dot = made("i", { className: "swatch" });
  dot.style.background = `rgb(${colourOf(name).join(" ")})`;
  return dot;
}

// -- drawing

function shown() {
  const work = state.work;
  if (!work) return;
  counted();
  labelsDrawn();
  topDrawn();
  const { selection, instances, editing } = work;
  const range = at("which");
  range.disabled = !selection || !selection.chain;
  range.max = range.disabled ? 0 : selection.chain.length - 1;
  range.value = range.disabled ? 0 : selection.place;
  range.setAttribute("aria-valuetext", range.disabled ? "no region" : `region ${selection.place + 1} of ${selection.chain.length}, from the smallest`);
  at("narrower").disabled = !selection || !selection.chain || selection.place === 0;
  at("wider").disabled = !selection || !selection.chain || selection.place === selection.chain.length - 1;
  at("accept").disabled = at("clear").disabled = at("fill").disabled = !selection;
  at("accept").textContent = editing === null ? "Accept" : "Change";
  at("undo").disabled = !work.undone.length;
  at("redo").disabled = !work.redone.length;
  at("done").textContent = work.done ? "Not done" : "Done, next image";
  at("done").setAttribute("aria-pressed", String(work.done));
  at("previous").disabled = work.number === 0;
  at("next").disabled = work.number === state.images.length - 1;
  at("none").hidden = instances.length > 0;
  at("instances").replaceChildren(...instances.map((instance) => {
    const edit = made("button", { type: "button", title: "Edit its region or its name" }, swatch(instance.name), made("span", { textContent: instance.name }));
    const remove = made("button", { type: "button", textContent: "×", title: "Delete" });
    edit.setAttribute("aria-pressed", String(editing !== null && instance.id === editing));
    remove.setAttribute("aria-label", `Delete ${instance.name}`);
    edit.addEventListener("click", () => edited(instance));
    remove.addEventListener("click", () => deleted(instance));
    return made("li", {}, edit, remove);
  }));
}

// Pixels of an image for one of the screen.
const thickness = () => Math.max(1, Math.round(state.work.width / Math.max(1, canvas.clientWidth)));

function drawnOn(layer, masks) {
  const { width, height } = state.work, brush = layer.getContext("2d");
  const image = new ImageData(width, height), words = new Uint32Array(image.data.buffer);
  for (const [bits, colour, alpha, line] of masks) drawMask(words, bits, width, height, word(colour, alpha), word(line, 0.95), thickness());
  brush.putImageData(image, 0, 0);
  return brush;
}

function labelsDrawn() {
  const work = state.work, there = work.instances.filter((one) => work.editing === null || one.id !== work.editing);
  const brush = drawnOn(layers.labels, there.map((one) => [one.bits, colourOf(one.name), 0.38, colourOf(one.name)]));
  const size = Math.max(10, 13 * thickness());
  Object.assign(brush, { font: `600 ${size}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle", lineWidth: size / 4, strokeStyle: "rgb(0 0 0 / .75)", fillStyle: "#fff" });
  for (const one of there) {
    one.middle ??= middleOf(one.bits, work.width);
    brush.strokeText(one.name, ...one.middle);
    brush.fillText(one.name, ...one.middle);
  }
}

// A pixel of the mask near its centre of gravity.
function middleOf(bits, width) {
  let x = 0, y = 0, area = 0;
  for (let i = 0; i < bits.length; i++) if (bits[i]) { x += i % width; y += Math.floor(i / width); area++; }
  [x, y] = [x / area, y / area];
  let best = [x, y], least = Infinity;
  for (let i = 0; i < bits.length; i += 3) {
    if (!bits[i]) continue;
    const distance = (i % width - x) ** 2 + (Math.floor(i / width) - y) ** 2;
    if (distance < least) [best, least] = [[i % width, Math.floor(i / width)], distance];
  }
  return best;
}

function topDrawn() {
  const work = state.work, masks = [];
  if (!work) return;
  if (state.hover && state.hover.bits) masks.push([state.hover.bits, state.hover.sign < 0 ? REMOVAL : WHITE, 0.28, WHITE]);
  if (work.selection) masks.push([work.selection.bits, SELECTION, 0.5, DARK]);
  if (state.hover && state.hover.sign < 0) masks.reverse();
  const brush = drawnOn(canvas, masks), thick = thickness();
  if (!state.point || !(document.activeElement === canvas || painting())) return;
  for (const [colour, line] of [["#000", 3 * thick], ["#fff", 1.4 * thick]]) {
    brush.beginPath();
    brush.arc(state.point[0] + 0.5, state.point[1] + 0.5, painting() ? Number(at("radius").value) : 6 * thick, 0, 2 * Math.PI);
    Object.assign(brush, { strokeStyle: colour, lineWidth: line });
    brush.stroke();
  }
}

function hovered(x, y) {
  const mode = modeOf(state.keys), atom = state.work.pool.at(x, y).atom, selection = state.work.selection;
  if (painting()) {
    state.point = [x, y];
    state.hover = null;
    return topDrawn();
  }
  if (state.hover && state.hover.atom === atom && state.hover.mode === mode && state.hover.selection === selection) return;
  const choice = chosen(x, y, mode);
  state.hover = { atom, mode, selection, sign: choice ? choice.sign : 1, bits: choice && state.work.pool.bits(choice.chain[choice.place]) };
  topDrawn();
}

// -- the ranking

async function asked() {
  const turn = (state.ranking = (state.ranking || 0) + 1);
  at("ranking").setAttribute("aria-busy", "true");
  try {
    const ranking = await fetched("ranking");
    if (turn !== state.ranking) return;
    ranked(ranking);
  } catch (error) {
    at("advice").textContent = error.message;
  }
  at("ranking").removeAttribute("aria-busy");
}

function ranked({ now, history, margin }) {
  at("advice").textContent = now.sentence;
  at("advice").classList.toggle("stop", now.stop);
  at("standings").replaceChildren(...(now.standings.length ? [tabled(now, margin)] : []));
  const known = history.filter((ranking) => ranking.risk !== null);
  at("shrink").replaceChildren(...(known.length > 1 && now.standings.length > 1 ? shrunk(known, margin) : []));
}

function drawing(width, height, label, ...shapes) {
  const node = (name, values, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  svg.append(...shapes.map((shape) => node(...shape)));
  return svg;
}

const signed = (value) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(3).replace(/^0/, "");

function tabled({ standings, images }) {
  const ends = standings.slice(1).flatMap(({ low, high }) => (low === null ? [] : [low, high]));
  const low = Math.max(-0.5, Math.min(-0.02, ...ends)), high = Math.min(0.3, Math.max(0.02, ...ends));
  const place = (value) => (4 + (92 * (Math.min(high, Math.max(low, value)) - low)) / (high - low)).toFixed(1);
  const rows = standings.map(({ entry, value, difference, low: from, high: to, state: standing }, i) => {
    const text = i === 0 ? "leads" : from === null ? signed(difference) : `${signed(difference)} (${signed(from)} to ${signed(to)})`;
    const shapes = [["line", { x1: place(0), x2: place(0), y1: 0, y2: 16, class: "zero" }]];
    if (i && from !== null) shapes.push(["line", { x1: place(from), x2: place(to), y1: 8, y2: 8, class: `span ${standing}` }]);
    shapes.push(["circle", { cx: place(difference), cy: 8, r: 3.4, class: standing }]);
    return made("tr", {}, made("th", { scope: "row", textContent: entry }), made("td", { textContent: value.toFixed(3).replace(/^0/, "") }),
      made("td", { textContent: text, title: "Difference from the leader, with its interval" }), made("td", {}, drawing(100, 16, text, ...shapes)));
  });
  const heads = ["Method", "Score", "From the leader", ""].map((textContent) => made("th", { textContent, scope: "col" }));
  const caption = made("caption", { textContent: `NMCovering on ${images} ${images === 1 ? "image" : "images"}: how well a method's regions cover yours` });
  return made("table", {}, caption, made("thead", {}, made("tr", {}, ...heads)), made("tbody", {}, ...rows));
}

function shrunk(history, margin) {
  const most = Math.min(0.5, Math.max(2 * margin, ...history.slice(1).map((ranking) => ranking.risk))), last = history.at(-1);
  const x = (images) => (34 + (256 * (images - history[0].images)) / Math.max(1, last.images - history[0].images)).toFixed(1);
  const y = (risk) => (10 + 66 * (1 - Math.max(0, Math.min(most, risk)) / most)).toFixed(1);
  const points = history.map((ranking) => `${x(ranking.images)},${y(ranking.risk)}`).join(" ");
  const label = `How much better than the leader another method may be: ${last.risk.toFixed(3)} after ${last.images} images`;
  const shapes = [
    ["line", { x1: 34, x2: 290, y1: y(margin), y2: y(margin), class: "margin" }],
    ["text", { x: 290, y: Number(y(margin)) - 3, "text-anchor": "end" }, `stop below ${margin}`],
    ["text", { x: 30, y: 14, "text-anchor": "end" }, most.toFixed(2).replace(/^0/, "")], ["text", { x: 30, y: 78, "text-anchor": "end" }, "0"],
    ["text", { x: 34, y: 92 }, String(history[0].images)], ["text", { x: 290, y: 92, "text-anchor": "end" }, `${last.images} images`],
    ["polyline", { points, class: "risk" }],
  ];
  return [made("p", { className: "caption", textContent: "What choosing the leader could still cost, at most" }), drawing(300, 96, label, ...shapes)];
}

// -- what a person does

function moded(mode) {
  state.mode = mode;
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-checked", String(button.dataset.mode === mode));
    button.tabIndex = button.dataset.mode === mode ? 0 : -1;
  }
  at("brush").hidden = !painting();
  at("grain").hidden = painting();
  layers.top.dataset.touch = painting() ? "none" : state.zoom > 1 ? "move" : "swipe";
  state.hover = null;
  topDrawn();
}

const modeOf = (event) => (event && event.shiftKey && !painting() ? "add" : event && event.altKey && !painting() ? "subtract" : state.mode);

function zoomed(zoom) {
  const share = [0.5, 0.5].map((half, i) => (state.point ? state.point[i] / [state.work.width, state.work.height][i] : half));
  state.zoom = zoom;
  at("layers").style.setProperty("--zoom", zoom);
  at("zoom").textContent = `Zoom ${zoom}×`;
  const frame = at("frame");
  frame.scrollTo(share[0] * frame.scrollWidth - frame.clientWidth / 2, share[1] * frame.scrollHeight - frame.clientHeight / 2);
  moded(state.mode);
}

function pixelOf(event) {
  const box = canvas.getBoundingClientRect();
  const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
  return [inside(((event.clientX - box.left) / box.width) * canvas.width, canvas.width), inside(((event.clientY - box.top) / box.height) * canvas.height, canvas.height)];
}

canvas.addEventListener("pointerdown", (event) => {
  if (!state.work || event.button !== 0 || !event.isPrimary) return;
  state.drag = { x: event.clientX, y: event.clientY, last: pixelOf(event) };
  if (!painting()) return;
  canvas.setPointerCapture(event.pointerId);
  state.point = pixelOf(event);
  painted(state.point, state.point);
});
canvas.addEventListener("pointermove", (event) => {
  if (!state.work) return;
  state.keys = event;
  const pixel = pixelOf(event);
  if (state.drag && state.drag.bits) {
    state.point = pixel;
    painted(state.drag.last, pixel);
    state.drag.last = pixel;
  } else if (event.pointerType !== "touch") {
    hovered(...pixel);
  }
});
canvas.addEventListener("pointerup", (event) => {
  const drag = state.drag;
  state.drag = null;
  if (!drag || !state.work) return;
  if (drag.bits) {
    changed();
    return;
  }
  const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
  if (event.pointerType === "touch" && Math.abs(dx) > 36 && Math.abs(dx) > 2 * Math.abs(dy)) return grown(dx > 0 ? 1 : -1);
  if (Math.hypot(dx, dy) < 12) picked(...pixelOf(event), modeOf(event));
});
canvas.addEventListener("pointercancel", () => {
  if (state.drag && state.drag.bits) changed();
  state.drag = null;
});
canvas.addEventListener("pointerleave", () => {
  state.hover = null;
  topDrawn();
});
canvas.addEventListener("dblclick", (event) => {
  const [x, y] = pixelOf(event), work = state.work, there = work && !painting() && [...work.instances].reverse().find((one) => one.bits[y * work.width + x]);
  if (there) edited(there);
});
canvas.addEventListener("wheel", (event) => {
  if (!state.work || !state.work.selection || !state.work.selection.chain || event.ctrlKey || !(event.deltaY || event.deltaX)) return;
  event.preventDefault();
  const delta = (event.deltaY || event.deltaX) * (event.deltaMode ? 30 : 1); // Shift turns the wheel sideways in some browsers
  state.wheel = (Math.sign(state.wheel || 0) === Math.sign(delta) ? state.wheel : 0) + delta;
  if (Math.abs(state.wheel) < 40) return; // touchpads send many small steps
  grown(state.wheel < 0 ? 1 : -1, event.shiftKey);
  state.wheel = 0;
}, { passive: false });
for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, topDrawn);

function moved(event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key], work = state.work;
  const length = Math.max(1, Math.round((event.shiftKey ? 0.08 : 0.015) * Math.max(work.width, work.height)));
  state.point = [work.width, work.height].map((side, i) => Math.max(0, Math.min(side - 1, state.point[i] + step[i] * length)));
  state.keys = null;
  hovered(...state.point);
  topDrawn();
  say(`Point ${state.point.join(", ")}. Space clicks there.`);
}

function spaced() {
  if (!painting()) return picked(...state.point);
  state.drag = {};
  painted(state.point, state.point);
  state.drag = null;
  changed();
}

function resized(step) {
  if (step) at("radius").value = Math.max(1, Math.round(Number(at("radius").value) * (step > 0 ? 1.25 : 0.8) + Math.sign(step) * 0.5));
  at("radius-text").textContent = at("radius").value;
  topDrawn();
}

function nextEdited() {
  const { instances, editing } = state.work;
  if (!instances.length) return say("There is no instance in this image yet.");
  edited(instances[(instances.findIndex((one) => one.id === editing) + 1) % instances.length]);
}

const KEYS = {
  n: () => moded("new"), a: () => moded("add"), s: () => moded("subtract"), b: () => moded("paint"), e: () => moded("erase"),
  "+": () => grown(1), "=": () => grown(1), "-": () => grown(-1), "−": () => grown(-1), ">": () => grown(1, true), "<": () => grown(-1, true), "[": () => resized(-1), "]": () => resized(1),
  Enter: accepted, Escape: cleared, f: filled, c: () => at("class").select(), i: nextEdited, d: finished, z: () => zoomed({ 1: 2, 2: 4, 4: 1 }[state.zoom]),
  ".": () => opened(state.work.number + 1), ",": () => opened(state.work.number - 1), PageDown: () => opened(state.work.number + 1), PageUp: () => opened(state.work.number - 1),
  Delete: () => removed(), Backspace: () => removed(),
};

function removed() {
  const { instances, editing } = state.work, instance = instances.find((one) => editing !== null && one.id === editing);
  if (instance) deleted(instance);
}

document.addEventListener("keydown", (event) => {
  if (at("panel").open) return;
  const target = event.target, typing = target === at("class"), key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && (key === "z" || key === "y") && !typing) {
    event.preventDefault();
    return event.shiftKey || key === "y" ? stepped("redone", "undone") : stepped("undone", "redone");
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing) {
    if (key === "Escape") canvas.focus();
    return;
  }
  if (key === "?") return opensHelp();
  if (!state.work) return;
  if (target.getAttribute("role") === "radio" && key.startsWith("Arrow")) {
    const step = key === "ArrowRight" || key === "ArrowDown" ? 1 : MODES.length - 1;
    moded(MODES[(MODES.indexOf(target.dataset.mode) + step) % MODES.length]);
    document.querySelector(`[data-mode=${state.mode}]`).focus();
  } else if (target === canvas && key.startsWith("Arrow")) moved(event);
  else if (target === canvas && key === " ") spaced();
  else if (KEYS[key] && !(key === "Enter" && target.closest("button"))) KEYS[key]();
  else return;
  event.preventDefault();
});

function opensHelp() {
  at("panel").showModal();
}

document.querySelectorAll("[data-mode]").forEach((button) => button.addEventListener("click", () => {
  moded(button.dataset.mode);
  say(HINTS[state.mode]);
}));
const BUTTONS = {
  narrower: () => grown(-1), wider: () => grown(1), undo: () => stepped("undone", "redone"), redo: () => stepped("redone", "undone"), fill: filled, clear: cleared,
  zoom: KEYS.z, done: finished, next: KEYS["."], previous: KEYS[","], help: opensHelp,
};
for (const [id, act] of Object.entries(BUTTONS)) at(id).addEventListener("click", () => (state.work || id === "help") && act());
at("radius").addEventListener("input", () => resized(0));
at("which").addEventListener("input", () => grownTo(Number(at("which").value)));
at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  accepted();
  canvas.focus({ preventScroll: true });
});
addEventListener("resize", () => state.work && shown());
addEventListener("beforeunload", (event) => {
  flushed();
  if ([...state.works.values()].length && state.work && (state.work.unsaved || state.work.saving)) event.preventDefault();
});
resized(0);
started().catch((error) => say(error.message, true));
