"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (name, attributes = {}, ...children) => {
    const element = name.startsWith("svg:") ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== ""));
    return element;
  };
  const said = window.USS_HISTORY || { versions: [], groups: [], titles: {}, changes: [] };
  const none = byId("history-none");
  const lacking = said.versions.filter((version) => !version.known);
  const fetchIt = "git and DVC's cache hold the numbers of earlier versions; “dvc fetch --all-commits leaderboard”, then “uss history”, brings them here.";
  if (!said.groups.length) {
    none.hidden = false;
    none.textContent = said.versions.length ? `${said.versions.length} versions are recorded, but their numbers are not on this machine: ${fetchIt}` : "No earlier leaderboard is known here: this page reads history.js, which “uss history” writes beside the site's folder.";
    return;
  }
  if (lacking.length) {
    none.hidden = false;
    none.textContent = `The numbers of ${lacking.length} of ${said.versions.length} versions are not on this machine: ${fetchIt}`;
  }
  byId("history").hidden = false;
  const titleOf = (entry) => said.titles[entry] || entry;
  const score = (value) => value.toFixed(3);
  const datasets = [...new Set(said.groups.map((group) => group.dataset))];
  byId("dataset").replaceChildren(...datasets.map((name) => make("option", { value: name }, name)));
  const groupsOf = (dataset) => said.groups.filter((group) => group.dataset === dataset);
  const metrics = () => byId("metric").replaceChildren(...groupsOf(byId("dataset").value).map((group, i) => make("option", { value: String(i) }, `${group.title} (${group.protocol}${group.grid === "full" ? "" : `, grid ${group.grid}`})`)));

  // Okabe and Ito's colours without the faint yellow; dashes tell entries apart where colours do not.
  const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8c6bb1"];
  const DASHES = [null, "7 4", "2 3"];
  const MOST_LINES = 12;
  const draw = () => {
    const group = groupsOf(byId("dataset").value)[Number(byId("metric").value)];
    byId("chart-title").textContent = `${group.title} on ${group.dataset}`;
    const last = (points) => points[points.length - 1];
    const newest = Math.max(...Object.values(group.entries).map((points) => last(points)[0]));
    const order = Object.entries(group.entries).filter(([, points]) => points.some((p) => p[1] !== null))
      .sort(([, a], [, b]) => (last(b)[0] === newest) - (last(a)[0] === newest) || (last(b)[1] - last(a)[1]) * (group.higher ? 1 : -1));
    const shown = order.slice(0, MOST_LINES);
    byId("chart-facts").textContent = `${group.higher ? "Higher is better" : "Lower is better"} · ${group.convention} · bars: 95 % intervals${order.length > shown.length ? ` · the first ${shown.length} of ${order.length} entries` : ""}`;
    const steps = [...new Set(Object.values(group.entries).flatMap((points) => points.map((p) => p[0])))].sort((a, b) => a - b);
    const [width, height, left, right, top, bottom] = [900, 380, 48, 230, 12, 46];
    const ends = shown.flatMap(([, points]) => points.flatMap((p) => p.slice(1))).filter((v) => v !== null);
    let [low, high] = [Math.min(...ends), Math.max(...ends)];
    const pad = 0.06 * (high - low) || 0.05;
    [low, high] = [low - pad, high + pad];
    const x = (version) => left + (steps.length < 2 ? 0.5 : steps.indexOf(version) / (steps.length - 1)) * (width - left - right);
    const y = (value) => height - bottom - (value - low) / (high - low) * (height - top - bottom);
    const parts = [];
    let step = 10 ** Math.floor(Math.log10((high - low) / 3));
    step *= [1, 2, 5, 10].find((times) => (high - low) / (step * times) <= 4.5);
    for (let i = Math.ceil(low / step); i * step <= high; i++) {
      const at = y(i * step);
      parts.push(make("svg:line", { class: "grid", x1: left, x2: width - right, y1: at, y2: at }), make("svg:text", { x: left - 7, y: at + 4, "text-anchor": "end" }, String(Number((i * step).toPrecision(6)))));
    }
    const every = Math.ceil(steps.length / 8);
    steps.forEach((version, i) => {
      if (i % every && i !== steps.length - 1) return;
      const facts = said.versions[version];
      parts.push(make("svg:text", { x: x(version), y: height - bottom + 18, "text-anchor": "middle" }, facts.commit), make("svg:text", { x: x(version), y: height - bottom + 33, "text-anchor": "middle" }, facts.date));
    });
    const labels = [];
    shown.forEach(([entry, points], i) => {
      const colour = COLOURS[i % COLOURS.length];
      const drawn = points.filter((p) => p[1] !== null);
      const line = [make("svg:title", {}, `${titleOf(entry)}: ${drawn.map((p) => `${said.versions[p[0]].commit} ${score(p[1])}`).join(", ")}`)];
      line.push(make("svg:path", { d: drawn.map((p, n) => `${n ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(""), stroke: colour, "stroke-dasharray": DASHES[Math.floor(i / COLOURS.length) % DASHES.length] }));
      for (const p of drawn) {
        if (p[2] !== null) line.push(make("svg:line", { x1: x(p[0]), x2: x(p[0]), y1: y(p[2]), y2: y(p[3]), stroke: colour, "stroke-opacity": "0.45" }));
        line.push(make("svg:circle", { cx: x(p[0]), cy: y(p[1]), r: "4", fill: colour }));
      }
      parts.push(make("svg:g", { class: "lines" }, ...line));
      labels.push({ at: y(last(drawn)[1]), from: x(last(drawn)[0]), text: titleOf(entry), colour });
    });
    labels.sort((a, b) => a.at - b.at);
    let floor = top;
    for (const label of labels) { label.to = Math.max(label.at, floor); floor = label.to + 15; }
    const over = Math.max(0, floor - 15 - (height - bottom));
    for (const label of labels) {
      label.to -= over * (label.to - top) / Math.max(1, floor - 15 - top);
      const words = label.text.length > 30 ? label.text.slice(0, 29) + "…" : label.text;
      parts.push(make("svg:path", { d: `M${label.from + 6},${label.at}L${width - right + 16},${label.to}`, stroke: label.colour, "stroke-opacity": "0.5", fill: "none" }),
        make("svg:text", { class: "name", x: width - right + 20, y: label.to + 4 }, words));
    }
    byId("chart").replaceChildren(make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": "Scores by version" },
      make("svg:svg", { class: "plot wide-plot", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${group.title} of ${shown.length} entries over ${steps.length} versions; the list below says what changed` }, ...parts)));
    list(group);
  };

  const list = (group) => {
    const value = (entry, version) => { const found = (group.entries[entry] || []).find((p) => p[0] === version); return found ? found[1] : null; };
    const before = (entry, version) => { const found = (group.entries[entry] || []).filter((p) => p[0] < version); return found.length ? found[found.length - 1][1] : null; };
    const items = said.versions.map((facts, number) => {
      const changes = said.changes.filter((change) => change.version === number && change.dataset === group.dataset);
      const rows = changes.map((change) => {
        const [was, now] = [before(change.entry, number), value(change.entry, number)];
        const moved = was !== null && now !== null ? `${score(was)} → ${score(now)}${was === now ? "" : ` (${now - was < 0 ? "−" : "+"}${Math.abs(now - was).toFixed(3)})`}` : now !== null ? score(now) : "–";
        return make("tr", {}, make("th", { scope: "row" }, titleOf(change.entry)), make("td", {}, { same: "made anew, equal" }[change.state] || change.state), make("td", {}, moved), make("td", {}, change.why.join("; ") || "–"));
      });
      const head = make("h3", {}, make("code", {}, facts.commit), ` ${facts.date} ${facts.subject}`);
      if (!facts.known) return make("li", {}, head, make("p", { class: "facts" }, "Its numbers are not on this machine."));
      const first = said.versions.findIndex((version) => version.known) === number;
      const scores = first ? Object.keys(group.entries).map((entry) => [entry, value(entry, number)]).filter(([, now]) => now !== null) : [];
      if (scores.length) {
        scores.sort(([, a], [, b]) => (b - a) * (group.higher ? 1 : -1));
        return make("li", {}, head, make("p", { class: "facts" }, "The first version whose numbers are here; later ones are compared with it."), make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": `Scores of version ${facts.commit}` }, make("table", { class: "plain" }, make("caption", { class: "hidden" }, `Scores of version ${facts.commit}`),
          make("thead", {}, make("tr", {}, ...["Entry", group.title].map((t) => make("th", { scope: "col" }, t)))), make("tbody", {}, ...scores.map(([entry, now]) => make("tr", {}, make("th", { scope: "row" }, titleOf(entry)), make("td", {}, score(now))))))));
      }
      if (!rows.length) return make("li", {}, head, make("p", { class: "facts" }, said.changes.some((change) => change.version === number) ? "Nothing on this dataset." : "Nothing that scores depend on changed."));
      return make("li", {}, head, make("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": `Changes of version ${facts.commit}` }, make("table", { class: "plain" }, make("caption", { class: "hidden" }, `Changes of version ${facts.commit}`),
        make("thead", {}, make("tr", {}, ...["Entry", "Scores", group.title, "What had changed"].map((t) => make("th", { scope: "col" }, t)))), make("tbody", {}, ...rows))));
    });
    byId("versions").replaceChildren(...items.reverse());
  };
  byId("history").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  byId("dataset").addEventListener("change", () => { metrics(); draw(); });
  byId("metric").addEventListener("change", draw);
  metrics();
  draw();
})();
