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
  // pictures that are dropped go to the text field of the widget, as [[name, base64], ...]
  document.addEventListener("dragover", (event) => { if (event.target.closest(".adlib-drop")) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    const field = event.target.closest(".adlib-drop")?.querySelector("input[type=text]");
    if (!field) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    Promise.all([...event.dataTransfer.files].map((file) => new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done([file.name, reader.result.split(",")[1] ?? ""]);
      reader.readAsDataURL(file);
    }))).then((files) => {
      field.value = JSON.stringify(files);
      field.dispatchEvent(new Event("change", {bubbles: true}));
    });
  }, true);
  // a page of the report opens in a tab of its own, where its own scripts run
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".adlib a[href*='.html']");
    if (!link || !link.closest(".jp-OutputArea-output")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    open(link.href, "_blank", "noopener");
  }, true);
}
