"use strict";
(() => {
  // ---- families of regions, as report/_explorer_code.py writes them ------------------------------------------------

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  function numbers(text) {
    const out = [];
    let value = 0, factor = 1;
    for (const byte of bytes(text)) {
      value += (byte & 127) * factor;
      if (byte & 128) { factor *= 128; continue; }
      out.push(value);
      value = 0; factor = 1;
    }
    return out;
  }

  function floats(coded, k) { // null: none has one; a number: all have this one
    if (coded === null) return new Float32Array(k).fill(NaN);
    if (typeof coded === "number") return new Float32Array(k).fill(coded);
    return new Float32Array(bytes(coded).buffer);
  }

  function decodeMap(text, height, width) {
    const map = new Int32Array(height * width);
    const codes = numbers(text);
    let at = 0;
    for (let i = 0; i < codes.length;) {
      for (const end = at + codes[i]; at < end; at++) map[at] = map[at - width];
      i++;
      const kind = codes[i] % 3, end = at + (codes[i] - kind) / 3 + 1;
      i++;
      const value = kind === 0 ? map[at - 1] : kind === 1 ? map[at - width + 1] : codes[i++];
      map.fill(value, at, end);
      at = end;
    }
    for (; at < map.length; at++) map[at] = map[at - width];
    return map;
  }

  class Family {
    constructor(data, height, width) {
      Object.assign(this, { id: data.id, title: data.title, k: data.k, grid: data.grid, height, width, scores: data.scores || [] });
      this.map = decodeMap(data.map, height, width);
      const up = data.parent ? numbers(data.parent).map((p) => p - 1) : null;
      this.nest = numbers(data.nest).map((p) => p - 1);
      this.nesting = data.nesting;
      this.appears = numbers(data.appears);
      this.area = numbers(data.area);
      this.level = floats(data.level, data.k);
      this.score = floats(data.score, data.k);
      this.label = data.label ? numbers(data.label).map((l) => l - 1) : null;
      this.names = data.names;
      this.source = data.source ? numbers(data.source) : null;
      this.sources = data.sources;
      this.colour = numbers(data.colour);
      this.truth = data.truth && { family: numbers(data.truth.family), region: numbers(data.truth.region), iou: numbers(data.truth.iou) };
      this._decodeAtoms(numbers(data.atoms), up);
      this._measure();
      this.steps = Math.max(1, ...this.appears);
    }

    // Per atom, the regions that hold it: all of them, and those that ever show, from the first to the last to appear.
    _decodeAtoms(codes, up) {
      this.holders = [];
      for (let i = 0; i < codes.length;) {
        const held = new Set();
        let region = 0;
        for (let left = codes[i++]; left > 0; left--) {
          region += codes[i++];
          for (let r = region; r >= 0 && !held.has(r); r = up ? up[r] : -1) held.add(r);
        }
        this.holders.push([...held]);
      }
      const { appears } = this;
      this.queues = this.holders.map((held) => held.filter((r) => appears[r]).sort((a, b) => appears[a] - appears[b] || a - b));
      this.atomsOf = Array.from({ length: this.k }, () => []);
      this.holders.forEach((held, atom) => held.forEach((r) => this.atomsOf[r].push(atom)));
    }

    // Runs of equal pixels, edges between atoms, areas as drawn, and parts from left to right.
    _measure() {
      const { map, width, height, k } = this;
      const n = this.holders.length;
      this.atomArea = new Float64Array(n);
      const sumX = new Float64Array(n), runs = [], across = [], down = [];
      for (let y = 0, i = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          const atom = map[i];
          this.atomArea[atom]++;
          sumX[atom] += x;
          if (!x || map[i - 1] !== atom) runs.push(i);
          if (x && map[i - 1] !== atom) across.push(i);
          if (y && map[i - width] !== atom) down.push(i);
        }
      }
      [this.runs, this.across, this.down] = [runs, across, down].map((list) => Int32Array.from(list));
      this.drawn = new Float64Array(k);
      const middle = new Float64Array(k);
      for (let r = 0; r < k; r++) {
        for (const atom of this.atomsOf[r]) { this.drawn[r] += this.atomArea[atom]; middle[r] += sumX[atom]; }
        middle[r] /= this.drawn[r] || 1;
      }
      this.parts = Array.from({ length: k }, () => []);
      this.tops = [];
      const order = [...this.area.keys()].sort((a, b) => middle[a] - middle[b] || a - b);
      for (const r of order) (this.nest[r] >= 0 ? this.parts[this.nest[r]] : this.tops).push(r);
      this.whole = this.area.map((a, r) => this.drawn[r] === map.length && this.nest[r] < 0);
      this.byArea = [...this.area.keys()].sort((a, b) => this.area[b] - this.area[a] || a - b);
    }

    // The region seen at each atom when about n are in view, -1 for none.
    cut(n) {
      const { queues, appears } = this;
      const holder = new Int32Array(queues.length);
      for (let atom = 0; atom < holder.length; atom++) {
        const queue = queues[atom];
        let low = 0, high = queue.length;
        while (low < high) {
          const middle = (low + high) >> 1;
          if (appears[queue[middle]] <= n) low = middle + 1; else high = middle;
        }
        holder[atom] = low ? queue[low - 1] : -1;
      }
      return holder;
    }

    inside(region) {
      const mask = new Uint8Array(this.holders.length);
      for (const atom of this.atomsOf[region]) mask[atom] = 1;
      return mask;
    }

    // The region of another family with the highest IoU as drawn (the first of equals), not counting regions that are everything.
    match(region, other) {
      const mask = this.inside(region), joint = new Float64Array(other.holders.length);
      for (let i = 0; i < this.map.length; i++) if (mask[this.map[i]]) joint[other.map[i]]++;
      let best = -1, iou = 0;
      for (let r = 0; r < other.k; r++) {
        if (other.whole[r] && !this.whole[region]) continue;
        let shared = 0;
        for (const atom of other.atomsOf[r]) shared += joint[atom];
        const value = shared / Math.max(1, this.drawn[region] + other.drawn[r] - shared);
        if (value > iou) { best = r; iou = value; }
      }
      return { region: best, iou };
    }

    chain(region) {
      const above = [];
      for (let r = this.nest[region]; r >= 0; r = this.nest[r]) above.unshift(r);
      return above;
    }

    name(region) {
      const word = this.label && this.label[region] >= 0 ? this.names[this.label[region]] : "";
      if (word) return word;
      return this.whole[region] ? "Whole picture" : "Region " + (region + 1);
    }

    // Icicle: left and right end (0 to 1) of each region that ever shows, and the steps between which it is in view.
    icicle() {
      if (this._icicle) return this._icicle;
      const { appears, parts, k } = this;
      const shownParts = (list) => list.flatMap((r) => (appears[r] ? [r] : shownParts(parts[r])));
      const below = Array.from({ length: k }, (_, r) => (appears[r] ? shownParts(parts[r]) : []));
      const tops = shownParts(this.tops);
      const weight = new Float64Array(k);
      const order = [];
      const stack = [...tops];
      while (stack.length) { const r = stack.pop(); order.push(r); stack.push(...below[r]); }
      for (const r of [...order].reverse()) {
        weight[r] = Math.max(Math.sqrt(this.area[r]), below[r].reduce((sum, c) => sum + weight[c], 0));
      }
      const left = new Float64Array(k), right = new Float64Array(k), until = new Float64Array(k).fill(Infinity);
      const place = (list, from, width, total) => {
        for (const r of list) { left[r] = from; from += (width * weight[r]) / total; right[r] = from; }
      };
      place(tops, 0, 1, tops.reduce((sum, r) => sum + weight[r], 0) || 1);
      for (const r of order) {
        const sum = below[r].reduce((total, c) => total + weight[c], 0);
        const filled = below[r].reduce((total, c) => total + this.area[c], 0) >= 0.98 * this.area[r];
        place(below[r], left[r], right[r] - left[r], filled ? sum || 1 : Math.max(weight[r], sum) * 1.06);
        if (filled && below[r].length) until[r] = Math.min(...below[r].map((c) => appears[c]));
      }
      this._icicle = { order: order.sort((a, b) => appears[a] - appears[b] || this.area[b] - this.area[a] || a - b), left, right, until, below };
      return this._icicle;
    }
  }

  window.USS = window.USS || {};
  window.USS.Family = Family;
  const holder = document.getElementById("explorer");
  if (!holder) return;

  // ---- what there is, and what is looked at -----------------------------------------------------------------------

  const index = JSON.parse(document.getElementById("explorer-index").textContent);
  const rgb = index.palette.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const titles = new Map(Object.entries(index.titles));
  const title = (name) => titles.get(name) || name;
  const datasets = [...new Set(index.images.map((image) => image.dataset))];
  const PHOTO = "~photo";
  const state = { image: index.images[0], columns: null, g: 8, alone: new Map(), separate: false, view: "colours", pin: null, hover: null };
  let families = new Map(), columns = [], ladder = [1];

  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }

  const decoded = (text) => { try { return decodeURIComponent(text); } catch { return text; } };

  function readHash() {
    const parts = new Map(location.hash.slice(1).split("&").map((part) => {
      const [name, ...rest] = part.split("=");
      return [name, rest.join("=")];
    }));
    const list = (name) => (parts.get(name) || "").split(",").filter(Boolean).map(decoded);
    const dataset = decoded(parts.get("d") || ""), id = decoded(parts.get("i") || "");
    const there = index.images.filter((image) => !dataset || image.dataset === dataset);
    state.image = there.find((image) => image.id === id) || there[0] || index.images[0];
    state.missing = Boolean((id && state.image && state.image.id !== id) || (dataset && !there.length));
    const chosen = list("c"), wished = list("e");
    state.columns = chosen.length ? chosen : wished.length ? [PHOTO, ...truths().slice(0, 1), ...wished] : null;
    const g = parseInt(parts.get("g"), 10);
    if (g > 0) state.g = g;
    const alone = list("a").map((part) => part.split(":")).filter(([, n]) => parseInt(n, 10) > 0);
    state.alone = new Map(alone.map(([name, n]) => [name, parseInt(n, 10)]));
    state.separate = alone.length > 0;
    if (["colours", "lines"].includes(parts.get("v"))) state.view = parts.get("v");
    const mark = decoded(parts.get("r") || ""), colon = mark.lastIndexOf(":");
    state.pin = colon > 0 ? { column: mark.slice(0, colon), region: parseInt(mark.slice(colon + 1), 10) - 1 } : null;
    state.hover = null;
  }

  // Another picture is a step of the browser's history; what is done with a picture is none.
  let hashTimer = 0, isStep = false;
  function writeHash(step = false) {
    isStep ||= step;
    clearTimeout(hashTimer);
    hashTimer = setTimeout(() => {
      const parts = [["d", state.image.dataset], ["i", state.image.id]];
      if (state.columns) parts.push(["c", state.columns]);
      parts.push(["g", String(state.g)]);
      if (state.separate) parts.push(["a", columns.filter((c) => c.family).map((c) => `${c.id}:${granularity(c)}`)]);
      if (state.view !== "colours") parts.push(["v", state.view]);
      if (state.pin) parts.push(["r", `${state.pin.column}:${state.pin.region + 1}`]);
      const coded = (value) => (Array.isArray(value) ? value.map(encodeURIComponent).join(",") : encodeURIComponent(value));
      const hash = "#" + parts.map(([name, value]) => `${name}=${coded(value)}`).join("&");
      if (hash !== location.hash) history[isStep ? "pushState" : "replaceState"](null, "", hash);
      isStep = false;
    }, 250);
  }

  const truths = () => state.image.columns.filter((name) => name.startsWith("~"));
  const available = () => [PHOTO, ...state.image.columns];
  const columnTitle = (id) => (id === PHOTO ? "Photo" : families.has(id) ? families.get(id).title : title(id));
  function chosenColumns() {
    if (state.columns) return state.columns.filter((id) => available().includes(id));
    const few = Math.max(2, Math.min(6, Math.floor((holder.clientWidth - (window.innerWidth > 1000 ? 320 : 0)) / 215) - 1 - Math.min(1, truths().length)));
    return [PHOTO, ...truths().slice(0, 1), ...state.image.columns.filter((id) => !id.startsWith("~")).slice(0, few)];
  }
  const granularity = (column) => (state.separate && state.alone.get(column.id)) || state.g;
  const active = () => {
    const mark = state.hover || state.pin;
    const family = mark && families.get(mark.column);
    return family && mark.region >= 0 && mark.region < family.k ? { ...mark, family } : null;
  };

  // ---- data, one script a picture ---------------------------------------------------------------------------------

  const kept = new Map();
  function load(image) {
    if (kept.has(image.key)) return kept.get(image.key);
    const promise = new Promise((resolve, reject) => {
      const script = el("script", { src: image.file + ".js" });
      script.onload = () => {
        const found = window.USS[image.key];
        delete window.USS[image.key];
        script.remove();
        if (!found) return reject(new Error(`${image.file}.js holds something else.`));
        resolve(new Map(found.map((data) => [data.id, new Family(data, ...image.size)])));
      };
      script.onerror = () => reject(new Error(`${image.file}.js is not there. Keep the folder “explorer” beside this page.`));
      document.head.append(script);
    });
    kept.set(image.key, promise);
    promise.catch(() => kept.delete(image.key));
    if (kept.size > 4) kept.delete(kept.keys().next().value);
    return promise;
  }

  // ---- the page's furniture ---------------------------------------------------------------------------------------

  const strip = el("div", { class: "x-strip", role: "group", "aria-label": "Pictures" });
  const datasetPicker = el("select", { "aria-label": "Dataset", onchange: (e) => go(index.images.find((i) => i.dataset === e.target.value)) });
  for (const name of datasets) datasetPicker.append(el("option", { value: name }, title(name)));
  const where = el("p", { class: "x-where" });
  const picker = el("div", { class: "x-picker" },
    el("div", { class: "x-pick" },
      datasets.length > 1 && el("label", {}, "Dataset ", datasetPicker),
      el("button", { type: "button", class: "x-step", "aria-label": "Previous picture", onclick: () => turn(-1) }, "‹"),
      where,
      el("button", { type: "button", class: "x-step", "aria-label": "Next picture", onclick: () => turn(1) }, "›")),
    strip);

  const chips = el("div", { class: "x-chips" });
  const chosen = el("span", { class: "x-chosen" });
  const chooser = el("details", { class: "x-chooser", open: window.innerWidth > 620 }, el("summary", {}, "Columns ", chosen),
    el("div", { role: "group", "aria-label": "Columns" }, chips));

  const count = el("output", { class: "x-count", for: "x-slider" });
  const slider = el("input", { type: "range", id: "x-slider", min: 0, step: 1, "aria-describedby": "x-what",
    oninput: () => slide(ladder[slider.valueAsNumber]) });
  const ticks = el("div", { class: "x-ticks", "aria-hidden": "true" });
  const together = el("input", { type: "checkbox", onchange: () => separate(!together.checked) });
  const views = el("div", { class: "x-views", role: "group", "aria-label": "How regions are drawn" });
  for (const [name, word] of [["colours", "Colours"], ["lines", "Outlines"]]) {
    views.append(el("button", { type: "button", "data-view": name, onclick: () => { state.view = name; update(); } }, word));
  }
  const bar = el("div", { class: "x-bar" },
    el("div", { class: "x-slide" },
      el("label", { for: "x-slider" }, "Regions in view", " ", count),
      el("div", { class: "x-track" }, slider, ticks)),
    el("div", { class: "x-options" }, el("label", { class: "x-check" }, together, " All together"), views));

  const grid = el("div", { class: "x-grid" });
  const details = el("aside", { class: "x-details", "aria-label": "The region pointed at" });
  const live = el("div", { class: "x-hidden", role: "status", "aria-live": "polite" });
  const problem = el("p", { class: "x-problem", role: "alert", hidden: true });
  const help = el("details", { class: "x-help" },
    el("summary", {}, "How to use this page"),
    el("div", {},
      el("p", { id: "x-what" }, "Each column shows how one method cuts the same photo into nested regions. Slide left for few large regions, right for many small ones. ",
        "A region keeps its colour at every step, its parts have shades of it, and what resembles a region of the ground truth has its colour in all columns."),
      el("p", {}, "Point at a region to outline it, its parts (thin) and what it lies in (dashed); the other columns outline what resembles it most, with the IoU: the shared area over the joint one, 1 where they are equal. Click or tap to keep it, again to let go."),
      el("p", {}, "The strips below the pictures are the trees: each block is a region, as wide as it is large, beginning where it appears and ending where it is split. The line is what is in view."),
      el("dl", { class: "x-keys" }, ...[
        ["Tab", "to a picture, then"], ["↑ ↓", "what it lies in, its largest part"], ["← →", "the region before, after"], ["Enter", "keep, let go"],
        ["Esc", "nothing"], ["+ −", "finer, coarser"], [". ,", "next, previous picture"],
      ].flatMap(([key, words]) => [el("dt", {}, el("kbd", {}, key)), el("dd", {}, words)]))));
  holder.append(picker, chooser, bar, problem, el("div", { class: "x-room" }, grid, details), help, live);

  // ---- columns ----------------------------------------------------------------------------------------------------

  function build() {
    for (const column of columns) column.root.remove();
    columns = chosenColumns().map(makeColumn);
    grid.replaceChildren(...columns.map((column) => column.root));
    if (!columns.length) grid.append(el("p", { class: "x-empty" }, "No column is chosen. Choose some above."));
    const finest = Math.max(1, ...columns.map((c) => (c.family ? c.family.steps : 1)));
    ladder = [...new Set([...Array(80).keys()].map((i) => Math.round(2 ** (i / 4))))].filter((n) => n < finest).concat(finest);
    slider.max = ladder.length - 1;
    ticks.replaceChildren();
    for (let n = 1; n <= finest; n *= 2) {
      const at = position(n) / Math.max(1, ladder.length - 1);
      if (n === 1 || finest / n >= 1.3) ticks.append(el("span", { style: `left:${100 * at}%` }, String(n)));
    }
    arrange();
  }

  const position = (n) => {
    let best = 0;
    for (let i = 1; i < ladder.length; i++) if (Math.abs(ladder[i] - n) <= Math.abs(ladder[best] - n)) best = i;
    return best;
  };

  function makeColumn(id) {
    const family = families.get(id) || null;
    const [height, width] = state.image.size;
    const column = { id, family, drawnCut: null };
    column.fill = el("canvas", { class: "x-fill", "aria-hidden": "true" });
    column.mark = el("canvas", { class: "x-mark", "aria-hidden": "true" });
    column.badge = el("span", { class: "x-badge", hidden: true });
    column.stage = el("div", { class: "x-stage", style: `aspect-ratio:${width}/${height}` },
      el("img", { src: state.image.file + ".jpg", alt: family ? "" : `Photo ${state.image.id}`, draggable: "false" }),
      family && column.fill, column.mark, column.badge);
    column.note = el("span", { class: "x-note" });
    const scores = family ? family.scores : [];
    const scored = [...families.values()].some((f) => f.scores.length);
    const first = scores.slice(0, 2).map(([name, value]) => `${name} ${value.toFixed(3)}`).join(" · ");
    column.root = el("figure", { class: "x-column", "data-column": id },
      el("figcaption", {},
        el("span", { class: "x-title" }, columnTitle(id)),
        el("button", { type: "button", class: "x-close", "aria-label": `Remove the column ${columnTitle(id)}`, onclick: () => toggle(id) }, "×"),
        el("span", { class: "x-sub" }, column.note),
        scored && el("span", { class: "x-sub x-scores", title: scores.map(([name, value]) => `${name} ${value.toFixed(3)}`).join("\n") }, first)),
      column.stage);
    if (!family) {
      column.root.append(el("p", { class: "x-legend" }, "Below each picture, its tree: a block is a region, as wide as it is large, from where it appears (few regions, top) to where it is split (many, bottom). The line is what is in view."));
      return column;
    }

    column.stage.tabIndex = 0;
    column.stage.setAttribute("role", "application");
    column.stage.setAttribute("aria-roledescription", "segmented picture");
    column.stage.addEventListener("keydown", (event) => onKey(event, column));
    column.stage.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") hover(column, regionAt(column, event)); });
    column.stage.addEventListener("pointerleave", () => hover(column, -1));
    column.stage.addEventListener("click", (event) => pin(column, regionAt(column, event)));

    column.icicle = el("canvas", { class: "x-icicle" });
    column.iceMark = el("canvas", { class: "x-mark", "aria-hidden": "true" });
    column.line = el("div", { class: "x-cut", "aria-hidden": "true" });
    column.tree = el("div", { class: "x-tree", role: "img", "aria-label": `Tree of ${family.title}: ${family.k} regions, ${depth(family)} levels` },
      column.icicle, column.iceMark, column.line);
    column.tree.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") hover(column, blockAt(column, event)); });
    column.tree.addEventListener("pointerleave", () => hover(column, -1));
    column.tree.addEventListener("click", (event) => pin(column, blockAt(column, event)));
    column.slider = el("input", { type: "range", min: 0, step: 1, "aria-label": `Regions in view, ${family.title}`,
      oninput: () => { state.alone.set(id, ladder[column.slider.valueAsNumber]); update(); } });
    column.own = el("div", { class: "x-own", hidden: family.steps < 2 }, column.slider);
    column.root.append(column.tree, column.own);
    return column;
  }

  function depth(family) {
    const deep = new Int32Array(family.k);
    let most = 0;
    for (const r of family.byArea) { deep[r] = family.nest[r] >= 0 ? deep[family.nest[r]] + 1 : 1; most = Math.max(most, deep[r]); }
    return most;
  }

  // As many columns in a row as give the largest pictures that fit the window; where none do, small ones.
  function arrange() {
    const n = columns.length;
    if (!n) return;
    const room = grid.clientWidth, gap = 14, aspect = state.image.size[1] / state.image.size[0];
    const least = room < 560 ? 140 : 215, { root, stage } = columns.find((c) => c.family) || columns[0];
    const beside = root.offsetHeight - stage.offsetHeight + 20; // what stands above and below a picture
    const widest = Math.max(220, 0.62 * window.innerHeight * aspect);
    const wide = (k) => Math.min(widest, (room - gap * (k - 1)) / k);
    const fits = (k) => wide(k) >= least && Math.ceil(n / k) * (wide(k) / aspect + beside) <= 0.85 * window.innerHeight;
    let across = Math.ceil(n / Math.max(1, Math.ceil((n * (least + gap)) / (room + gap))));
    for (let k = n; k >= 1; k--) if (fits(k) && wide(k) > wide(across)) across = k;
    grid.style.setProperty("--across", across);
    grid.style.setProperty("--widest", `${Math.round(widest)}px`);
    const ratio = window.devicePixelRatio || 1;
    const budget = 6e6 / (n * state.image.size[0] * state.image.size[1]);
    for (const column of columns) {
      const { width, height } = column.stage.getBoundingClientRect();
      fit(column.mark, width, height, ratio);
      if (!column.family) continue;
      const wanted = Math.ceil((width * ratio) / column.family.width - 0.15);
      const scale = Math.max(1, Math.min(wanted, 4, Math.floor(Math.sqrt(budget))));
      column.scale = scale;
      column.fill.width = column.family.width * scale;
      column.fill.height = column.family.height * scale;
      column.fill.classList.toggle("x-blocks", width * ratio > column.fill.width);
      column.pixels = null;
      column.drawnCut = null;
      const box = column.tree.getBoundingClientRect();
      fit(column.icicle, box.width, box.height, ratio);
      fit(column.iceMark, box.width, box.height, ratio);
      drawIcicle(column);
    }
    update();
  }

  function fit(canvas, width, height, ratio) {
    canvas.width = Math.max(1, Math.round(width * ratio));
    canvas.height = Math.max(1, Math.round(height * ratio));
  }

  // ---- drawing ----------------------------------------------------------------------------------------------------

  const word = ([r, g, b], alpha) => ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0; // little-endian RGBA, as all browsers have it
  const LIGHT = word([255, 255, 255], 235), DARK = word([16, 18, 24], 190), NOTHING = word([16, 18, 24], 140);

  function paint(column) {
    const { family, scale, fill } = column;
    const n = Math.min(granularity(column), family.steps), key = `${state.view}:${n}`;
    if (column.drawnCut === key) return;
    column.drawnCut = key;
    const cut = column.cut = family.cut(n);
    const context = fill.getContext("2d");
    if (!column.pixels) {
      column.pixels = context.createImageData(fill.width, fill.height);
      column.words = new Uint32Array(column.pixels.data.buffer);
    }
    const { words } = column, { map, width, height, runs, across, down } = family;
    const lines = state.view === "lines";
    const colours = new Uint32Array(cut.length);
    const seen = new Set();
    for (let atom = 0; atom < cut.length; atom++) {
      const region = cut[atom];
      if (region >= 0) seen.add(region);
      colours[atom] = region < 0 ? NOTHING : lines ? 0 : word(rgb[family.colour[region]], 165);
    }
    column.inView = seen.size;
    const stride = width * scale;
    for (let j = 0; j < runs.length; j++) {
      const begin = runs[j], end = j + 1 < runs.length ? runs[j + 1] : map.length;
      const y = (begin / width) | 0, from = y * stride * scale + (begin - y * width) * scale;
      words.fill(colours[map[begin]], from, from + (end - begin) * scale);
    }
    if (scale > 1) {
      for (let y = 0; y < height; y++) {
        const from = y * stride * scale;
        for (let copy = 1; copy < scale; copy++) words.copyWithin(from + copy * stride, from, from + stride);
      }
    }
    for (const i of across) {
      if (cut[map[i]] === cut[map[i - 1]]) continue;
      const y = (i / width) | 0;
      let at = y * stride * scale + (i - y * width) * scale;
      for (let step = 0; step < scale; step++, at += stride) {
        words[at] = LIGHT;
        if (lines) words[at - 1] = DARK;
      }
    }
    for (const i of down) {
      if (cut[map[i]] === cut[map[i - width]]) continue;
      const y = (i / width) | 0, at = y * stride * scale + (i - y * width) * scale;
      words.fill(LIGHT, at, at + scale);
      if (lines) for (let step = 0; step < scale; step++) if (words[at - stride + step] !== LIGHT) words[at - stride + step] = DARK;
    }
    context.putImageData(column.pixels, 0, 0);
  }

  // The outline of a region, along the edges of pixels, as a path in pixels of the map.
  function outline(family, region) {
    const mask = family.inside(region), path = new Path2D();
    const { map, width, height, across, down } = family;
    const rows = new Map();
    for (const i of down) {
      if (mask[map[i]] === mask[map[i - width]]) continue;
      const y = (i / width) | 0;
      segment(rows, y, i - y * width);
    }
    const columnsOf = new Map();
    for (const i of across) {
      if (mask[map[i]] === mask[map[i - 1]]) continue;
      const y = (i / width) | 0;
      segment(columnsOf, i - y * width, y);
    }
    for (let x = 0; x < width; x++) {
      if (mask[map[x]]) segment(rows, 0, x);
      if (mask[map[(height - 1) * width + x]]) segment(rows, height, x);
    }
    for (let y = 0; y < height; y++) {
      if (mask[map[y * width]]) segment(columnsOf, 0, y);
      if (mask[map[y * width + width - 1]]) segment(columnsOf, width, y);
    }
    for (const [y, pieces] of rows) for (const [from, to] of pieces) { path.moveTo(from, y); path.lineTo(to, y); }
    for (const [x, pieces] of columnsOf) for (const [from, to] of pieces) { path.moveTo(x, from); path.lineTo(x, to); }
    return path;
  }

  function segment(lines, line, at) {
    if (!lines.has(line)) lines.set(line, []);
    const pieces = lines.get(line), last = pieces[pieces.length - 1];
    if (last && last[1] === at) last[1] = at + 1; else pieces.push([at, at + 1]);
  }

  function shade(context, family, region, unit) { // everything but the region, darker
    const mask = family.inside(region), { map, runs, width } = family;
    context.fillStyle = "rgba(10, 12, 18, 0.34)";
    for (let j = 0; j < runs.length; j++) {
      if (mask[map[runs[j]]]) continue;
      const begin = runs[j];
      let end = j + 1 < runs.length ? runs[j + 1] : map.length;
      const y = (begin / width) | 0;
      while (j + 1 < runs.length && !mask[map[runs[j + 1]]] && ((runs[j + 1] / width) | 0) === y) {
        j++;
        end = j + 1 < runs.length ? runs[j + 1] : map.length;
      }
      context.fillRect(begin - y * width, y, end - begin, 1 + 0.02 / unit);
    }
  }

  function stroke(context, path, width, unit, dash = []) {
    context.lineCap = "round";
    context.setLineDash([]);
    context.strokeStyle = "rgba(10, 12, 18, 0.85)";
    context.lineWidth = (width + 2) / unit;
    if (!dash.length) context.stroke(path);
    context.setLineDash(dash.map((d) => d / unit));
    context.strokeStyle = "#fff";
    context.lineWidth = width / unit;
    context.stroke(path);
    context.setLineDash([]);
  }

  function drawMarks(column, mark, found) {
    const context = column.mark.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, column.mark.width, column.mark.height);
    column.badge.hidden = true;
    if (column.tree) drawTreeMarks(column, mark, found);
    if (!mark) return;
    const own = mark.column === column.id;
    const family = own || !column.family ? mark.family : column.family;
    const region = own || !column.family ? mark.region : found.region;
    if (column.family && !own) {
      column.badge.hidden = false;
      column.badge.textContent = found.region < 0 || found.iou < 0.005 ? "no match" : `IoU ${found.exact ? "" : "≈ "}${found.iou.toFixed(2)}`;
    }
    if (region < 0) return;
    const unit = column.mark.width / family.width, ratio = window.devicePixelRatio || 1;
    context.setTransform(unit, 0, 0, unit, 0, 0);
    shade(context, family, region, unit);
    if (own) {
      for (const part of largest(family, family.parts[region]).slice(0, 40)) stroke(context, outline(family, part), 0.9 * ratio, unit);
      const above = family.nest[region];
      if (above >= 0 && !family.whole[above]) stroke(context, outline(family, above), 1.6 * ratio, unit, [5 * ratio, 5 * ratio]);
    }
    stroke(context, outline(family, region), 2.4 * ratio, unit);
  }

  const level = (n) => Math.log2(n) + 0.85; // of the tree's first row: room for one region
  const reach = () => level(ladder[ladder.length - 1]) + 0.85;

  function drawIcicle(column) {
    const { family, icicle } = column, context = icicle.getContext("2d");
    const { order, left, right, until } = family.icicle();
    context.clearRect(0, 0, icicle.width, icicle.height);
    const unit = icicle.height / reach(), gap = Math.max(0.5, 0.5 * (window.devicePixelRatio || 1));
    for (const r of order) {
      const from = family.appears[r] <= 1 ? 0 : level(family.appears[r]) * unit;
      const to = until[r] === Infinity ? icicle.height : level(until[r]) * unit;
      const x = left[r] * icicle.width, width = (right[r] - left[r]) * icicle.width;
      const [red, green, blue] = rgb[family.colour[r]];
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      const slim = width < 3 * gap ? 0 : gap;
      context.fillRect(x, from, Math.max(width - slim, 0.4), Math.max(to - from - (slim ? gap : 0), 0));
    }
  }

  function drawTreeMarks(column, mark, found) {
    const canvas = column.iceMark, context = canvas.getContext("2d"), { family } = column;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!mark) return;
    const own = mark.column === column.id;
    const region = own ? mark.region : found.region;
    if (region < 0) return;
    const { left, right, until, below } = family.icicle();
    const unit = canvas.height / reach(), ratio = window.devicePixelRatio || 1;
    const box = (r) => {
      const from = family.appears[r] <= 1 ? 0 : level(family.appears[r]) * unit;
      const to = until[r] === Infinity ? canvas.height : level(until[r]) * unit;
      const thick = r === region ? 2 * ratio : 0;
      return [left[r] * canvas.width, from, Math.max((right[r] - left[r]) * canvas.width, thick), Math.max(to - from, thick)];
    };
    const chain = [...family.chain(region), region].filter((r) => family.appears[r]);
    const all = (r) => { const [x, y, width] = box(r); return [x, y, width, canvas.height - y]; }; // a block and those below it
    context.fillStyle = "rgba(10, 12, 18, 0.5)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    for (const r of chain) { // lit: the region with its parts, and what it lies in without its other parts
      context.clearRect(...all(r));
      if (r !== region) for (const part of below[r]) context.fillRect(...all(part));
    }
    if (!family.appears[region]) return;
    const [x, y, w, h] = box(region);
    context.lineWidth = 4 * ratio; context.strokeStyle = "rgba(10, 12, 18, 0.85)"; context.strokeRect(x, y, w, h);
    context.lineWidth = 2 * ratio; context.strokeStyle = "#fff"; context.strokeRect(x, y, w, h);
  }

  // ---- pointing ---------------------------------------------------------------------------------------------------

  function spot(node, event) {
    const box = node.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  function regionAt(column, event) {
    const { family } = column, [u, v] = spot(column.stage, event);
    const x = Math.floor(u * family.width), y = Math.floor(v * family.height);
    if (x < 0 || y < 0 || x >= family.width || y >= family.height) return -1;
    return column.cut[family.map[y * family.width + x]];
  }

  function blockAt(column, event) {
    const { family } = column, [u, v] = spot(column.tree, event);
    const { order, left, right, until } = family.icicle();
    const at = v * reach();
    let best = -1;
    for (const r of order) {
      const from = family.appears[r] <= 1 ? 0 : level(family.appears[r]);
      if (u >= left[r] && u < right[r] && at >= from && (until[r] === Infinity || at < level(until[r]))) best = r;
    }
    return best;
  }

  function hover(column, region) {
    if (state.pin) return;
    const now = state.hover;
    if (region < 0 ? !now : now && now.column === column.id && now.region === region) return;
    state.hover = region < 0 ? null : { column: column.id, region };
    schedule("marks");
  }

  function pin(column, region) {
    const same = state.pin && state.pin.column === column.id && state.pin.region === region;
    state.pin = region < 0 || same ? null : { column: column.id, region };
    state.hover = null;
    schedule("marks");
    writeHash();
    if (state.pin && window.innerWidth <= 1000) { // above the sheet that says more, once it is there
      requestAnimationFrame(() => column.stage.scrollIntoView({ block: "nearest" }));
    }
  }

  function onKey(event, column) {
    const { family } = column;
    const mark = active();
    const here = mark && mark.column === column.id ? mark.region : -1;
    const key = event.key;
    let to = -1;
    if (["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "Home"].includes(key)) {
      const inView = new Set(column.cut);
      if (here < 0 || key === "Home") to = family.byArea.find((r) => inView.has(r)) ?? -1;
      else if (key === "ArrowUp") to = family.nest[here];
      else if (key === "ArrowDown") to = largest(family, family.parts[here])[0] ?? -1;
      else {
        const around = family.nest[here] >= 0 ? family.parts[family.nest[here]] : family.tops;
        to = around[(around.indexOf(here) + (key === "ArrowRight" ? 1 : around.length - 1)) % around.length];
      }
      event.preventDefault();
      if (to < 0) return;
      state.hover = null;
      state.pin = { column: column.id, region: to };
      schedule("marks");
      writeHash();
    } else if (key === "Enter" || key === " ") {
      event.preventDefault();
      if (here >= 0) pin(column, here);
    }
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input[type=text], input[type=search], select, textarea")) return;
    if (event.key === "Escape") { state.pin = state.hover = null; schedule("marks"); writeHash(); }
    else if (event.key === "+" || event.key === "=") nudge(1, event);
    else if (event.key === "-" || event.key === "−") nudge(-1, event);
    else if (event.key === ".") turn(1);
    else if (event.key === ",") turn(-1);
  });

  function nudge(step, event) {
    const place = event.target.closest(".x-column"), column = state.separate && place && columns.find((c) => c.root === place);
    const now = column ? granularity(column) : state.g;
    const to = ladder[Math.min(ladder.length - 1, Math.max(0, position(now) + step))];
    if (column) { state.alone.set(column.id, to); update(); } else slide(to);
  }

  // ---- changing what is looked at ---------------------------------------------------------------------------------

  function slide(n) {
    state.g = n;
    if (state.separate) state.alone = new Map(columns.map((c) => [c.id, n]));
    schedule("cuts");
  }

  function separate(on) {
    state.separate = on;
    state.alone = new Map(on ? columns.map((c) => [c.id, state.g]) : []);
    update();
  }

  function toggle(id) {
    const now = chosenColumns();
    state.columns = now.includes(id) ? now.filter((c) => c !== id) : available().filter((c) => c === id || now.includes(c));
    if (state.pin && !state.columns.includes(state.pin.column)) state.pin = null;
    state.hover = null;
    markChips();
    build();
    writeHash();
  }

  function turn(step) {
    const there = index.images.filter((image) => image.dataset === state.image.dataset);
    go(there[(there.indexOf(state.image) + step + there.length) % there.length]);
  }

  function go(image) {
    state.image = image;
    state.pin = state.hover = null;
    open();
    writeHash(true);
  }

  let opened = 0;
  async function open() {
    const ticket = ++opened;
    const { image } = state;
    drawPicker();
    try {
      const found = await load(image);
      if (ticket !== opened) return;
      families = found;
      problem.hidden = !state.missing;
      problem.textContent = "The picture that the link names is not here; this is another one.";
      state.missing = false;
    } catch (error) {
      if (ticket !== opened) return;
      families = new Map();
      problem.hidden = false;
      problem.textContent = error.message;
    }
    drawChips();
    build();
    requestAnimationFrame(() => requestAnimationFrame(() => holder.classList.remove("x-waiting"))); // sizes settle in the next frame
  }

  function drawPicker() {
    datasetPicker.value = state.image.dataset;
    const there = index.images.filter((image) => image.dataset === state.image.dataset);
    where.textContent = `${state.image.id} (${there.indexOf(state.image) + 1} of ${there.length})`;
    if (strip.dataset.of !== state.image.dataset) {
      strip.dataset.of = state.image.dataset;
      strip.replaceChildren(...there.map((image) => el("button", { type: "button", "data-key": image.key, title: image.id, onclick: () => go(image) },
        el("img", { src: image.file + ".jpg", width: image.size[1], height: image.size[0], alt: `Picture ${image.id}`, loading: "lazy" }))));
    }
    for (const button of strip.children) {
      if (button.dataset.key === state.image.key) button.setAttribute("aria-current", "true"); else button.removeAttribute("aria-current");
    }
    const current = strip.querySelector("[aria-current]");
    if (current) strip.scrollLeft = Math.max(0, current.offsetLeft - strip.clientWidth / 2 + current.clientWidth / 2);
  }

  function drawChips() {
    chips.replaceChildren(...available().map((id) => el("label", {},
      el("input", { type: "checkbox", value: id, onchange: () => toggle(id) }), el("span", {}, columnTitle(id)))));
    markChips();
  }

  function markChips() {
    const now = chosenColumns();
    chosen.textContent = `${now.length} of ${available().length}`;
    for (const box of chips.querySelectorAll("input")) box.checked = now.includes(box.value);
  }

  // ---- keeping the page up to date --------------------------------------------------------------------------------

  const wanted = new Set();
  function schedule(what) { // at most once a frame
    if (!wanted.size) {
      requestAnimationFrame(() => {
        const now = new Set(wanted);
        wanted.clear();
        if (now.has("cuts")) updateCuts();
        if (now.has("marks")) updateMarks();
      });
    }
    wanted.add(what);
  }

  function update() {
    updateCuts();
    updateMarks();
  }

  function updateCuts() {
    slider.value = position(state.g);
    slider.setAttribute("aria-valuetext", `about ${state.g}`);
    count.textContent = state.separate ? "each its own" : `about ${state.g}`;
    together.checked = !state.separate;
    holder.classList.toggle("x-separate", state.separate);
    for (const button of views.children) button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    for (const column of columns) {
      if (!column.family) { column.note.textContent = `${state.image.full[1]} × ${state.image.full[0]} pixels`; continue; }
      paint(column);
      const n = granularity(column);
      column.note.textContent = `${column.inView} of ${column.family.k} regions`;
      column.line.style.top = `${(100 * level(Math.min(n, ladder[ladder.length - 1]))) / reach()}%`;
      column.slider.max = position(column.family.steps);
      column.slider.value = position(n);
      column.slider.setAttribute("aria-valuetext", `about ${n}`);
      column.stage.setAttribute("aria-label", `${column.family.title}: ${column.note.textContent} of picture ${state.image.id} in view. Arrow keys walk the tree.`);
    }
    writeHash();
  }

  let matched = { of: null, found: new Map() };
  function matches(mark) {
    const key = `${state.image.key} ${mark.column} ${mark.region} ${columns.map((c) => c.id)}`;
    if (matched.of === key) return matched.found;
    const exact = state.image.size.every((n, i) => n === state.image.full[i]);
    const found = new Map();
    const noted = mark.family.truth;
    const names = truths();
    for (const column of columns) {
      if (!column.family || column.id === mark.column) continue;
      if (noted && names[noted.family[mark.region] - 1] === column.id) {
        found.set(column.id, { region: noted.region[mark.region] - 1, iou: noted.iou[mark.region] / 1000, exact: true });
      } else {
        found.set(column.id, { ...mark.family.match(mark.region, column.family), exact });
      }
    }
    matched = { of: key, found };
    return found;
  }

  function updateMarks() {
    const mark = active();
    const found = mark ? matches(mark) : new Map();
    for (const column of columns) drawMarks(column, mark, found.get(column.id) || { region: -1, iou: 0 });
    drawDetails(mark, found);
  }

  const largest = (family, list) => [...list].sort((a, b) => family.area[b] - family.area[a] || a - b);
  const percent = (share) => (share >= 0.1 ? (100 * share).toFixed(0) : share >= 0.001 ? (100 * share).toFixed(1) : "< 0.1") + " %";
  const plain = (value) => (Number.isInteger(value) ? String(value) : value.toPrecision(3));
  const whole = (n) => n.toLocaleString("en").replace(/,/g, "\u202f");

  function regionButton(column, family, region, current = false) {
    const show = () => { state.hover = null; state.pin = { column, region }; schedule("marks"); writeHash(); };
    return el("button", { type: "button", class: "x-region", "aria-current": current ? "true" : null, onclick: show, "data-region": region },
      el("i", { style: `background:${index.palette[family.colour[region]]}` }), family.name(region));
  }

  function drawDetails(mark, found) {
    details.classList.toggle("x-on", Boolean(mark));
    if (!mark) {
      details.replaceChildren(el("p", { class: "x-hint" }, "Point at a region, or tap it, to see what it lies in, its parts, and what resembles it in the other columns."));
      live.textContent = "";
      return;
    }
    const { family, region, column } = mark;
    const share = family.area[region] / (family.grid[0] * family.grid[1]);
    const counted = family.grid.every((n, i) => n === state.image.full[i]); // not so where regions were found in a smaller copy
    const facts = [["Size", `${percent(share)} of the picture${counted ? `, ${whole(family.area[region])} pixels` : ""}`]];
    if (family.appears[region]) facts.push(["Appears", `with ${family.appears[region] === 1 ? "the first" : `about ${family.appears[region]} in view`}`]);
    else facts.push(["Appears", "not by itself: it is much like a larger one"]);
    if (!Number.isNaN(family.level[region])) facts.push(["Level", plain(family.level[region])]);
    if (!column.startsWith("~") && !Number.isNaN(family.score[region])) facts.push(["Score", plain(family.score[region])]);
    const source = family.sources[family.source ? family.source[region] : 0];
    if (source) facts.push(["From", source]);

    const close = el("button", { type: "button", class: "x-close", "aria-label": "Let go of this region", onclick: () => { state.pin = state.hover = null; schedule("marks"); writeHash(); } }, "×");
    const parts = largest(family, family.parts[region]);
    const list = [el("div", { class: "x-head" },
      el("i", { style: `background:${index.palette[family.colour[region]]}` }),
      el("h2", {}, family.name(region)), el("span", {}, columnTitle(column)), state.pin && close)];
    const noted = family.truth;
    if (noted) {
      const which = truths()[noted.family[region] - 1];
      const truth = which && families.get(which);
      const at = noted.region[region] - 1;
      list.push(el("h3", {}, "Best match in the ground truth"));
      list.push(truth ? matchRow(which, truth, at, noted.iou[region] / 1000, true, truths().length > 1 ? truth.title : "") : el("p", {}, "none"));
    }
    list.push(el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
    const chain = family.chain(region);
    if (chain.length) {
      const between = chain.length > 7 ? chain.length - 5 : 0; // of a long chain, both ends
      const links = chain.flatMap((r, i) => (i < 2 || i >= 2 + between ? [regionButton(column, family, r), el("span", {}, "›")] : i === 2 ? [el("span", {}, `${between} more ›`)] : []));
      list.push(el("h3", {}, "Lies in"), el("div", { class: "x-chain" }, ...links, el("b", {}, family.name(region))));
    }
    if (parts.length) {
      list.push(el("h3", {}, `${parts.length} ${parts.length === 1 ? "part" : "parts"}`),
        el("div", { class: "x-parts" }, ...parts.slice(0, 12).map((r) => regionButton(column, family, r)), parts.length > 12 && el("span", {}, `and ${parts.length - 12} more`)));
    }
    if (family.nesting === "held") list.push(el("p", { class: "x-small" }, "This method states no tree. A region is said to lie in the smallest larger one that holds at least 90 % of it."));
    const others = [...found].filter(([id, { region: r }]) => r >= 0 && !(noted && truths().includes(id)));
    if (others.length) {
      list.push(el("h3", {}, "The same thing in other columns"));
      for (const [id, { region: r, iou, exact }] of others) list.push(matchRow(id, families.get(id), r, iou, exact, columnTitle(id)));
    }
    details.replaceChildren(...list);
    const said = noted && noted.family[region] ? ` Best match in the ground truth: IoU ${(noted.iou[region] / 1000).toFixed(2)}.` : "";
    live.textContent = `${family.title}: ${family.name(region)}, ${percent(share)} of the picture, ${parts.length} parts.${said}`;
  }

  function matchRow(id, family, region, iou, exact, label) {
    return el("div", { class: "x-match" }, label && el("span", { class: "x-of" }, label), regionButton(id, family, region),
      el("span", { class: "x-iou" }, `IoU ${exact ? "" : "≈ "}${iou.toFixed(exact ? 3 : 2)}`),
      el("span", { class: "x-meter", "aria-hidden": "true" }, el("i", { style: `width:${100 * iou}%` })));
  }

  // ---- begin ------------------------------------------------------------------------------------------------------

  Object.assign(window.USS, { explorer: { state, slide, update, columns: () => columns, families: () => families, index } });
  if (!index.images.length) {
    holder.replaceChildren(el("p", { class: "x-empty" }, "There are no pictures to explore yet."));
    return;
  }
  holder.classList.add("x-waiting"); // not seen before the first picture is there, so that nothing moves under a reader's eyes
  readHash();
  open();
  window.addEventListener("hashchange", () => { readHash(); open(); });
  let size = "";
  new ResizeObserver(() => {
    const now = `${grid.clientWidth} ${window.innerHeight} ${window.devicePixelRatio}`;
    if (now !== size && columns.length) { size = now; requestAnimationFrame(arrange); }
  }).observe(grid);
})();
