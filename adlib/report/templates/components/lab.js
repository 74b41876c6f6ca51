// ---- JupyterLab shows components whenever a cell or a widget likes: each is woken as it comes
if (!adlib.watching && document.querySelector(".jp-LabShell, .jp-Notebook, .jp-NotebookPanel")) {
  adlib.watching = new MutationObserver(() => adlib.wake());
  adlib.watching.observe(document.body, {childList: true, subtree: true});
  // a click on a picture says where, to the text field of the same widget
  document.addEventListener("click", (event) => {
    const picture = event.target.closest(".adlib-place .stack"), field = picture?.closest(".adlib-place").querySelector("input[type=text]");
    if (!field) return;
    const box = picture.getBoundingClientRect();
    field.value = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((share) => share.toFixed(3)).join(" ");
    field.dispatchEvent(new Event("change", {bubbles: true}));
  });
  // a page of the report opens in a tab of its own, where its own scripts run
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".adlib a[href*='.html']");
    if (!link || !link.closest(".jp-OutputArea-output")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    open(link.href, "_blank", "noopener");
  }, true);
}
