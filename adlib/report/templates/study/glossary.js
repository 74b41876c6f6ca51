// ---- words before jargon: the first mention of a term in a text shows what it means, on hover, on focus and on tap
if (innerWidth < 1152) document.querySelector(".contents details")?.removeAttribute("open");  // beside the text there is room
(() => {
  const list = document.getElementById("glossary"), tip = document.createElement("span");
  if (!list) return;
  tip.id = "tip"; tip.role = "tooltip"; tip.hidden = true;
  document.body.append(tip);
  function show(word, text) {
    tip.textContent = text; tip.hidden = false;
    const at = word.getBoundingClientRect(), wide = Math.min(320, innerWidth - 24);
    tip.style.width = `${wide}px`;
    tip.style.left = `${scrollX + Math.max(12, Math.min(at.left, innerWidth - wide - 12))}px`;
    tip.style.top = `${scrollY + at.bottom + 6}px`;
  }
  const hide = () => { tip.hidden = true; };
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  function mark(lang) {
    const terms = [...list.querySelectorAll("dt")].map((dt) => {
      const said = (part) => (part.querySelector(`[lang="${lang}"]`) ?? part).textContent;
      return [said(dt), said(dt.nextElementSibling)];
    }).sort((a, b) => b[0].length - a[0].length);
    const known = new Map(terms.map(([word, text]) => [word.toLowerCase(), text]));
    const pattern = new RegExp(terms.map(([word]) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|"), "i");
    for (const block of document.querySelectorAll("main p, main caption, main figcaption, main dt")) {
      if (block.closest("#glossary, .answer, nav")) continue;
      const done = new Set(), texts = document.createTreeWalker(block, NodeFilter.SHOW_TEXT);
      const nodes = [];
      while (texts.nextNode()) nodes.push(texts.currentNode);
      for (const node of nodes) {
        const inLang = node.parentElement.closest("[lang]").lang;
        if (inLang !== lang || node.parentElement.closest("a, button, code, .term, label, pre")) continue;
        const found = pattern.exec(node.data), text = found && known.get(found[0].toLowerCase());
        if (!found || done.has(text)) continue;
        done.add(text);
        const word = document.createElement("span"), rest = node.splitText(found.index);
        rest.splitText(found[0].length);
        word.className = "term"; word.tabIndex = 0; word.setAttribute("aria-describedby", "tip");
        rest.replaceWith(word); word.append(rest);
        for (const event of ["mouseenter", "focus", "click"]) word.addEventListener(event, () => show(word, text));
        for (const event of ["mouseleave", "blur"]) word.addEventListener(event, hide);
      }
    }
  }
  mark("en"); mark("zh-CN");
})();
