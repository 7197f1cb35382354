"use strict";

// Light or dark: as the system has it, until a person chooses.
{
  const button = document.querySelector(".theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const say = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("uss-theme", root.dataset.theme); } catch { /* storage may be off */ }
    say();
    dispatchEvent(new Event("uss-theme"));
  });
  system.addEventListener("change", say);
  say();
}

// Copy buttons, also for those that scripts add later.
{
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { // pages opened from disk may not have the clipboard's interface
      const box = document.createElement("textarea");
      box.value = text;
      document.body.append(box);
      box.select();
      const done = document.execCommand("copy");
      box.remove();
      return done;
    }
  };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    const done = await copy(button.closest(".command").querySelector("code").textContent);
    button.focus();
    button.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => { button.textContent = "Copy"; }, 1600);
  });
}

// What runs cost, on the pages of entries: from costs.js, which may know some, or nothing.
for (const page of document.querySelectorAll("[data-entry]")) {
  const costs = (window.USS_COSTS || {})[page.dataset.entry] || {};
  for (const cell of page.querySelectorAll("[data-cost]")) {
    const value = (costs[cell.dataset.dataset] || {})[cell.dataset.cost];
    if (value !== null && value !== undefined) cell.textContent = String(value);
  }
}

// Two drawings of each segmentation.
for (const box of document.querySelectorAll(".pictures")) {
  const views = box.querySelector(".views");
  const show = (view) => {
    for (const picture of box.querySelectorAll("img[data-lines]")) picture.src = picture.dataset[view];
    for (const key of box.querySelectorAll(".key")) key.hidden = key.dataset.for !== view;
  };
  views.addEventListener("change", (event) => show(event.target.value));
  show(views.querySelector("input:checked").value); // a reloaded page may remember the other choice
}
