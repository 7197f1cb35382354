"use strict";

// Metric tabs. Without scripts all panels stand below each other.
for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.children];
  const show = (chosen) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    }
  };
  list.hidden = false;
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) show(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    let to = step && (tabs.indexOf(event.target) + step + tabs.length) % tabs.length;
    if (event.key === "Home") to = 0;
    if (event.key === "End") to = tabs.length - 1;
    if (to === undefined) return;
    event.preventDefault();
    show(tabs[to]);
    tabs[to].focus();
  });
  show(tabs[0]);
}

// What runs cost: from ../costs.js, which may know some, or nothing.
const costs = window.USS_COSTS || {};
const known = (value) => typeof value === "number" && Number.isFinite(value);
const seconds = (value) => (value < 9.95 ? value.toPrecision(2) : value.toFixed(0));
for (const section of document.querySelectorAll("[data-dataset]")) {
  for (const cell of section.querySelectorAll("[data-entry]")) {
    const cost = (costs[cell.dataset.entry] || {})[section.dataset.dataset] || {};
    if (cell.dataset.cost) {
      const value = cost[cell.dataset.cost];
      if (!known(value)) continue;
      cell.dataset.value = value;
      cell.textContent = cell.dataset.cost === "seconds_per_image" ? seconds(value) : value.toFixed(0);
      if (cost.device) cell.title = "on " + cost.device;
    } else {
      const parts = [];
      if (known(cost.seconds_per_image)) parts.push(seconds(cost.seconds_per_image) + " s");
      if (known(cost.peak_memory_mb)) parts.push(cost.peak_memory_mb.toFixed(0) + " MB");
      if (parts.length) cell.textContent = (cell.parentElement.textContent.trim() ? " · " : "") + parts.join(", ");
    }
  }
}

// Sorting by any column; rows without a value always come last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = button.closest("th");
    const column = heads.indexOf(head);
    const opposite = { ascending: "descending", descending: "ascending" };
    const direction = opposite[head.getAttribute("aria-sort")] || button.dataset.first;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.value;
    const body = table.tBodies[0];
    const isText = head.classList.contains("entry");
    const compare = (a, b) => (isText ? a.localeCompare(b) : Number(a) - Number(b));
    const sorted = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * compare(x, y);
    });
    body.append(...sorted);
  });
}

// Two drawings of each segmentation.
for (const box of document.querySelectorAll(".pictures")) {
  const views = box.querySelector(".views");
  views.hidden = false;
  const show = (view) => {
    for (const picture of box.querySelectorAll("img[data-lines]")) picture.src = picture.dataset[view];
    for (const key of box.querySelectorAll(".key")) key.hidden = key.dataset.for !== view;
  };
  views.addEventListener("change", (event) => show(event.target.value));
  show(views.querySelector("input:checked").value); // a reloaded page may remember the other choice
}
