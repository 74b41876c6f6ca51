"use strict";
// What a page can do beyond being read: the other language, sorting and filtering of tables, the threshold, the gallery.
// Without it everything is there, in the order and at the threshold of the notebook.

const each = (selector, act, within = document) => within.querySelectorAll(selector).forEach(act);
const remembered = {get: () => { try { return localStorage.getItem("adlib-lang"); } catch { return null; } },
                    set: (value) => { try { localStorage.setItem("adlib-lang", value); } catch { /* a page opened from disk may not */ } }};

// ---- language: both are in the page
function speak(lang) {
  document.documentElement.lang = lang;
  each("[lang]:not(html):not(#language)", (part) => {
    const shown = part.lang === lang;
    if (part instanceof SVGElement) part.setAttribute("visibility", shown ? "visible" : "hidden"); else part.hidden = !shown;
  });
  const swap = (part, attribute, other) => {
    part.dataset.english ??= part.getAttribute(attribute);
    part.setAttribute(attribute, lang === "zh-CN" ? other : part.dataset.english);
  };
  each("[data-alt-zh]", (part) => swap(part, "alt", part.dataset.altZh));
  each("[data-aria-zh]", (part) => swap(part, "aria-label", part.dataset.ariaZh));
  each("option[data-zh]", (part) => {
    part.dataset.english ??= part.textContent;
    part.textContent = lang === "zh-CN" ? part.dataset.zh : part.dataset.english;
  });
  const button = document.getElementById("language");
  [button.textContent, button.lang, button.hidden] = lang === "en" ? ["中文", "zh-CN", false] : ["English", "en", false];
}
const inHash = {"#en": "en", "#zh": "zh-CN"}[location.hash];
speak(inHash ?? remembered.get() ?? document.documentElement.lang);
document.getElementById("language").addEventListener("click", (event) => { speak(event.target.lang); remembered.set(document.documentElement.lang); });

// ---- menus: one open at a time
addEventListener("click", (event) => each("details.menu[open]", (menu) => { if (!menu.contains(event.target)) menu.open = false; }));
addEventListener("keydown", (event) => { if (event.key === "Escape") each("details.menu[open]", (menu) => {
  menu.open = false; menu.querySelector("summary").focus(); }); });

// ---- tables: a heading sorts, the box above filters
const shownText = (cell) => [...cell.childNodes].map((node) => node.nodeType === Node.TEXT_NODE ? node.data :
  node.hidden ? "" : shownText(node)).join("");
function value(cell) {
  const text = (cell?.dataset.value ?? (cell ? shownText(cell) : "")).trim(), number = parseFloat(text.replace("%", ""));
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}
function compare(a, b, sign) {  // empty cells stay last, whichever way
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
}
each("table.performance", (table) => {
  const body = table.tBodies[0], rows = [...body.rows];
  each("thead th", (head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.ariaSort === "descending" ? 1 : head.ariaSort === "ascending" ? -1 : typeof value(rows.find((row) =>
        value(row.cells[column]) !== null)?.cells[column]) === "number" ? -1 : 1;
      each("thead th", (other) => other.removeAttribute("aria-sort"), table);
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => compare(value(a.cells[column]), value(b.cells[column]), sign)));
    });
  }, table);
  if (rows.length < 6) return;
  const filter = document.createElement("p");
  filter.className = "controls";
  filter.innerHTML = `<label><span lang="en">Only rows with</span><span lang="zh-CN">只看含有</span> <input type="search"></label> <output></output>`;
  table.before(filter);
  const [box, count] = [filter.querySelector("input"), filter.querySelector("output")];
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/);
    rows.forEach((row) => { row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word)); });
    count.textContent = box.value && `${rows.filter((row) => !row.hidden).length} / ${rows.length}`;
  });
});

