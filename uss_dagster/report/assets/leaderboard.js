"use strict";
(() => {
  const USS = window.USS;
  const costs = window.USS_COSTS || {};
  const byId = (id) => document.getElementById(id);
  const entryOf = new Map(USS.facts.entries.map((entry) => [entry.id, entry]));
  const state = { dataset: "", group: null, backbone: "", labels: "", seconds: "", text: "", protocol: "", sort: "rank", up: true, cost: "seconds_per_image", image: "", view: "", open: new Set() };

  // -- small helpers: everything that comes from data becomes text or an attribute, never markup ----------------
  const make = (name, attributes = {}, ...children) => {
    const element = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  };
  const known = (value) => typeof value === "number" && Number.isFinite(value);
  const score = (value) => value.toFixed(3);
  const signed = (value) => (value < 0 ? "−" : "+") + (Math.abs(value) < 0.0005 ? Math.abs(value).toPrecision(1) : Math.abs(value).toFixed(3));
  const amount = (value) => (value < 9.95 ? value.toPrecision(2) : value.toFixed(0));
  const costOf = (entry, what) => { const found = ((costs[entry] || {})[state.dataset] || {})[what]; return known(found) ? found : null; };
  const scrolled = (label, ...children) => make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label }, ...children);
  const chip = (kind, text) => make("span", { class: "chip " + kind }, text);
  const options = (select, pairs, chosen) => {
    select.replaceChildren(...pairs.map(([value, text]) => make("option", { value }, text)));
    select.value = pairs.some(([value]) => value === chosen) ? chosen : pairs[0][0];
  };
  const loading = new Map();
  const load = (path) => {
    if (!loading.has(path)) {
      loading.set(path, new Promise((resolve, reject) => {
        const script = make("script", { src: path });
        script.addEventListener("load", resolve);
        script.addEventListener("error", reject);
        document.head.append(script);
      }));
    }
    return loading.get(path);
  };

  // -- what is shown -----------------------------------------------------------------------------------------
  const board = () => (USS.boards || {})[state.dataset];
  const group = () => board().groups[state.group]; // undefined for a dataset without scores
  const rowsOf = (ranking) => ranking.rows.map(([entry, value, low, high, images, rank, ranks, tied, seeds]) => ({ entry, value, low, high, images, rank, ranks, tied, seeds }));
  const unranked = () => USS.facts.entries.filter(({ id }) => board().pictures.some((picture) => picture.entries[id])).map(({ id }) => ({ entry: id, value: null }));
  const shown = () => (group() ? sorted(rowsOf(group()).filter(fits)) : unranked().filter(fits));
  const fits = (row) => {
    const facts = entryOf.get(row.entry);
    const seconds = costOf(row.entry, "seconds_per_image");
    const limit = parseFloat(state.seconds);
    return (!state.backbone || (facts.backbone || "none") === state.backbone)
      && (!state.labels || (state.labels === "yes") === facts.supervised)
      && (!(limit >= 0) || (seconds !== null && seconds <= limit))
      && (!state.text || facts.title.toLowerCase().includes(state.text.toLowerCase()) || row.entry.includes(state.text.toLowerCase()));
  };

  // -- paired comparisons, as `uss compare` makes them ---------------------------------------------------------
  const numbers = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  };
  const pairsOf = (ranking) => (USS.pairs || {})[ranking.pairs];
  const difference = (ranking, first, second) => {
    const pairs = pairsOf(ranking);
    if (!pairs) return null;
    const [i, j] = [first, second].map((row) => pairs.entries.indexOf(row.entry));
    const half = i < 0 || j < 0 ? NaN : numbers(pairs.half)[i * pairs.entries.length + j];
    const gap = first.value - second.value;
    return known(half) ? { low: gap - half, high: gap + half } : null;
  };
  const single = (ranking, first, second) => {
    const pairs = pairsOf(ranking);
    if (!pairs || !pairs.values[first] || !pairs.values[second]) return [];
    const [a, b] = [numbers(pairs.values[first]), numbers(pairs.values[second])];
    return pairs.images.map((image, i) => ({ image, a: a[i], b: b[i], gap: (a[i] - b[i]) * (ranking.higher ? 1 : -1) })).filter((d) => Number.isFinite(d.gap));
  };
  // Ties with the best of what is shown. Those with the best of all are known beforehand; for any other, intervals are loaded first.
  const ties = (ranking, ranked) => {
    const best = ranked[0];
    if (!best) return new Set();
    if (best.rank === 1) return new Set(ranked.filter((row) => row.tied).map((row) => row.entry));
    if (ranking.pairs && !pairsOf(ranking)) {
      load(ranking.pairs).then(() => { if (group() === ranking) render(); });
      return null;
    }
    const equal = (row) => { const d = difference(ranking, row, best); return d && d.low <= 0 && d.high >= 0; };
    return new Set(ranked.filter((row) => row.rank === best.rank || equal(row)).map((row) => row.entry));
  };

  // -- the ranking -----------------------------------------------------------------------------------------
  const axisOf = (rows) => {
    const ends = rows.flatMap((row) => [row.value, row.low, row.high]).filter(known);
    if (!ends.length) return { low: 0, high: 1, ticks: [] };
    let [low, high] = [Math.min(...ends), Math.max(...ends)];
    const pad = 0.06 * (high - low) || Math.max(Math.abs(high), 1) * 0.05;
    [low, high] = [low - pad, high + pad];
    return { low, high, ticks: ticksOf(low, high) };
  };
  const ticksOf = (low, high) => {
    let step = 10 ** Math.floor(Math.log10((high - low) / 3));
    step *= [1, 2, 5, 10].find((times) => (high - low) / (step * times) <= 4.5);
    const ticks = [];
    for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(Number((i * step).toPrecision(12)));
    return ticks;
  };
  const percent = (value, axis) => `${((value - axis.low) / (axis.high - axis.low) * 100).toFixed(2)}%`;
  const track = (row, axis) => {
    const marks = axis.ticks.map((tick) => make("i", { class: "grid", style: `left:${percent(tick, axis)}` }));
    if (known(row.value)) {
      if (known(row.low)) marks.push(make("i", { class: "whisker", style: `left:${percent(row.low, axis)};width:${((row.high - row.low) / (axis.high - axis.low) * 100).toFixed(2)}%` }));
      marks.push(make("i", { class: "dot", style: `left:${percent(row.value, axis)}` }));
    }
    return make("span", { class: "track", "aria-hidden": "true" }, ...marks);
  };
  const line = (row, axis, best, tied, several) => {
    const facts = entryOf.get(row.entry);
    const [seconds, memory] = [costOf(row.entry, "seconds_per_image"), costOf(row.entry, "peak_memory_mb")];
    const isBest = best && row.rank === best.rank;
    const isTied = !isBest && tied && tied.has(row.entry);
    const device = ((costs[row.entry] || {})[state.dataset] || {}).device;
    const number = make("span", { class: "number" }, known(row.value) ? make("b", {}, score(row.value)) : "n/a");
    if (known(row.low)) number.append(make("small", {}, `[${score(row.low)}, ${score(row.high)}]`));
    if (row.seeds) number.append(make("small", { title: "mean over seeds, and its standard deviation" }, row.seeds));
    if (several) number.append(make("small", {}, `n=${row.images}`));
    const inline = [seconds !== null ? `${amount(seconds)} s` : "", memory !== null ? `${memory.toFixed(0)} MB` : ""].filter(Boolean).join(", ");
    const title = device ? `on ${device}` : null;
    return make("tr", { class: isBest ? "best" : isTied ? "tied" : known(row.value) ? "ranked" : "absent", "data-entry": row.entry, role: "row" },
      make("td", { role: "cell", class: "rank" }, row.rank === null ? "–" : String(row.rank), row.ranks.includes("–") ? make("small", { title: `It may have any of the ranks ${row.ranks}` }, ` ${row.ranks}`) : ""),
      make("th", { role: "rowheader", scope: "row", class: "entry" },
        make("a", { href: facts.page }, facts.title),
        facts.again ? make("abbr", { title: "re-implemented from its description" }, "†") : "",
        facts.supervised ? chip("labels", "uses labels") : "",
        isBest ? chip("best", row.rank === 1 ? "best" : "best shown") : isTied ? chip("tied", "≈ best") : "",
        make("span", { class: "sub" }, facts.backbone || "no backbone", make("span", { class: "cost-inline" }, inline ? " · " + inline : ""))),
      make("td", { role: "cell", class: "score" }, make("div", { class: "line" }, number, track(row, axis))),
      make("td", { role: "cell", class: "cost", title }, seconds === null ? "–" : amount(seconds)),
      make("td", { role: "cell", class: "cost", title }, memory === null ? "–" : memory.toFixed(0)),
      make("td", { role: "cell", class: "more" }, make("button", { type: "button", class: "why", "aria-expanded": "false", "aria-label": `Why? Compare and reproduce ${facts.title}` }, "Why?")));
  };
  const sorted = (rows) => {
    const key = {
      rank: (row) => row.rank,
      entry: (row) => entryOf.get(row.entry).title,
      value: (row) => row.value,
      seconds_per_image: (row) => costOf(row.entry, "seconds_per_image"),
      peak_memory_mb: (row) => costOf(row.entry, "peak_memory_mb"),
    }[state.sort];
    const sign = state.up ? 1 : -1;
    return [...rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null); // what is not known comes last, either way
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
  };
  const finding = (ranking, ranked, tied, filtered) => {
    if (!ranked.length) return "No entry fits these filters.";
    const best = ranked.filter((row) => row.rank === ranked[0].rank);
    const names = (rows) => rows.map((row) => entryOf.get(row.entry).title).join(", ");
    const among = filtered ? `Best of the ${ranked.length} shown` : "Best";
    if (ranked.length === 1) return `Only ${names(ranked)} ${filtered ? "fits these filters" : "was run"}.`;
    let said = `${among}: ${names(best)}.`;
    if (tied) {
      const others = ranked.filter((row) => tied.has(row.entry)).length - best.length;
      if (others > 0) said += ` ${others} other${others > 1 ? "s" : ""} cannot be told apart from it on these images.`;
      else if (ranked.length > best.length && ranked.every((row) => known(row.low))) said += ` ${best.length > 1 ? "Their" : "Its"} lead over every other entry is clear at 95 %, all pairs judged together.`;
    }
    const without = ranked.filter((row) => !entryOf.get(row.entry).supervised);
    if (best.every((row) => entryOf.get(row.entry).supervised) && without.length) said += ` Best without labels: ${names([without[0]])}.`;
    return said;
  };

  // What the metric measures, and a way to one that compares entries at about the same number of regions.
  const definition = (ranking) => {
    const equal = board().groups.find((g) => g.metric === ranking.equal);
    if (!equal) return [ranking.line];
    const most = "Every entry may use all its regions, so one with more regions has an advantage. At about the same number of regions: ";
    return [`${ranking.line} ${most}`, make("a", { href: address({ metric: equal.metric, way: wayOf(equal), protocol: "" }) }, equal.title), "."];
  };

  const render = () => {
    const ranking = group();
    if (!ranking) {
      looks(shown());
      return;
    }
    const all = rowsOf(ranking);
    const rows = all.filter(fits);
    const ranked = rows.filter((row) => row.rank !== null).sort((a, b) => a.rank - b.rank);
    const tied = ties(ranking, ranked);
    const axis = axisOf(rows);
    const dataset = USS.facts.datasets.find((one) => one.id === state.dataset);
    const several = new Set(rows.map((row) => row.images)).size > 1;
    byId("ranking-title").replaceChildren(`${ranking.title} `, ranking.oracle ? chip("oracle", "oracle") : "", make("span", { class: "on" }, "on ", make("a", { href: dataset.page }, dataset.title)));
    byId("definition").replaceChildren(...definition(ranking));
    byId("finding").textContent = finding(ranking, ranked, tied, rows.length < all.length);
    const counts = rows.map((row) => row.images);
    const images = rows.length ? (several ? `${Math.min(...counts)} to ${Math.max(...counts)} images` : `${counts[0]} images`) : "";
    const unknown = state.seconds ? all.filter((row) => costOf(row.entry, "seconds_per_image") === null).length : 0;
    byId("facts").textContent = [ranking.higher ? "Higher is better" : "Lower is better", ranking.convention, images,
      rows.length < all.length ? `${rows.length} of ${all.length} entries shown` : "", unknown ? `${unknown} without a known time left out` : ""].filter(Boolean).join(" · ");
    byId("caption").textContent = `${ranking.title} on ${dataset.title}`;
    byId("axis").replaceChildren(...axis.ticks.map((tick) => make("span", { style: `left:${percent(tick, axis)}` }, String(tick))));
    byId("rows").replaceChildren(...sorted(rows).map((row) => line(row, axis, ranked[0], tied, several)));
    unfold();
    for (const head of byId("heads").cells) {
      const button = head.querySelector("button");
      if (button && button.dataset.sort === state.sort) head.setAttribute("aria-sort", state.up ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
    published(ranking);
    plot = () => pareto(ranking, ranked, tied);
    plot();
    looks(sorted(rows));
  };

  // -- why a row stands where it does, and how to make it again ------------------------------------------------
  const commandBox = (text) => make("div", { class: "command" }, make("pre", { tabindex: "0" }, make("code", {}, text)), make("button", { type: "button", class: "copy" }, "Copy"));
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`);
  const explorer = (image, entries) => `explorer.html#d=${encodeURIComponent(state.dataset)}&i=${encodeURIComponent(image)}&e=${entries.map(encodeURIComponent).join(",")}`;
  const explain = (row, ranked) => {
    const ranking = group();
    const other = ranked.find((one) => one.entry !== row.entry);
    const me = entryOf.get(row.entry);
    const parts = [];
    if (other && row.rank !== null) {
      const them = entryOf.get(other.entry);
      const span = difference(ranking, row, other);
      const gap = row.value - other.value;
      const tied = span && span.low <= 0 && span.high >= 0;
      const better = gap * (ranking.higher ? 1 : -1) > 0;
      const interval = span ? ` (interval of the paired difference ${signed(span.low)} to ${signed(span.high)}, judged with all pairs of ${pairsOf(ranking).entries.length} entries)` : "";
      parts.push(make("h3", {}, `Against ${them.title}`),
        make("p", {}, `${ranking.title}: ${signed(gap)}${interval}. `, make("b", {}, !span ? "Without replicates, or on one image, nothing can be said about chance." : tied ? "They cannot be told apart on these images." : better ? "Better, at 95 % confidence." : "Worse, at 95 % confidence.")));
      const apart = single(ranking, row.entry, other.entry);
      if (apart.length) {
        const [wins, losses] = [apart.filter((d) => d.gap > 0).length, apart.filter((d) => d.gap < 0).length];
        const of = pairsOf(ranking).of > apart.length ? ` (of ${pairsOf(ranking).of})` : "";
        parts.push(make("p", {}, `Better on ${wins}, worse on ${losses} of ${apart.length} images${of}.`), strip(apart, me.title, them.title));
        const far = [...apart].sort((a, b) => a.gap - b.gap);
        const shown = [...new Map([...far.slice(0, 2), ...far.slice(-2).reverse()].map((d) => [d.image, d])).values()];
        const drawn = board().explored;
        parts.push(scrolled("Images on which they differ most", make("table", { class: "plain" }, make("caption", { class: "hidden" }, "Images on which they differ most"),
          make("thead", {}, make("tr", {}, ...["Differ most on", me.title, them.title, "See both"].map((t) => make("th", { scope: "col" }, t)))),
          make("tbody", {}, ...shown.map((d) => make("tr", {}, make("th", { scope: "row" }, d.image), make("td", {}, score(d.a)), make("td", {}, score(d.b)),
            make("td", {}, (drawn[d.image] || []).length ? make("a", { href: explorer(d.image, [row.entry, other.entry].filter((e) => drawn[d.image].includes(e))) }, "explorer") : "–")))))));
      }
      const also = board().groups.filter((g) => !g.detail && g !== ranking).map((g) => [g, ...[row.entry, other.entry].map((e) => (g.rows.find((r) => r[0] === e) || [])[1])]).filter(([, a, b]) => known(a) && known(b));
      if (also.length) {
        parts.push(make("details", {}, make("summary", {}, `On ${also.length} other metrics`), scrolled("Other metrics", make("table", { class: "plain" }, make("caption", { class: "hidden" }, "Other metrics"),
          make("thead", {}, make("tr", {}, ...["Metric", me.title, them.title, "Difference"].map((t) => make("th", { scope: "col" }, t)))),
          make("tbody", {}, ...also.map(([g, a, b]) => make("tr", {}, make("th", { scope: "row" }, g.title, make("span", { class: "sub" }, g.convention)), make("td", {}, score(a)), make("td", {}, score(b)), make("td", {}, `${signed(a - b)} ${a === b ? "" : (a > b) === g.higher ? "better" : "worse"}`))))))));
      }
    }
    const first = board().pictures[0];
    const links = [make("a", { href: me.page }, "Everything about this entry")];
    if (first && first.entries[row.entry]) links.push(make("a", { href: explorer(first.id, [row.entry, ...(other && first.entries[other.entry] ? [other.entry] : [])]) }, other ? "Both in the explorer" : "In the explorer"));
    parts.push(make("h3", {}, "Reproduce this row"), commandBox(`uss repro ${quoted(`scores/${row.entry}/${state.dataset}`)}`), make("p", { class: "links" }, ...links));
    return make("tr", { class: "detail", role: "row" }, make("td", { role: "cell", colspan: String(columns()) }, make("div", { class: "explained" }, ...parts)));
  };
  // Narrow windows show costs below the names, in fewer columns.
  const columns = () => [...byId("heads").cells].filter((cell) => cell.offsetWidth).length;
  const unit = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 16;
  let [shape, plot] = [0, () => {}];
  addEventListener("resize", () => {
    for (const cell of document.querySelectorAll("tr.detail > td")) cell.colSpan = columns();
    if (byId("pareto").clientWidth !== shape) plot();
  });
  const strip = (apart, mine, theirs) => {
    const [width, height] = [Math.min(640, (innerWidth - 80) / unit()), 54];
    const reach = Math.max(...apart.map((d) => Math.abs(d.gap))) || 1;
    const x = (gap) => width / 2 + gap / reach * (width / 2 - 10);
    const rows = new Map();
    const dots = [...apart].sort((a, b) => a.gap - b.gap).map((d) => {
      const column = Math.round(x(d.gap) / 7);
      const level = rows.get(column) || 0;
      rows.set(column, level + 1);
      return make("svg:circle", { cx: x(d.gap).toFixed(1), cy: (height - 24 - (level % 5) * 5).toFixed(1), r: "3", class: d.gap > 0 ? "win" : "loss" });
    });
    const text = (at, anchor, words) => make("svg:text", { x: at, y: height - 3, "text-anchor": anchor }, words);
    return make("svg:svg", { class: "strip", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Each dot is an image: right of the line ${mine} is better, left of it ${theirs}.` },
      make("svg:line", { x1: width / 2, x2: width / 2, y1: 2, y2: height - 14 }), ...dots, text(4, "start", "← worse, image by image"), text(width - 4, "end", "better →"));
  };
  // Explanations stay open while the table is sorted or filtered; they wait for what they need.
  const unfold = () => {
    const ranking = group();
    const closed = [...byId("rows").children].filter((row) => state.open.has(row.dataset.entry) && !row.nextElementSibling?.classList.contains("detail"));
    if (!closed.length) return;
    if (ranking.pairs && !pairsOf(ranking)) { load(ranking.pairs).then(() => { if (group() === ranking) unfold(); }); return; }
    const all = rowsOf(ranking);
    const shown = all.filter(fits).filter((one) => one.rank !== null).sort((a, b) => a.rank - b.rank);
    for (const row of closed) {
      row.querySelector(".why").setAttribute("aria-expanded", "true");
      row.after(explain(all.find((one) => one.entry === row.dataset.entry), shown));
    }
  };
  byId("rows").addEventListener("click", (event) => {
    const button = event.target.closest(".why");
    if (!button) return;
    const row = button.closest("tr");
    if (!state.open.delete(row.dataset.entry)) {
      state.open.add(row.dataset.entry);
      unfold();
      return;
    }
    button.setAttribute("aria-expanded", "false");
    if (row.nextElementSibling?.classList.contains("detail")) row.nextElementSibling.remove();
  });

  // -- figures of papers: apart, in another dress, and ranked with nothing ----------------------------------------
  const published = (ranking) => {
    const rows = board().published.filter((row) => known(row.values[ranking.metric]));
    if (!rows.length) { byId("published").replaceChildren(); return; }
    byId("published").replaceChildren(make("div", { class: "published" }, make("h3", {}, "Published figures, not measured here"),
      make("p", {}, `${ranking.title} as papers report it. Other images, sizes or post-processing may lie behind it, so these rank nothing.`),
      scrolled("Published figures", make("table", { class: "plain" }, make("caption", { class: "hidden" }, `Published figures for ${ranking.title}`),
        make("thead", {}, make("tr", {}, ...["Published", ranking.title, "Source and setting"].map((t) => make("th", { scope: "col" }, t)))),
        make("tbody", {}, ...rows.map((row) => make("tr", {}, make("th", { scope: "row" }, make("i", {}, row.title), row.supervised ? chip("labels", "uses labels") : ""), make("td", {}, make("i", {}, score(row.values[ranking.metric]))), make("td", {}, `${row.source}; ${row.setting}`))))))));
  };

  // -- quality and cost ----------------------------------------------------------------------------------------
  const pareto = (ranking, ranked, tied) => {
    const what = state.cost;
    const points = ranked.map((row) => ({ ...row, cost: costOf(row.entry, what) })).filter((row) => row.cost !== null && row.cost > 0);
    byId("pareto-tools").hidden = !points.length;
    if (!points.length) {
      byId("pareto-facts").textContent = ranked.length ? "No cost of these entries is known on this machine." : "";
      byId("pareto").replaceChildren();
      return;
    }
    const sign = ranking.higher ? 1 : -1;
    const front = new Set();
    let reached = -Infinity;
    for (const point of [...points].sort((a, b) => a.cost - b.cost || sign * (b.value - a.value))) {
      if (sign * point.value > reached) { front.add(point.entry); reached = sign * point.value; }
    }
    const missing = ranked.length - points.length;
    byId("pareto-facts").textContent = `${front.size} of ${points.length} entries are on the front: nothing shown is both cheaper and better. ${what === "seconds_per_image" ? "Seconds" : "Memory"} as measured on this machine, in no rank.` + (missing ? ` ${missing} without a known cost are not drawn.` : "");
    shape = byId("pareto").clientWidth;
    const width = Math.max(280, shape / unit());
    const [height, left, right, top, bottom] = [Math.min(440, Math.max(300, 0.7 * width)), 46, 16, 14, 44];
    const ends = points.map((p) => Math.log10(p.cost));
    let [from, to] = [Math.min(...ends), Math.max(...ends)];
    const room = Math.max((to - from) * 0.12, 0.12);
    [from, to] = [from - room, to + room];
    const axis = axisOf(points);
    const x = (cost) => left + (Math.log10(cost) - from) / (to - from) * (width - left - right);
    const y = (value) => height - bottom - (value - axis.low) / (axis.high - axis.low) * (height - top - bottom);
    const drawing = [];
    const text = (attributes, words) => make("svg:text", attributes, words);
    for (const tick of axis.ticks) drawing.push(make("svg:line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }), text({ x: left - 7, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
    let marks = 0;
    for (let power = Math.floor(from); power <= Math.ceil(to); power++) for (const times of to - from > 2.2 ? [1] : to - from > 1 ? [1, 3] : [1, 2, 5]) {
      const cost = times * 10 ** power;
      if (Math.log10(cost) < from || Math.log10(cost) > to) continue;
      marks++;
      drawing.push(make("svg:line", { class: "grid", x1: x(cost), x2: x(cost), y1: top, y2: height - bottom }), text({ x: x(cost), y: height - bottom + 17, "text-anchor": "middle" }, String(Number(cost.toPrecision(2)))));
    }
    drawing.push(text({ x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle", class: "label" }, (what === "seconds_per_image" ? "seconds an image" : "peak memory, MB") + (marks > 1 ? " (logarithmic)" : "") + ", less is better"));
    const steps = points.filter((p) => front.has(p.entry)).sort((a, b) => a.cost - b.cost);
    let path = "";
    steps.forEach((p, i) => { path += i ? `H${x(p.cost).toFixed(1)}V${y(p.value).toFixed(1)}` : `M${x(p.cost).toFixed(1)},${y(p.value).toFixed(1)}`; });
    drawing.push(make("svg:path", { class: "front", d: path + `H${width - right}` }));
    const taken = [];
    const clear = (box) => box[0] >= left && box[2] <= width - 2 && taken.every((b) => box[2] < b[0] || b[2] < box[0] || box[3] < b[1] || b[3] < box[1]);
    for (const p of points) taken.push([x(p.cost) - 6, y(p.value) - 6, x(p.cost) + 6, y(p.value) + 6]);
    for (const p of [...points].sort((a, b) => front.has(b.entry) - front.has(a.entry) || a.rank - b.rank)) {
      const facts = entryOf.get(p.entry);
      const kind = front.has(p.entry) ? "on-front" : "off-front";
      const short = facts.title.length > 28 ? facts.title.slice(0, 27) + "…" : facts.title;
      const about = `${facts.title}: ${ranking.title} ${score(p.value)}, ${amount(p.cost)} ${what === "seconds_per_image" ? "s an image" : "MB"}${front.has(p.entry) ? ", on the front" : ""}`;
      const parts = [make("svg:title", {}, about)];
      if (known(p.low)) parts.push(make("svg:line", { class: "bar", x1: x(p.cost), x2: x(p.cost), y1: y(p.low), y2: y(p.high) }));
      parts.push(make("svg:circle", { cx: x(p.cost), cy: y(p.value), r: "6", class: tied && tied.has(p.entry) ? "tied-dot" : "dot" }));
      const long = short.length * 6.6;
      const places = [[x(p.cost) + 10, y(p.value) + 4, "start"], [x(p.cost) - 10, y(p.value) + 4, "end"], [x(p.cost) + 8, y(p.value) - 9, "start"], [x(p.cost) - 8, y(p.value) - 9, "end"], [x(p.cost) + 8, y(p.value) + 17, "start"], [x(p.cost) - 8, y(p.value) + 17, "end"]];
      for (const [at, down, anchor] of places) {
        const box = anchor === "start" ? [at, down - 11, at + long, down + 3] : [at - long, down - 11, at, down + 3];
        if (!clear(box)) continue;
        taken.push(box);
        parts.push(text({ x: at, y: down, "text-anchor": anchor, class: "name" }, short));
        break;
      }
      drawing.push(make("svg:a", { href: facts.page, class: kind }, ...parts));
    }
    byId("pareto").replaceChildren(make("svg:svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": `${ranking.title} against cost, ${points.length} entries` }, ...drawing));
  };
  byId("save-plot").addEventListener("click", () => {
    const drawn = byId("pareto").querySelector("svg");
    const copy = drawn.cloneNode(true);
    const kept = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family", "font-weight"];
    const from = [drawn, ...drawn.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
      const style = getComputedStyle(from[i]);
      for (const name of kept) element.setAttribute(name, style.getPropertyValue(name));
    });
    for (const link of copy.querySelectorAll("a")) link.replaceWith(...link.childNodes);
    copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
    const address = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" }));
    make("a", { href: address, download: `${state.dataset}-${group().metric}-${state.cost}.svg` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });

  // -- pictures ------------------------------------------------------------------------------------------------
  const MOST_PICTURES = 12;
  const KEYS = [
    "About the same number of regions of each entry, the first that its hierarchy opens; an entry without a hierarchy is shown whole. One thing has one colour in all pictures. Grey: in no region.",
    "All boundaries of an entry, wide and dark where they appear early as its hierarchy is opened from the top.",
    "For each region of the ground truth, the one region of the entry that matches it best (highest IoU), in its colour: what NMCovering counts. Grey: part of no best match.",
  ];
  const looks = (rows) => {
    const pictures = board().pictures;
    byId("looks").hidden = !pictures.length;
    if (!pictures.length) return;
    const image = pictures.find((picture) => picture.id === state.image) || pictures[0];
    byId("image").value = String(pictures.indexOf(image));
    const hasMatches = image.truth !== null;
    byId("view").querySelector("[value='2']").hidden = byId("view").querySelector("[value='2']").disabled = !hasMatches;
    const view = state.view !== "" && (hasMatches || state.view !== "2") ? Number(state.view) : hasMatches ? 2 : 0;
    byId("view").value = String(view);
    const [height, width] = image.size;
    const figure = (path, title, below, link) => {
      const picture = make("img", { src: path, width, height, loading: "lazy", alt: `${title}, image ${image.id}` });
      return make("figure", {}, link ? make("a", { href: link }, picture) : picture, make("figcaption", {}, make("b", {}, title), below ? ` ${below}` : ""));
    };
    const scores = (group() && image.scores[state.group]) || {};
    const about = ({ entry }) => {
      const [regions, matched] = image.counts[entry];
      const drawn = view === 2 ? `${matched} of its ${regions} regions` : `${regions} region${regions === 1 ? "" : "s"} in all`;
      return [known(scores[entry]) ? `${score(scores[entry])} on this image` : "", drawn].filter(Boolean).join(" · ");
    };
    const found = rows.filter((row) => image.entries[row.entry]);
    const first = found.slice(0, MOST_PICTURES);
    const order = group() ? "Entries in the order of the table" : "Nothing is scored here: there is no ground truth for these images. Entries by name";
    byId("looks-facts").textContent = `Images are evenly spaced in the sorted ids; nobody picked them. ${order}${found.length > first.length ? `, the first ${first.length} of ${found.length}` : ""}. A picture opens the explorer.`;
    byId("looks-key").textContent = KEYS[view];
    byId("pictures").replaceChildren(figure(image.photo, "Photo", image.id), ...(image.truth ? [figure(image.truth[view], "Ground truth")] : []),
      ...first.map((row) => figure(image.entries[row.entry][view], entryOf.get(row.entry).title, about(row), explorer(image.id, [row.entry]))));
  };

  // -- all metrics ---------------------------------------------------------------------------------------------
  const overview = () => {
    if (!byId("all").open) { byId("all-table").replaceChildren(); return; }
    const groups = board().groups.filter((g) => !g.detail);
    const found = groups.map((g) => new Map(rowsOf(g).map((row) => [row.entry, row])));
    const order = [...new Set(groups.flatMap((g) => g.rows.map((row) => row[0])))];
    const cell = (row) => !row ? make("td", {}, "–") : !known(row.value) ? make("td", {}, "n/a")
      : make("td", { class: row.rank === 1 ? "best" : row.tied ? "tied" : null }, `${row.tied && row.rank !== 1 ? "≈ " : ""}${score(row.value)}`, known(row.low) ? make("small", {}, ` ±${score((row.high - row.low) / 2)}`) : "");
    byId("all-table").replaceChildren(make("p", { class: "facts" }, "Each column is ranked by itself, within its own protocol; there is no total. Bold: best of its column; ≈: not told apart from it."),
      scrolled("All metrics, scrolls sideways", make("table", { class: "overview" }, make("caption", { class: "hidden" }, "All metrics"),
        make("thead", {}, make("tr", {}, make("th", { scope: "col", class: "entry" }, "Entry"), ...groups.map((g) => make("th", { scope: "col" }, g.title, make("small", {}, `${g.oracle ? "oracle, " : ""}${g.higher ? "higher" : "lower"} is better`))))),
        make("tbody", {}, ...order.map((entry) => make("tr", {}, make("th", { scope: "row", class: "entry" }, entryOf.get(entry).title), ...found.map((rows) => cell(rows.get(entry)))))))));
  };

  // -- controls ------------------------------------------------------------------------------------------------
  // One metric may be ranked in several ways, by protocol and grid.
  const ways = (g) => board().groups.filter((other) => other.title === g.title).length > 1;
  const wayOf = (g) => (g && ways(g) ? `${g.protocol}, ${g.grid}` : "");
  const metricOptions = (wanted, way) => {
    const groups = board().groups.map((g, i) => [g, String(i)]).filter(([g]) => !state.protocol || g.protocol === state.protocol);
    const option = ([g, i]) => make("option", { value: i }, g.title + (ways(g) ? ` (${g.protocol}${g.grid === "full" ? "" : `, grid ${g.grid}`})` : ""));
    const families = [...new Set(groups.map(([g]) => g.family))];
    const parts = [false, true].flatMap((detail) => families.map((family) => [detail ? `${family}: details` : family, groups.filter(([g]) => g.family === family && g.detail === detail)])).filter(([, some]) => some.length);
    byId("metric").replaceChildren(...parts.map(([label, some]) => make("optgroup", { label }, ...some.map(option))));
    const found = groups.find(([g]) => g.metric === wanted && wayOf(g) === way) || groups.find(([g]) => g.metric === wanted) || parts[0][1][0];
    byId("metric").value = found[1];
    state.group = Number(found[1]);
  };
  const choose = async (dataset, metric, way = "") => {
    const facts = USS.facts.datasets.find((one) => one.id === dataset) || USS.facts.datasets[0];
    if (!(USS.boards || {})[facts.id]) await load(facts.board);
    if (state.dataset !== facts.id) state.open.clear();
    state.dataset = facts.id;
    byId("dataset").value = facts.id;
    const protocols = [...new Set(board().groups.map((g) => g.protocol))];
    options(byId("protocol"), [["", "any, one at a time"], ...protocols.map((p) => [p, p])], state.protocol);
    state.protocol = byId("protocol").value;
    options(byId("image"), board().pictures.length ? board().pictures.map((p, i) => [String(i), p.id]) : [["0", "–"]], "0");
    const ranked = board().groups.length > 0;
    byId("controls").hidden = false;
    byId("boards").hidden = !ranked && !board().pictures.length;
    for (const part of [byId("ranked"), byId("all"), ...["metric", "protocol"].map((name) => byId(name).parentElement)]) part.hidden = !ranked;
    if (ranked) metricOptions(metric, way);
    else state.group = null;
    overview();
    render();
  };
  // The address keeps what was chosen, so that a view can be passed on. Each choice is a step of the browser's history; typing is none.
  const address = (changes = {}) => {
    const now = { ...state, metric: group()?.metric, way: wayOf(group()), ...changes };
    const order = now.sort === "rank" && now.up ? "" : (now.up ? "" : "-") + now.sort;
    const cost = now.cost === "seconds_per_image" ? "" : now.cost;
    const kept = { d: now.dataset, m: now.metric, w: now.way, p: now.protocol, b: now.backbone, l: now.labels, s: now.seconds, q: now.text, o: order, c: cost, i: now.image, v: now.view };
    return "#" + Object.entries(kept).filter(([, value]) => value).map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  };
  const remember = (step) => {
    const hash = address();
    if (hash === location.hash) return;
    try { history[step ? "pushState" : "replaceState"](null, "", hash); } catch { /* some viewers of local files refuse */ }
  };
  const show = () => { render(); remember(true); };
  const recall = () => {
    const given = Object.fromEntries(location.hash.slice(1).split("&").map((part) => part.split("=")).filter((part) => part.length === 2).map(([key, value]) => {
      try { return [key, decodeURIComponent(value)]; } catch { return [key, ""]; }
    }));
    const backbones = [...new Set(USS.facts.entries.map((entry) => entry.backbone || "none"))].sort();
    options(byId("backbone"), [["", "any"], ...backbones.map((name) => [name, name])], given.b || "");
    byId("labels").value = given.l === "yes" || given.l === "no" ? given.l : "";
    byId("seconds").value = given.s || "";
    byId("text").value = given.q || "";
    const order = (given.o || "rank").replace(/^-/, "");
    const sort = [...byId("heads").querySelectorAll("button")].some((button) => button.dataset.sort === order) ? order : "rank";
    byId("cost").value = given.c === "peak_memory_mb" ? given.c : "seconds_per_image";
    Object.assign(state, { protocol: given.p || "", backbone: byId("backbone").value, labels: byId("labels").value, seconds: byId("seconds").value, text: byId("text").value,
      sort, up: !(given.o || "").startsWith("-"), cost: byId("cost").value, image: given.i || "", view: ["0", "1", "2"].includes(given.v) ? given.v : "" });
    return choose(given.d, given.m, given.w).then(() => remember(false));
  };
  if (!USS.facts.datasets.length) {
    byId("finding").textContent = "No scores yet.";
    byId("boards").hidden = false;
    for (const part of document.querySelectorAll(".ranking, .cost-board, #all")) part.hidden = true;
    return;
  }
  const controls = byId("controls");
  options(byId("dataset"), USS.facts.datasets.map((one) => [one.id, one.title + (one.images ? ` (${one.images} images)` : "")]), "");
  controls.addEventListener("submit", (event) => event.preventDefault());
  byId("dataset").addEventListener("change", () => { state.image = ""; choose(byId("dataset").value, group()?.metric, wayOf(group())).then(() => remember(true)); });
  byId("metric").addEventListener("change", () => { state.group = Number(byId("metric").value); show(); });
  byId("protocol").addEventListener("change", () => { state.protocol = byId("protocol").value; metricOptions(group().metric, wayOf(group())); show(); });
  for (const name of ["backbone", "labels"]) byId(name).addEventListener("change", () => { state[name] = byId(name).value; show(); });
  for (const name of ["seconds", "text"]) byId(name).addEventListener("input", () => {
    const begins = !state[name];
    state[name] = byId(name).value;
    render();
    remember(begins);
  });
  controls.addEventListener("reset", () => setTimeout(() => {
    Object.assign(state, { protocol: "", backbone: "", labels: "", seconds: "", text: "" });
    choose(state.dataset, group()?.metric, wayOf(group())).then(() => remember(true));
  }));
  byId("heads").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const same = state.sort === button.dataset.sort;
    state.up = same ? !state.up : button.dataset.sort !== "value" || !group().higher;
    state.sort = button.dataset.sort;
    show();
  });
  byId("cost").addEventListener("change", () => { state.cost = byId("cost").value; plot(); remember(true); });
  byId("image").addEventListener("change", () => { state.image = board().pictures[Number(byId("image").value)].id; looks(shown()); remember(true); });
  byId("view").addEventListener("change", () => { state.view = byId("view").value; looks(shown()); remember(true); });
  byId("all").addEventListener("toggle", overview);
  addEventListener("popstate", recall); // Back, Forward, and links to other views of this page
  recall();
})();
