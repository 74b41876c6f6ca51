"use strict";
// The matrix and every other table: a heading sorts. Of the matrix, whole bodies move, so that a row and the one indented below it
// stay together. On pages and in JupyterLab; shown twice, or run twice, each table is taken up once.
(() => {
  const shown = (node) => node.nodeType === Node.TEXT_NODE ? node.data : node.hidden ? "" : [...node.childNodes].map(shown).join("");
  const value = (row, column) => {
    const cell = row?.cells[column], text = (cell?.dataset.value ?? (cell ? shown(cell) : "")).trim();
    const number = Number(text.replace(/\s*%/, "").split(" ")[0]) * (text.endsWith(" min") ? 60 : 1);  // others are in seconds
    return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
  };
  function compare(a, b, sign) {  // empty cells stay last, whichever way
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  }
  for (const table of document.querySelectorAll(".adlib.matrix table:not([data-alive]), .adlib .sortable:not([data-alive])")) {
    table.dataset.alive = "";
    const bodies = table.tBodies.length > 1, first = (part) => bodies ? part.rows[0] : part;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const names = [...head.querySelectorAll(":scope > a, :scope > span:not([class])")], link = names.find((name) => name.matches("a"));
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      if (link) button.setAttribute("aria-label", link.textContent);  // the name leads elsewhere; the arrows sort
      else button.append(...(names.length ? names : head.childNodes));  // in either language
      head.prepend(...(link ? [link] : []), button);
      button.addEventListener("click", () => {
        const parts = [...(bodies ? table.tBodies : table.tBodies[0].rows)];
        const known = parts.map((part) => value(first(part), column)).find((found) => found !== null);
        const before = head.getAttribute("aria-sort"), up = typeof known !== "number" || head.dataset.first === "up";
        const sign = before ? (before === "ascending" ? -1 : 1) : up ? 1 : -1;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
        parts.sort((a, b) => compare(value(first(a), column), value(first(b), column), sign));
        (bodies ? table : table.tBodies[0]).append(...parts);
      });
    });
  }
})();
