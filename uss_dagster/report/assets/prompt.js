"use strict";

// Names of pictures are put in as text, never as markup.

const at = (id) => document.getElementById(id);
const canvas = at("canvas"), brush = canvas.getContext("2d", { willReadFrequently: true });
const COLOURS = [[255, 196, 0], [0, 160, 255], [255, 90, 160], [90, 210, 80], [190, 120, 255], [255, 130, 40], [0, 205, 190], [200, 200, 200]];
const LONG_PRESS = 500, DRAG = 8; // milliseconds, and CSS pixels from which a press is a drag
const state = { number: null, image: null, mode: "add", cursor: null, corner: null, press: null, objects: [], current: 0, history: [], turn: 0 };

// An object: the prompt (points, labels 1 or 0, box), its masks, largest first, and which of them is shown.
function fresh(colour) {
  return { points: [], labels: [], box: null, masks: [], drawn: [], shown: 0, colour };
}

function current() {
  return state.objects[state.current];
}

async function fetched(path, options) {
  const answer = await fetch(path, options);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

function say(text, bad = false) {
  at("status").textContent = text;
  at("status").classList.toggle("bad", bad);
}

function percent(share) {
  return (100 * share).toFixed(share < 0.1 ? 1 : 0) + " %";
}

// -- pictures

async function listed() {
  const { pictures } = await fetched("pictures");
  at("pictures").replaceChildren(...pictures.map((picture) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const thumb = document.createElement("img"), name = document.createElement("span");
    thumb.src = `picture?number=${picture.number}&side=240`;
    thumb.alt = "";
    thumb.loading = "lazy";
    name.textContent = picture.name;
    button.title = picture.name;
    button.type = "button";
    button.dataset.number = picture.number;
    button.append(thumb, name);
    button.addEventListener("click", () => chosen(picture.number, picture.name));
    item.append(button);
    return item;
  }));
  marked();
  return pictures;
}

function marked() {
  for (const button of at("pictures").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(Number(button.dataset.number) === state.number));
  }
}

async function chosen(number, name) {
  const turn = ++state.turn;
  say("Looking at the picture…");
  try {
    const image = new Image();
    image.src = `picture?number=${number}`;
    const [size] = await Promise.all([fetched(`look?number=${number}`), image.decode()]);
    if (turn !== state.turn) return;
    Object.assign(state, { number, image, name, cursor: null, corner: null, press: null, objects: [fresh(0)], current: 0, history: [] });
    canvas.width = size.width;
    canvas.height = size.height;
    canvas.style.setProperty("--ratio", size.width / size.height);
    canvas.setAttribute("aria-label", `${name}, ${size.width} by ${size.height} pixels`);
    at("empty").hidden = true;
    marked();
    answered();
    say("Click on something.");
  } catch (error) {
    if (turn === state.turn) say(error.message, true);
  }
}

async function uploaded(file) {
  if (!file) return;
  say(`Adding ${file.name}…`);
  try {
    const { number } = await fetched("upload", {
      method: "POST", body: file, headers: { "Content-Type": file.type || "image/unknown", "X-Name": encodeURIComponent(file.name) },
    });
    await listed();
    await chosen(number, file.name);
  } catch (error) {
    say(error.message, true);
  }
}

// -- masks

async function asked(x, y, label = state.mode === "remove" ? 0 : 1) {
  if (state.number === null) return;
  if (!label && !current().masks.length) return say("Add a point of the object, or a box, before you remove something.");
  await changed((object) => { object.points.push([x, y]); object.labels.push(label); }, `at ${x}, ${y} `);
}

async function boxed(x0, y0, x1, y1) {
  if (state.number === null) return;
  const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  await changed((object) => Object.assign(object, { box, masks: [], drawn: [], shown: 0 }), "in the box ");
}

