"use strict";
// What a component can do beyond being read: move the threshold, filter and sort the gallery. In the report's pages and in
// JupyterLab; shown twice, or run twice, each component is taken up once. One comparison everywhere: score > threshold.
(() => {
  const numbers = (text) => text ? text.split(" ").map(Number) : [];
  const place = (part) => part.closest(".jp-Notebook") ?? document;  // a notebook's threshold moves no other notebook's gallery
  const fresh = (kind) => [...document.querySelectorAll(`.adlib.${kind}:not([data-alive])`)].map((part) => {
    part.dataset.alive = "";
    part.querySelector(".controls").hidden = false;
    return part;
  });
  const share = (part, whole) => whole ? `${Math.round(100 * part / whole)}%` : "–";
  const short = (level) => Number.isFinite(level) ? String(Number(level.toPrecision(6))) : level < 0 ? "−∞" : "∞";

  // ---- gallery: its verdicts follow the threshold of the same score
  for (const gallery of fresh("gallery")) {
    const list = gallery.querySelector(".tiles"), tiles = [...list.children], count = gallery.querySelector("output");
    const [show, defect, order] = ["show", "defect", "order"].map((key) => gallery.querySelector(`select[data-key=${key}]`));
    const score = (tile) => Number(tile.dataset.score), holds = (tile) => tile.querySelector(".verdict:not([hidden])");
    let level = gallery.dataset.threshold ? Number(gallery.dataset.threshold) : NaN;
    const far = (tile) => Math.abs(score(tile) - level);
    const by = {down: (a, b) => score(b) - score(a), up: (a, b) => score(a) - score(b), near: (a, b) => far(a) - far(b)};
    function arrange() {
      list.append(...tiles.sort(by[order.value]));
      for (const tile of tiles) tile.hidden = !(show.value === "" || holds(tile)?.classList.contains(show.value))
        || !(!defect?.value || tile.dataset.defect === defect.value);
      count.textContent = `${tiles.filter((tile) => !tile.hidden).length} / ${tiles.length}`;
    }
    function follow(now) {
      level = now;
      for (const tile of tiles) {
        const [above, below] = tile.querySelectorAll(".verdict");
        [above.hidden, below.hidden] = [!(score(tile) > level), score(tile) > level];
      }
      arrange();
    }
    gallery.addEventListener("threshold", (event) => follow(event.detail));
    for (const select of [show, defect, order]) select?.addEventListener("change", arrange);
    const panel = [...place(gallery).querySelectorAll(".adlib.threshold[data-level]")].find((other) =>
      other.dataset.score === gallery.dataset.score);
    if (panel) follow(Number(panel.dataset.level)); else if (gallery.dataset.threshold) follow(level); else arrange();
  }

  // ---- threshold: every step of the slider takes one image across, and one is the label-free threshold itself
  for (const panel of fresh("threshold")) {
    const data = panel.dataset, good = numbers(data.good), bad = numbers(data.anomalous), levels = numbers(data.levels);
    const [slider, output, rates, svg] = ["input", "output", "select", "svg"].map((name) => panel.querySelector(name));
    const [low, high, left, right] = ["low", "high", "left", "right"].map((name) => Number(svg.dataset[name]));
    const above = (scores, level) => scores.filter((score) => score > level).length;
    const all = (level) => above(good, level) + above(bad, level);
    function show(level, step) {
      const found = above(bad, level), alarms = above(good, level);
      const counts = {found, missed: bad.length - found, false_positives: alarms, passed: good.length - alarms};
      for (const [key, count] of Object.entries(counts)) panel.querySelector(`[data-count=${key}]`).textContent = count;
      const shares = {precision: share(found, found + alarms), recall: share(found, bad.length), fpr: share(alarms, good.length)};
      for (const [key, text] of Object.entries(shares)) panel.querySelector(`[data-rate=${key}]`).textContent = text;
      const at = high > low ? (Math.min(Math.max(level, low), high) - low) / (high - low) : 0;
      svg.querySelector(".line").setAttribute("transform", `translate(${left + at * (right - left)} 0)`);
      slider.value = step ?? (levels.includes(level) ? levels.indexOf(level) : levels.findIndex((cut) => all(cut) <= all(level)));
      output.textContent = short(level);
      output.dataset.threshold = data.level = level;
      slider.setAttribute("aria-valuetext", output.textContent);
      const there = (option) => option.value !== "" && Number(option.value) === level;
      if (rates && !there(rates.selectedOptions[0])) rates.selectedIndex = Math.max(0, [...rates.options].findIndex(there));
      for (const gallery of place(panel).querySelectorAll(".adlib.gallery[data-alive]")) if (gallery.dataset.score === data.score)
        gallery.dispatchEvent(new CustomEvent("threshold", {detail: level}));
    }
    slider.addEventListener("input", () => show(levels[slider.value], slider.value));
    for (const button of panel.querySelectorAll("button")) button.addEventListener("click", () => show(Number(data[button.dataset.to])));
    rates?.addEventListener("change", () => { if (rates.value) show(Number(rates.value)); });
    panel.querySelector(".rates").setAttribute("aria-live", "polite");
    show(Number(output.dataset.threshold));
  }
})();
