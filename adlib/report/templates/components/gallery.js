// ---- gallery: filters with counts, an order, verdicts that follow the threshold of the same score, and one image large
adlib.kinds.gallery = (gallery) => {
  const list = gallery.querySelector(".tiles"), tiles = [...list.children], count = gallery.querySelector("output");
  const order = gallery.querySelector("select"), chips = [...gallery.querySelectorAll("[data-facet]")];
  const chosen = {verdict: "", defect: ""}, score = (tile) => Number(tile.dataset.score);
  const of = {defect: (tile) => tile.dataset.defect, verdict: (tile) => tile.querySelector(".verdict:not([hidden])")?.classList[1]};
  const fits = (tile, facet, value) => value === "" || of[facet](tile) === value;
  let level = gallery.dataset.threshold ? Number(gallery.dataset.threshold) : NaN;
  const far = (tile) => Math.abs(score(tile) - level);
  const by = {down: (a, b) => score(b) - score(a), up: (a, b) => score(a) - score(b), near: (a, b) => far(a) - far(b)};
  function arrange() {
    list.append(...tiles.sort(by[order.value]));
    for (const tile of tiles) tile.hidden = !Object.entries(chosen).every(([facet, value]) => fits(tile, facet, value));
    for (const chip of chips) {
      const {facet, value} = chip.dataset, other = facet === "defect" ? "verdict" : "defect";
      chip.querySelector(".n").textContent = tiles.filter((tile) => fits(tile, facet, value) && fits(tile, other, chosen[other])).length;
      chip.ariaPressed = chosen[facet] === value;
    }
    count.textContent = `${shown().length} / ${tiles.length}`;
  }
  const shown = () => tiles.filter((tile) => !tile.hidden);
  function follow(now) {
    level = now;
    for (const tile of tiles) {
      const [above, below] = tile.querySelectorAll(".verdict");
      if (below) [above.hidden, below.hidden] = [!(score(tile) > level), score(tile) > level];
    }
    arrange();
  }
  gallery.addEventListener("threshold", (event) => follow(event.detail));
  order.addEventListener("change", arrange);
  for (const chip of chips) chip.addEventListener("click", () => { chosen[chip.dataset.facet] = chip.dataset.value; arrange(); });
  const panel = [...adlib.place(gallery).querySelectorAll(".adlib.threshold[data-level]")].find((other) =>
    other.dataset.score === gallery.dataset.score);
  if (panel) follow(Number(panel.dataset.level)); else if (gallery.dataset.threshold) follow(level); else arrange();

  // ---- one image large, in a dialog of the document: there, no key is a notebook's
  const box = gallery.querySelector("template").content.firstElementChild.cloneNode(true);
  const part = (selector) => box.querySelector(selector), stage = part(".stage"), stack = part(".stack"), detail = part("img.detail"), deep = "deep" in gallery.dataset;
  let current = null;
  for (const image of box.querySelectorAll("img")) image.addEventListener("error", () => {  // a page that is passed on alone
    if (image === detail) { detail.hidden = true; return; }
    const small = current.querySelector(image.matches(".input, .reconstruction") ? "img.input" : "img.heat").src;
    if (image.src !== small) image.src = small;
  });
  function open(tile) {
    current = tile;
    for (const view of ["input", "map", "reconstruction"]) part(`img.${view}`).src = tile.dataset[view] || tile.querySelector("img").src;
    detail.hidden = !tile.dataset.detail;
    if (!detail.hidden) { detail.src = tile.dataset.detail; detail.style.cssText = tile.dataset.box; }
    part("img.heat").src = tile.querySelector("img.heat").src;
    part("img.input").alt = tile.querySelector("img").alt;
    stack.style.aspectRatio = tile.querySelector(".stack").style.aspectRatio;
    stack.style.setProperty("--ratio", stack.style.aspectRatio);
    part("svg").replaceChildren(...[...tile.querySelector("svg").children].map((path) => path.cloneNode()));
    part(".said").replaceChildren(...[...tile.querySelector("figcaption").childNodes].map((node) => node.cloneNode(true)));
    part("output").textContent = `${shown().indexOf(tile) + 1} / ${shown().length}`;
    if (!box.open) {
      document.body.append(box);
      adlib.spoken?.();
      box.showModal();
    }
    if (deep) history.replaceState(null, "", `#${tile.id}`);
  }
  const step = (by) => { const all = shown(), at = all.indexOf(current); open(all[(at + by + all.length) % all.length]); };
  function view(kind) {
    if (!part(`[data-show=${kind}]`)) return;
    box.dataset.view = kind;
    for (const button of box.querySelectorAll("[data-show]")) button.ariaPressed = button.dataset.show === kind;
  }
  function toggle(name) {
    const button = part(`[data-toggle=${name}]`);
    if (button) button.ariaPressed = box.classList.toggle(name);
  }
  function zoom(event) {  // a pixel of the image is a pixel of the screen, or several
    const at = stack.getBoundingClientRect(), near = detail.getBoundingClientRect(), ratio = devicePixelRatio;
    const sharp = !detail.hidden && detail.naturalWidth, middle = sharp ? near : at;  // the map's maximum, where the image's own pixels are kept
    const x = event ? event.clientX : middle.left + middle.width / 2, y = event ? event.clientY : middle.top + middle.height / 2;
    const spot = [(x - at.left) / at.width, (y - at.top) / at.height];
    const width = sharp ? sharp * at.width / near.width : part("img.input").naturalWidth;
    stack.style.setProperty("--width", `${width / ratio * Math.ceil((at.width * ratio + 1) / width)}px`);
    toggle("zoom");
    stage.scrollTo(spot[0] * stack.offsetWidth - stage.clientWidth / 2, spot[1] * stack.offsetHeight - stage.clientHeight / 2);
  }
  list.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    open(link.closest("li"));
  });
  box.addEventListener("click", (event) => {
    const {go, show, toggle: name, close} = event.target.closest("button")?.dataset ?? {};
    if (go) step(Number(go)); else if (show) view(show); else if (name === "zoom") zoom(); else if (name) toggle(name);
    else if (close !== undefined || event.target === box) box.close(); else if (event.target.closest(".stack")) zoom(event);
  });
  box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {ArrowLeft: () => step(-1), ArrowRight: () => step(1), m: () => toggle("mask"), z: () => zoom(),
                  1: () => view("input"), 2: () => view("reconstruction"), 3: () => view("map"), 4: () => view("over")};
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    event.stopPropagation();
    if (act) { event.preventDefault(); act(); }
  });
  box.addEventListener("close", () => {
    box.remove();
    if (deep) history.replaceState(null, "", location.pathname + location.search);
    current?.querySelector("a").focus();
  });
  if (!deep) return;
  const linked = () => tiles.find((tile) => location.hash === `#${tile.id}`);
  addEventListener("hashchange", () => { if (linked()) open(linked()); });
  if (linked()) open(linked());
};