// Change the prompt of the current object and ask for its masks; the mask on the screen is the one to refine.
async function changed(change, where) {
  remembered();
  const turn = ++state.turn, number = state.number, object = current();
  change(object);
  painted();
  try {
    const started = performance.now(), seen = object.masks[object.shown];
    const question = { number, points: object.points, labels: object.labels, box: object.box, mask: seen ? seen.runs : null };
    const { masks, best } = await fetched("prompt", { method: "POST", body: JSON.stringify(question), headers: { "Content-Type": "application/json" } });
    if (turn !== state.turn) return;
    Object.assign(object, { masks, drawn: masks.map((mask) => bitmap(mask.runs)), shown: best });
    answered();
    const milliseconds = Math.round(performance.now() - started);
    canvas.dataset.milliseconds = milliseconds;
    say(masks.length ? `${masks.length} ${masks.length === 1 ? "mask" : "masks"} ${where}in ${milliseconds} ms.` : `Nothing found ${where.trim()}.`);
  } catch (error) {
    if (turn !== state.turn) return;
    undone();
    say(error.message, true);
  }
}

function remembered() {
  const copies = state.objects.map((object) => ({ ...object, points: [...object.points], labels: [...object.labels] }));
  state.history.push({ objects: copies, current: state.current });
}

function undone() {
  if (!state.history.length) return;
  state.turn++;
  Object.assign(state, state.history.pop());
  answered();
  say("Undone.");
}

function next() {
  if (state.number === null || !current().masks.length) return;
  remembered();
  const used = state.objects.map((object) => object.colour);
  let colour = 0;
  while (used.includes(colour)) colour++;
  state.objects.push(fresh(colour));
  state.current = state.objects.length - 1;
  answered();
  say("Click on the next object.");
}

function removed(index) {
  if (state.number === null || (state.objects.length === 1 && !current().points.length && !current().box)) return;
  remembered();
  state.turn++;
  state.objects.splice(index, 1);
  if (!state.objects.length) state.objects.push(fresh(0));
  state.current = Math.min(state.current > index ? state.current - 1 : state.current, state.objects.length - 1);
  answered();
  say("Object removed.");
}

// The runs of a mask, down the columns, as one byte a pixel along the rows.
function bitmap(runs) {
  const { width, height } = canvas, bits = new Uint8Array(width * height);
  let place = 0;
  runs.forEach((length, i) => {
    if (i % 2) for (let k = place; k < place + length; k++) bits[(k % height) * width + Math.floor(k / height)] = 1;
    place += length;
  });
  return bits;
}

function answered() {
  const object = current(), count = object.masks.length, grain = at("grain");
  grain.max = Math.max(0, count - 1);
  grain.disabled = count < 2;
  at("save").disabled = at("next").disabled = !count;
  at("undo").disabled = !state.history.length;
  at("masks").replaceChildren(...object.masks.map((mask, i) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const size = document.createElement("span"), quality = document.createElement("span"), bar = document.createElement("span"), fill = document.createElement("i");
    size.textContent = `${percent(mask.share)} of the picture`;
    quality.textContent = `quality ${mask.quality.toFixed(2)}`;
    bar.className = "bar";
    fill.style.width = `${100 * mask.quality}%`;
    bar.append(fill);
    button.type = "button";
    button.append(size, quality, bar);
    button.addEventListener("click", () => shown(i));
    item.append(button);
    return item;
  }));
  shown(object.shown);
}

function listedObjects() {
  at("objects").replaceChildren(...state.objects.map((object, i) => {
    const item = document.createElement("li"), button = document.createElement("button"), remove = document.createElement("button");
    const swatch = document.createElement("i"), facts = document.createElement("small");
    const mask = object.masks[object.shown], points = object.points.length;
    swatch.style.background = `rgb(${COLOURS[object.colour % COLOURS.length]})`;
    const said = [points ? `${points} ${points === 1 ? "point" : "points"}` : "", object.box ? "box" : "", mask ? percent(mask.share) : "no mask yet"];
    facts.textContent = said.filter(Boolean).join(", ");
    button.type = remove.type = "button";
    button.append(swatch, `Object ${i + 1} `, facts);
    button.setAttribute("aria-pressed", String(i === state.current));
    button.addEventListener("click", () => { state.current = i; answered(); });
    remove.textContent = "×";
    remove.title = `Remove object ${i + 1}`;
    remove.setAttribute("aria-label", remove.title);
    remove.addEventListener("click", () => removed(i));
    item.append(button, remove);
    return item;
  }));
}

function shown(index) {
  const object = current(), grain = at("grain");
  object.shown = Math.max(0, Math.min(index, object.masks.length - 1));
  const mask = object.masks[object.shown];
  grain.value = object.shown;
  at("which").textContent = mask ? `${object.shown + 1} of ${object.masks.length}` : "";
  grain.setAttribute("aria-valuetext", mask ? `mask ${object.shown + 1} of ${object.masks.length}, ${percent(mask.share)} of the picture, quality ${mask.quality.toFixed(2)}` : "no mask");
  at("masks").querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === object.shown)));
  listedObjects();
  painted();
}

