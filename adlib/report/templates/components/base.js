"use strict";
// What wakes the components, in the report's pages and in JupyterLab; shown twice, or run twice, each is woken once.
// One comparison everywhere: score > threshold.
window.adlib ??= {
  kinds: {},
  place: (part) => part.closest(".jp-Notebook") ?? document,  // a notebook's threshold moves no other notebook's gallery
  numbers: (text) => text ? text.trim().split(" ").map(Number) : [],
  short: (level) => Number.isFinite(level) ? String(Number(level.toPrecision(6))) : level < 0 ? "−∞" : "∞",
  share: (part, whole) => whole ? `${Math.round(100 * part / whole)}%` : "–",
  // to be typed by hand, dragged or scrolled: none moves the page
  typing: (target) => target.closest("input, select, textarea, [role=slider], [contenteditable], .scroll"),
  wake() {
    for (const [kind, begin] of Object.entries(this.kinds))
      for (const part of document.querySelectorAll(`.adlib.${kind}:not([data-alive])`)) {
        part.dataset.alive = "";
        for (const hidden of part.querySelectorAll(".controls, .pair, .scroll")) hidden.hidden = false;
        begin(part);
      }
    this.spoken?.();  // in the page's language (page.js)
  },
};
queueMicrotask(() => adlib.wake());  // once all of this script is there
