// ---- two runs: the menus choose them, a click on a point or an arrow key chooses the image
adlib.kinds.compare = (panel) => {
  const {runs, images, verdicts} = JSON.parse(panel.querySelector("template").content.textContent);
  const [one, other] = panel.querySelectorAll("select"), marks = [...panel.querySelectorAll("g[data-i]")];
  const pair = () => [runs[one.value], runs[other.value]], part = (selector) => panel.querySelector(selector);
  const kinds = {bad: ["missed", "found"], good: ["passed", "false-alarm"], none: ["let-pass", "called"]};
  function verdict(run, i) {
    const kind = kinds[images[i].kind][Number(run.called[i])];
    return run.line === null ? "" : `<strong class="verdict ${kind}">${verdicts[kind]}</strong>`;
  }
  let order = [], now = 0;  // the images that the two rank most differently first, anomalous ones before good ones
  function choose(i) {
    const [a, b] = pair(), image = images[i];
    now = i;
    for (const figure of panel.querySelectorAll("figure")) {
      const run = {one: a, other: b}[figure.dataset.side], stack = figure.querySelector(".stack");
      stack.style.aspectRatio = image.ratio;
      figure.querySelector("img.input").src = image.input;
      figure.querySelector("img.input").alt = image.name;
      if (!run) continue;
      figure.querySelector("img.heat").src = run.heat[i];
      figure.querySelector(".level").setAttribute("d", run.level[i]);
      figure.querySelector(".ticks").setAttribute("d", image.ticks);
      figure.querySelector("figcaption").innerHTML = `<strong>${run.html}</strong><br>${run.score} ${run.values[i]} ${verdict(run, i)}`;
    }
    part("output").textContent = `${image.name} (${order.indexOf(i) + 1} / ${images.length})`;
    part(".ring").setAttribute("transform", marks[i].getAttribute("transform"));
    part(".ring").setAttribute("visibility", "visible");
    window.adlib.spoken?.();
  }
  function begin() {
    const [a, b] = pair(), apart = images.map((_, i) => b.places[i] - a.places[i]);
    marks.forEach((mark, i) => mark.setAttribute("transform", `translate(${400 * a.places[i]} ${400 - 400 * b.places[i]})`));
    for (const [run, name] of [[a, "one"], [b, "other"]]) {
      const at = 400 * (run.line ?? 0), limit = part(`.limit.${name}`);
      limit.setAttribute("d", run.line === null ? "" : name === "one" ? `M${at} 0V400` : `M0 ${400 - at}H400`);
      for (const label of panel.querySelectorAll(`[data-name=${name}]`)) label.innerHTML = run.html;
    }
    for (const kind of ["bad", "good"]) {
      const these = images.map((image, i) => i).filter((i) => images[i].kind === kind);
      const counts = [[true, true], [true, false], [false, true], [false, false]].map(([first, second]) =>
        these.filter((i) => a.called[i] === first && b.called[i] === second).length);
      panel.querySelectorAll(`td[data-kind=${kind}]`).forEach((cell, i) => { cell.textContent = counts[i]; });
    }
    const rank = (i) => (images[i].kind === "bad" ? 0 : 2) - Math.abs(apart[i]);
    order = images.map((_, i) => i).sort((i, j) => rank(i) - rank(j));
    choose(order[0]);
  }
  const step = (by) => choose(order[(order.indexOf(now) + by + order.length) % order.length]);
  for (const menu of [one, other]) menu.addEventListener("change", begin);
  panel.addEventListener("click", (event) => {
    const mark = event.target.closest("g[data-i]"), go = event.target.closest("button")?.dataset.go;
    if (mark) choose(Number(mark.dataset.i)); else if (go) step(Number(go));
  });
  panel.addEventListener("keydown", (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by || adlib.typing(event.target)) return;
    event.preventDefault();
    event.stopPropagation();
    step(by);
  });
  begin();
};