function painted() {
  const { width, height } = canvas;
  if (!state.image) return;
  brush.drawImage(state.image, 0, 0, width, height);
  const front = current(), layers = [...state.objects.filter((object) => object !== front), front].filter((object) => object.drawn[object.shown]);
  if (layers.length) {
    const pixels = brush.getImageData(0, 0, width, height), data = pixels.data, owner = new Uint8Array(width * height);
    layers.forEach((object, n) => object.drawn[object.shown].forEach((bit, i) => { if (bit) owner[i] = n + 1; }));
    for (let i = 0, j = 0; i < owner.length; i++, j += 4) {
      const colour = owner[i] && COLOURS[layers[owner[i] - 1].colour % COLOURS.length];
      for (let c = 0; c < 3; c++) data[j + c] = colour ? 0.5 * data[j + c] + 0.5 * colour[c] : 0.55 * data[j + c];
    }
    if (at("outlines").checked) front.drawn.forEach((other, i) => i !== front.shown && outlined(data, other, [255, 255, 255]));
    for (const object of layers) outlined(data, object.drawn[object.shown], object === front ? [20, 20, 20] : [90, 90, 90]);
    brush.putImageData(pixels, 0, 0);
  }
  const pixel = width / (canvas.getBoundingClientRect().width || width); // the canvas's pixels to one of CSS
  if (front.box) rectangle(front.box, pixel);
  if (state.press && state.press.dragged) rectangle([...state.press.from, ...state.press.to], pixel);
  front.points.forEach((point, i) => mark(point, front.labels[i], pixel));
  if (state.corner) mark(state.corner, 1, pixel);
  if (state.cursor) cross(state.cursor, pixel);
}

function outlined(data, bits, colour) {
  const { width, height } = canvas;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if ((x + 1 < width && bits[i] !== bits[i + 1]) || (y + 1 < height && bits[i] !== bits[i + width])) data.set(colour, 4 * i);
    }
  }
}

function mark([x, y], label, pixel) {
  const radius = Math.max(4, 8 * pixel);
  for (const [scale, colour] of [[1, "#ffffff"], [0.8, label ? "#0b6e63" : "#b3261e"]]) {
    brush.beginPath();
    brush.arc(x + 0.5, y + 0.5, radius * scale, 0, 2 * Math.PI);
    brush.fillStyle = colour;
    brush.fill();
  }
  brush.fillStyle = "#ffffff";
  const long = radius, thick = radius / 4;
  brush.fillRect(x + 0.5 - long / 2, y + 0.5 - thick / 2, long, thick);
  if (label) brush.fillRect(x + 0.5 - thick / 2, y + 0.5 - long / 2, thick, long);
}

function cross([x, y], pixel) {
  for (const [thick, colour] of [[3, "#000000"], [1, "#ffffff"]]) {
    brush.fillStyle = colour;
    brush.fillRect(x - 14 * pixel, y - thick * pixel / 2, 28 * pixel, thick * pixel);
    brush.fillRect(x - thick * pixel / 2, y - 14 * pixel, thick * pixel, 28 * pixel);
  }
}

function rectangle([x0, y0, x1, y1], pixel) {
  for (const [thick, colour] of [[4, "#000000"], [2, "#ffffff"]]) {
    brush.lineWidth = thick * pixel;
    brush.strokeStyle = colour;
    brush.strokeRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0) + 1, Math.abs(y1 - y0) + 1);
  }
}

