// ---- threshold: the line is dragged; a step of the keyboard takes one image across
adlib.kinds.threshold = (panel) => {
  const {numbers, short, share, place} = adlib, data = panel.dataset;
  const good = numbers(data.good), bad = numbers(data.anomalous), levels = numbers(data.levels);
  const [line, output, rates, plot] = [".line", "output", "select", ".plot"].map((name) => panel.querySelector(name));
  const above = (scores, level) => scores.filter((score) => score > level).length;
  const called = levels.map((level) => above(good, level) + above(bad, level));
  const places = () => numbers(data[data.axis]);
  let now = 0;
  function show(index, tell = true) {
    now = index;
    const level = levels[index], found = above(bad, level), alarms = above(good, level);
    const counts = {found, missed: bad.length - found, false_positives: alarms, passed: good.length - alarms};
    for (const [key, count] of Object.entries(counts)) panel.querySelector(`[data-count=${key}]`).textContent = count;
    const shares = {precision: share(found, found + alarms), recall: share(found, bad.length), fpr: share(alarms, good.length)};
    for (const [key, text] of Object.entries(shares)) panel.querySelector(`[data-rate=${key}]`).textContent = text;
    line.style.left = `${100 * places()[index]}%`;
    line.ariaValueNow = index;
    line.ariaValueText = output.textContent = short(level);
    output.dataset.threshold = level;
    const there = (option) => option.value !== "" && Number(option.value) === level;
    if (rates && !there(rates.selectedOptions[0])) rates.selectedIndex = Math.max(0, [...rates.options].findIndex(there));
    if (!tell) return;
    data.level = level;
    for (const gallery of place(panel).querySelectorAll(".adlib.gallery[data-alive]")) if (gallery.dataset.score === data.score)
      gallery.dispatchEvent(new CustomEvent("threshold", {detail: level}));
  }
  const to = (level) => show(levels.indexOf(level));
  function step(by) {  // levels between the same two images are one step
    let next = now;
    while (levels[next + by] !== undefined && called[next] === called[now]) next += by;
    show(next);
  }
  function drag(event) {
    const box = plot.getBoundingClientRect(), at = (event.clientX - box.left) / box.width, where = places();
    show(where.reduce((best, place, i) => Math.abs(place - at) < Math.abs(where[best] - at) ? i : best, now));
  }
  plot.addEventListener("pointerdown", (event) => { event.preventDefault(); line.focus(); drag(event); plot.setPointerCapture(event.pointerId); });
  plot.addEventListener("pointermove", (event) => { if (plot.hasPointerCapture(event.pointerId)) drag(event); });
  line.addEventListener("keydown", (event) => {
    const by = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
    const end = {Home: 0, End: levels.length - 1}[event.key];
    if (by) step(by); else if (end !== undefined) show(end); else return;
    event.preventDefault();
  });
  for (const button of panel.querySelectorAll("button")) button.addEventListener("click", () => to(Number(data[button.dataset.to])));
  rates?.addEventListener("change", () => { if (rates.value) to(Number(rates.value)); });
  panel.querySelector("[type=checkbox]").addEventListener("change", (event) => {
    data.axis = event.target.checked ? "squeezed" : "linear";
    show(now);
  });
  panel.querySelector(".rates").setAttribute("aria-live", "polite");
  show(levels.indexOf(Number(output.dataset.threshold)), data.labelFree !== "");  // where no threshold is, no verdict is shown until one is chosen
};
