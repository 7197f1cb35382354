"use strict";

// Masks of the page: one byte a pixel along the rows; on the way, run lengths (off, on, off, …) down the columns.

function bitsOf(runs, width, height) {
  const bits = new Uint8Array(width * height);
  let place = 0;
  runs.forEach((length, i) => {
    if (i % 2) {
      for (let k = place, x = Math.floor(place / height), y = place % height; k < place + length; k++) {
        bits[y * width + x] = 1;
        if (++y === height) { y = 0; x++; }
      }
    }
    place += length;
  });
  return bits;
}

function runsOf(bits, width, height) {
  const runs = [];
  let last = 0, length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, i = x; y < height; y++, i += width) {
      if (bits[i] !== last) {
        runs.push(length);
        last = bits[i];
        length = 0;
      }
      length++;
    }
  }
  runs.push(length);
  return runs;
}

function areaOf(bits) {
  let area = 0;
  for (let i = 0; i < bits.length; i++) area += bits[i];
  return area;
}

// The pixels of `base` (or none) with a region, or without it.
function combined(base, region, sign) {
  const bits = base ? base.slice() : new Uint8Array(region.length);
  for (let i = 0; i < bits.length; i++) if (region[i]) bits[i] = sign > 0 ? 1 : 0;
  return bits;
}

// A disc on every pixel of the line from one point to another, in place.
function stroke(bits, width, height, [x0, y0], [x1, y1], radius, value) {
  const steps = Math.max(1, Math.ceil(Math.hypot(x1 - x0, y1 - y0) / Math.max(1, radius / 2)));
  for (let step = 0; step <= steps; step++) {
    const x = x0 + ((x1 - x0) * step) / steps, y = y0 + ((y1 - y0) * step) / steps;
    for (let row = Math.max(0, Math.ceil(y - radius)); row <= Math.min(height - 1, Math.floor(y + radius)); row++) {
      const half = Math.sqrt(Math.max(0, radius * radius - (row - y) * (row - y)));
      const first = Math.max(0, Math.ceil(x - half)), last = Math.min(width - 1, Math.floor(x + half));
      if (first <= last) bits.fill(value, row * width + first, row * width + last + 1);
    }
  }
}

// The mask with all that its pixels enclose.
function withoutHoles(bits, width, height) {
  const outside = new Uint8Array(bits.length), stack = [];
  const visit = (i) => {
    if (!bits[i] && !outside[i]) {
      outside[i] = 1;
      stack.push(i);
    }
  };
  for (let x = 0; x < width; x++) [x, (height - 1) * width + x].forEach(visit);
  for (let y = 0; y < height; y++) [y * width, y * width + width - 1].forEach(visit);
  while (stack.length) {
    const i = stack.pop(), x = i % width;
    if (x > 0) visit(i - 1);
    if (x < width - 1) visit(i + 1);
    if (i >= width) visit(i - width);
    if (i < bits.length - width) visit(i + width);
  }
  return outside.map((value) => 1 - value);
}

// The regions that the methods found in an image; see `packed` in annotation/workbench.py.
class Candidates {
  constructor(buffer) {
    const words = new Int32Array(buffer);
    const [width, height, atoms, count, places] = words;
    let at = 5;
    const take = (length) => words.subarray(at, (at += length));
    Object.assign(this, { width, height, count });
    this.atoms = take(width * height);
    this.starts = take(atoms + 1);
    this.chains = take(places);
    this.first = take(atoms);
    this.quality = new Float32Array(buffer, 4 * at, count);
    this.members = Array.from({ length: count }, () => []);
    for (let atom = 0; atom < atoms; atom++) for (const region of this.chain(atom)) this.members[region].push(atom);
    const pixels = new Int32Array(atoms);
    for (const atom of this.atoms) pixels[atom]++;
    this.area = this.members.map((members) => members.reduce((sum, atom) => sum + pixels[atom], 0));
    this.lookup = new Uint8Array(atoms);
    this.recent = new Map();
  }

  chain(atom) {
    return this.chains.subarray(this.starts[atom], this.starts[atom + 1]);
  }

  at(x, y) {
    const atom = this.atoms[y * this.width + x];
    return { atom, chain: this.chain(atom), place: this.first[atom] };
  }

  // The mask of a region; the last ones are remembered.
  bits(region) {
    let bits = this.recent.get(region);
    if (!bits) {
      this.lookup.fill(0);
      for (const atom of this.members[region]) this.lookup[atom] = 1;
      bits = new Uint8Array(this.atoms.length);
      for (let i = 0; i < bits.length; i++) bits[i] = this.lookup[this.atoms[i]];
      this.recent.set(region, bits);
      if (this.recent.size > 24) this.recent.delete(this.recent.keys().next().value);
    }
    return bits;
  }
}

// Colours as words of an image's pixels: alpha, blue, green, red from the highest byte.
const word = ([r, g, b], alpha) => ((Math.round(255 * alpha) << 24) | (b << 16) | (g << 8) | r) >>> 0;

// Draw a mask into the words of an image: its area, and an outline of some pixels at its border.
function drawMask(words, bits, width, height, fill, line, thick) {
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!bits[i]) continue;
      const border = x < thick || y < thick || x >= width - thick || y >= height - thick
        || !bits[i - thick] || !bits[i + thick] || !bits[i - thick * width] || !bits[i + thick * width];
      words[i] = border ? line : fill;
    }
  }
}