function saved() {
  const bits = current().drawn[current().shown], copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  const pixels = new ImageData(copy.width, copy.height);
  bits.forEach((bit, i) => pixels.data.set([255 * bit, 255 * bit, 255 * bit, 255], 4 * i));
  copy.getContext("2d").putImageData(pixels, 0, 0);
  copy.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${String(state.name).replace(/\.[^.]*$/, "")}-object-${state.current + 1}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

// -- what a person does

function mode(name) {
  state.mode = name;
  state.corner = null;
  canvas.classList.toggle("boxing", name === "box"); // a finger then draws, and does not scroll
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", String(button.dataset.mode === name));
  painted();
}

function placed(event) {
  const box = canvas.getBoundingClientRect();
  const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
  return [inside((event.clientX - box.left) / box.width * canvas.width, canvas.width), inside((event.clientY - box.top) / box.height * canvas.height, canvas.height)];
}

canvas.addEventListener("pointerdown", (event) => {
  if (state.number === null || event.button || !event.isPrimary) return;
  const from = placed(event), press = { from, to: from, start: [event.clientX, event.clientY], touch: event.pointerType === "touch", dragged: false, done: false };
  state.press = press;
  state.cursor = null;
  if (!press.touch || state.mode === "box") canvas.setPointerCapture(event.pointerId);
  if (press.touch) press.timer = setTimeout(() => { press.done = true; asked(...from, 0); }, LONG_PRESS);
});
canvas.addEventListener("pointermove", (event) => {
  const press = state.press;
  if (!press || !event.isPrimary || Math.hypot(event.clientX - press.start[0], event.clientY - press.start[1]) < DRAG && !press.dragged) return;
  clearTimeout(press.timer);
  if (press.touch && state.mode !== "box") press.done = true; // a finger that moves scrolls the page
  else Object.assign(press, { dragged: true, to: placed(event) });
  painted();
});
canvas.addEventListener("pointerup", (event) => {
  const press = state.press;
  if (!press || !event.isPrimary) return;
  clearTimeout(press.timer);
  state.press = null;
  if (press.done) return;
  if (press.dragged) boxed(...press.from, ...press.to);
  else if (state.mode === "box") say("Drag from one corner of the object to the opposite one.");
  else asked(...press.from, event.shiftKey ? 0 : undefined);
});
canvas.addEventListener("pointercancel", () => {
  if (state.press) clearTimeout(state.press.timer);
  state.press = null;
  painted();
});
canvas.addEventListener("contextmenu", (event) => {
  event.preventDefault();
  if (event.pointerType !== "touch" && !(state.press && state.press.touch)) asked(...placed(event), 0);
});
canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }, modes = { a: "add", r: "remove", b: "box" };
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (state.number === null || ((event.ctrlKey || event.metaKey) && key !== "z") || event.altKey) return;
  const place = state.cursor || current().points.at(-1) || [Math.floor(canvas.width / 2), Math.floor(canvas.height / 2)];
  if (moves[key]) {
    const step = Math.max(1, Math.round((event.shiftKey ? 0.08 : 0.02) * Math.max(canvas.width, canvas.height)));
    const [dx, dy] = moves[key];
    state.cursor = [Math.max(0, Math.min(canvas.width - 1, place[0] + dx * step)), Math.max(0, Math.min(canvas.height - 1, place[1] + dy * step))];
    painted();
    say(`Point ${state.cursor.join(", ")}. Enter ${state.mode === "box" ? "sets a corner of the box" : state.mode === "remove" ? "removes what is there" : "adds it"}.`);
  } else if (key === "Enter" || key === " ") {
    if (state.mode !== "box") asked(...place, event.shiftKey ? 0 : undefined);
    else if (state.corner) { const corner = state.corner; state.corner = null; boxed(...corner, ...place); }
    else { state.corner = place; painted(); say("One corner is set. Move to the opposite one, and press Enter."); }
  } else if (key === "+" || key === "=") {
    shown(current().shown + 1);
  } else if (key === "-") {
    shown(current().shown - 1);
  } else if (modes[key]) {
    mode(modes[key]);
  } else if (key === "n") {
    next();
  } else if (key === "z") {
    undone();
  } else if (key === "Delete" || key === "Backspace") {
    removed(state.current);
  } else {
    return;
  }
  event.preventDefault();
});
for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => mode(button.dataset.mode));
at("undo").addEventListener("click", undone);
at("next").addEventListener("click", next);
at("grain").addEventListener("input", () => shown(Number(at("grain").value)));
at("outlines").addEventListener("change", painted);
at("save").addEventListener("click", saved);
at("upload").addEventListener("change", () => uploaded(at("upload").files[0]).finally(() => { at("upload").value = ""; }));
addEventListener("resize", painted);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); uploaded(event.dataTransfer.files[0]); });
listed().then((pictures) => pictures.length && chosen(pictures[0].number, pictures[0].name)).catch((error) => say(error.message, true));
