"use strict";

// Names of pictures are put in as text, never as markup.

const at = (id) => document.getElementById(id);
const canvas = at("canvas"), brush = canvas.getContext("2d", { willReadFrequently: true });
const COLOUR = [255, 196, 0];
const state = { number: null, image: null, point: null, masks: [], drawn: [], shown: 0, turn: 0 };

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
    Object.assign(state, { number, image, name, point: [Math.floor(size.width / 2), Math.floor(size.height / 2)], masks: [], drawn: [], shown: 0 });
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

async function asked(x, y) {
  if (state.number === null) return;
  const turn = ++state.turn, number = state.number;
  state.point = [x, y];
  painted();
  try {
    const started = performance.now();
    const { masks } = await fetched(`click?number=${number}&x=${x}&y=${y}`);
    if (turn !== state.turn) return;
    state.masks = masks;
    state.drawn = masks.map((mask) => bitmap(mask.runs));
    state.shown = masks.reduce((best, mask, i) => (mask.quality > masks[best].quality ? i : best), 0);
    answered();
    const milliseconds = Math.round(performance.now() - started);
    canvas.dataset.milliseconds = milliseconds;
    say(masks.length ? `${masks.length} ${masks.length === 1 ? "mask" : "masks"} at ${x}, ${y} in ${milliseconds} ms.` : `Nothing found at ${x}, ${y}.`);
  } catch (error) {
    if (turn === state.turn) say(error.message, true);
  }
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
  const count = state.masks.length, grain = at("grain");
  grain.max = Math.max(0, count - 1);
  grain.disabled = count < 2;
  at("save").disabled = !count;
  at("masks").replaceChildren(...state.masks.map((mask, i) => {
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
  shown(state.shown);
}

function shown(index) {
  state.shown = Math.max(0, Math.min(index, state.masks.length - 1));
  const mask = state.masks[state.shown], grain = at("grain");
  grain.value = state.shown;
  at("which").textContent = mask ? `${state.shown + 1} of ${state.masks.length}` : "";
  grain.setAttribute("aria-valuetext", mask ? `mask ${state.shown + 1} of ${state.masks.length}, ${percent(mask.share)} of the picture, quality ${mask.quality.toFixed(2)}` : "no mask");
  at("masks").querySelectorAll("button").forEach((button, i) => button.setAttribute("aria-pressed", String(i === state.shown)));
  painted();
}

function painted() {
  const { width, height } = canvas;
  if (!state.image) return;
  brush.drawImage(state.image, 0, 0, width, height);
  const bits = state.drawn[state.shown];
  if (bits) {
    const pixels = brush.getImageData(0, 0, width, height), data = pixels.data;
    for (let i = 0, j = 0; i < bits.length; i++, j += 4) {
      const strength = bits[i] ? 0.5 : 0;
      for (let c = 0; c < 3; c++) {
        data[j + c] = bits[i] ? (1 - strength) * data[j + c] + strength * COLOUR[c] : 0.55 * data[j + c];
      }
    }
    if (at("outlines").checked) state.drawn.forEach((other, i) => i !== state.shown && outlined(data, other, [255, 255, 255]));
    outlined(data, bits, [20, 20, 20]);
    brush.putImageData(pixels, 0, 0);
  }
  if (state.point) ring(...state.point);
}

function outlined(data, bits, colour) {
  const { width, height } = canvas;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if ((x + 1 < width && bits[i] !== bits[i + 1]) || (y + 1 < height && bits[i] !== bits[i + width])) data.set(colour, 4 * i);
    }
  }
}

function ring(x, y) {
  const radius = Math.max(4, Math.max(canvas.width, canvas.height) / 110);
  for (const [scale, colour] of [[1, "#ffffff"], [0.6, "#000000"]]) {
    brush.beginPath();
    brush.arc(x + 0.5, y + 0.5, radius * scale, 0, 2 * Math.PI);
    brush.fillStyle = colour;
    brush.fill();
  }
}

function saved() {
  const bits = state.drawn[state.shown], copy = document.createElement("canvas");
  copy.width = canvas.width;
  copy.height = canvas.height;
  const pixels = new ImageData(copy.width, copy.height);
  bits.forEach((bit, i) => pixels.data.set([255 * bit, 255 * bit, 255 * bit, 255], 4 * i));
  copy.getContext("2d").putImageData(pixels, 0, 0);
  copy.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${String(state.name).replace(/\.[^.]*$/, "")}-mask-${state.point.join("-")}.png`;
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

// -- what a person does

function placed(event) {
  const box = canvas.getBoundingClientRect();
  const inside = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
  return [inside((event.clientX - box.left) / box.width * canvas.width, canvas.width), inside((event.clientY - box.top) / box.height * canvas.height, canvas.height)];
}

canvas.addEventListener("click", (event) => asked(...placed(event)));
canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  if (state.number === null) return;
  if (moves[event.key]) {
    const step = Math.max(1, Math.round((event.shiftKey ? 0.08 : 0.02) * Math.max(canvas.width, canvas.height)));
    const [dx, dy] = moves[event.key];
    state.point = [Math.max(0, Math.min(canvas.width - 1, state.point[0] + dx * step)), Math.max(0, Math.min(canvas.height - 1, state.point[1] + dy * step))];
    painted();
    say(`Point ${state.point.join(", ")}. Enter asks.`);
  } else if (event.key === "Enter" || event.key === " ") {
    asked(...state.point);
  } else if (event.key === "+" || event.key === "=") {
    shown(state.shown + 1);
  } else if (event.key === "-") {
    shown(state.shown - 1);
  } else {
    return;
  }
  event.preventDefault();
});
at("grain").addEventListener("input", () => shown(Number(at("grain").value)));
at("outlines").addEventListener("change", painted);
at("save").addEventListener("click", saved);
at("upload").addEventListener("change", () => uploaded(at("upload").files[0]).finally(() => { at("upload").value = ""; }));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => { event.preventDefault(); uploaded(event.dataTransfer.files[0]); });
listed().then((pictures) => pictures.length && chosen(pictures[0].number, pictures[0].name)).catch((error) => say(error.message, true));