// ---- threshold: every step of the slider takes one image across
const galleries = [];
each(".threshold", (panel) => {
  const list = (text) => text ? text.split(" ").map(Number) : [];
  const good = list(panel.dataset.good), bad = list(panel.dataset.anomalous), to = {
    "label-free": parseFloat(panel.dataset.labelFree), oracle: parseFloat(panel.dataset.oracle)};
  const levels = [...new Set([...good, ...bad])].sort((a, b) => a - b).concat(Infinity);
  const [slider, output, asked, svg] = ["input", "output", "select", "svg"].map((name) => panel.querySelector(name));
  const [low, high, left, right] = ["low", "high", "left", "right"].map((name) => Number(svg.dataset[name]));
  const share = (part, whole) => whole ? `${Math.round(100 * part / whole)}%` : "–";
  function show(level, place = true, chosen = 0) {
    if (asked) asked.selectedIndex = chosen;  // it says a rate only while the line stands where that rate puts it
    const found = bad.filter((score) => score >= level).length, alarms = good.filter((score) => score >= level).length;
    const counts = {found, missed: bad.length - found, false_positives: alarms, passed: good.length - alarms};
    for (const [key, count] of Object.entries(counts)) panel.querySelector(`[data-count=${key}]`).textContent = count;
    const rates = {precision: share(found, found + alarms), recall: share(found, bad.length), fpr: share(alarms, good.length)};
    for (const [key, text] of Object.entries(rates)) panel.querySelector(`[data-rate=${key}]`).textContent = text;
    const at = high > low ? (Math.min(Math.max(level, low), high) - low) / (high - low) : 0;
    svg.querySelector(".line").setAttribute("transform", `translate(${left + at * (right - left)} 0)`);
    if (place) slider.value = levels.findIndex((other) => other >= level);
    output.textContent = Number.isFinite(level) ? Number(level.toPrecision(4)) : "∞";
    slider.setAttribute("aria-valuetext", output.textContent);
    galleries.forEach((gallery) => gallery(level));
  }
  slider.max = levels.length - 1;
  slider.addEventListener("input", () => show(levels[slider.value], false));
  each("button", (button) => button.addEventListener("click", () => show(to[button.dataset.to])), panel);
  asked?.addEventListener("change", () => { if (asked.value) show(Number(asked.value), true, asked.selectedIndex); });
  panel.querySelector(".controls").hidden = false;
  panel.querySelector(".rates").setAttribute("aria-live", "polite");
  const first = asked?.selectedIndex ?? 0;
  addEventListener("load", () => show(Number.isNaN(to["label-free"]) ? to.oracle : to["label-free"], true, first));
});

// ---- gallery: its verdicts follow the threshold
each(".gallery", (gallery) => {
  const list = gallery.querySelector(".tiles"), tiles = [...list.children], [show, order] = ["show", "order"].map((key) =>
    gallery.querySelector(`select[data-key=${key}]`)), count = gallery.querySelector("output");
  const names = Object.fromEntries([...show.options].filter((option) => option.value).map((option) => [option.value, option]));
  let level = NaN;
  function arrange() {
    const score = (tile) => Number(tile.dataset.score), far = (tile) => Math.abs(score(tile) - level);
    const by = {down: (a, b) => score(b) - score(a), up: (a, b) => score(a) - score(b), near: (a, b) => far(a) - far(b)}[order.value];
    list.append(...tiles.sort(by));
    tiles.forEach((tile) => { tile.hidden = show.value !== "" && !tile.querySelector(".verdict").classList.contains(show.value); });
    count.textContent = `${tiles.filter((tile) => !tile.hidden).length} / ${tiles.length}`;
  }
  galleries.push((now) => {
    level = now;
    tiles.filter((tile) => tile.dataset.label).forEach((tile) => {
      const called = Number(tile.dataset.score) >= level, bad = tile.dataset.label === "1";
      const verdict = bad ? (called ? "found" : "missed") : called ? "false-alarm" : "passed", part = tile.querySelector(".verdict");
      if (part.classList.contains(verdict)) return;
      part.className = `verdict ${verdict}`;
      const [english, chinese] = ["en", "zh-CN"].map((lang) => Object.assign(document.createElement("span"), {lang,
        hidden: document.documentElement.lang !== lang, textContent: lang === "en" ? names[verdict].dataset.english ?? names[verdict].text : names[verdict].dataset.zh}));
      part.replaceChildren(english, chinese);
    });
    arrange();
  });
  [show, order].forEach((select) => select.addEventListener("change", arrange));
  gallery.querySelector(".controls").hidden = false;
});

// ---- commands: one click copies
each("pre.command", (block) => {
  if (!navigator.clipboard) return;
  const button = document.createElement("button");
  button.type = "button";
  button.innerHTML = `<span lang="en">Copy</span><span lang="zh-CN">复制</span>`;
  button.addEventListener("click", () => navigator.clipboard.writeText(block.querySelector("code").textContent));
  block.append(button);
});
speak(document.documentElement.lang);  // what was added since, too
