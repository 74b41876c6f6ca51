"use strict";
// What a page can do beyond being read: the other language, menus. What its components can do is in components/*.js. Without either
// everything is there, in the order and at the threshold of the notebook.

const each = (selector, act, within = document) => within.querySelectorAll(selector).forEach(act);
const remembered = {get: () => { try { return localStorage.getItem("adlib-lang"); } catch { return null; } },
                    set: (value) => { try { localStorage.setItem("adlib-lang", value); } catch { /* a page opened from disk may not */ } }};

// ---- language: both are in the page
function speak(lang) {
  document.documentElement.lang = lang;
  each("[lang]:not(html):not(#language)", (part) => {
    const shown = part.getAttribute("lang") === lang;  // an SVG element has no property lang
    if (part instanceof SVGElement) part.setAttribute("visibility", shown ? "visible" : "hidden"); else part.hidden = !shown;
  });
  const swap = (part, attribute, other) => {
    part.dataset.english ??= part.getAttribute(attribute);
    part.setAttribute(attribute, lang === "zh-CN" ? other : part.dataset.english);
  };
  each("[data-alt-zh]", (part) => swap(part, "alt", part.dataset.altZh));
  each("[data-title-zh]", (part) => swap(part, "title", part.dataset.titleZh));
  each("[data-aria-zh]", (part) => swap(part, "aria-label", part.dataset.ariaZh));
  each("option[data-zh], title[data-zh]", (part) => {
    part.dataset.english ??= part.textContent;
    part.textContent = lang === "zh-CN" ? part.dataset.zh : part.dataset.english;
  });
  const button = document.getElementById("language");
  [button.textContent, button.lang, button.hidden] = lang === "en" ? ["中文", "zh-CN", false] : ["English", "en", false];
}
const inHash = {"#en": "en", "#zh": "zh-CN"}[location.hash];
speak(inHash ?? remembered.get() ?? document.documentElement.lang);
document.getElementById("language").addEventListener("click", (event) => { speak(event.target.lang); remembered.set(document.documentElement.lang); });

window.adlib.spoken = () => speak(document.documentElement.lang);  // for what a component adds

// ---- JupyterLab gives its files to what carries the query of its own links, and none to a page's pictures; a page that was passed
// on alone has none, either
if (location.search) each("a[href]", (link) => { if (link.host === location.host) link.search = location.search; });
function missing(image) {
  if (!image.matches?.("main img[src]")) return;
  document.getElementById("beside").hidden = false;
  const part = image.closest(".finds li");
  if (part) part.hidden = true;
}
addEventListener("error", (event) => missing(event.target), true);
each("main img[src]", (image) => { if (image.complete && !image.naturalWidth) missing(image); });

// ---- what a link leads to is unfolded; the arrow keys lead to the previous and the next run
function unfold() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  const code = target && target.matches(".cell") && target.querySelector("details.code");
  if (code) code.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", unfold);
unfold();
addEventListener("keydown", (event) => {
  const link = document.querySelector({ArrowLeft: "a[rel=prev]", ArrowRight: "a[rel=next]"}[event.key] ?? "#none");
  if (link && !event.defaultPrevented && !event.altKey && !event.ctrlKey && !event.metaKey && !adlib.typing(event.target)) link.click();
});

// ---- menus: one open at a time
addEventListener("click", (event) => each("details.menu[open]", (menu) => { if (!menu.contains(event.target)) menu.open = false; }));
addEventListener("keydown", (event) => { if (event.key === "Escape") each("details.menu[open]", (menu) => {
  menu.open = false; menu.querySelector("summary").focus(); }); });

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
