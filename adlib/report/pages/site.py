"""Executed notebooks to one offline site: reports/index.html, and a page for every look at the
data, every run and its limits, and how many pictures it takes.

Pages are made to be passed on: of a folder on this machine they show the name alone.
"""
from __future__ import annotations

import base64
import functools
import hashlib
import shlex
import typing
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config as TraitConfig

from adlib.config import Config, InputError, log
from adlib.data import files
from adlib.evaluation.conformal import Threshold
from adlib.report import comparison
from adlib.report.comparison import label
from adlib.report.display import render, side_by_side
from adlib.report.pages import machine_paths, notebook_page
from adlib.report.study import DATA, INLINE, Study
from adlib.report.words import i18n, sentences
from adlib.report.words.i18n import Text, join, named, t
from adlib.runs import freshness, run_folder
from adlib.runs.engines import local
from adlib.runs.grid import AFTER_A_RUN

TEMPLATES = Path(__file__).parents[1] / "templates"
# What a page offers: no run.json and no executed notebook, which hold this machine's paths.
DOWNLOADS = ("summary.csv", "summary.json", "all_runs.csv", "all_results.csv", "metrics.json",
             "score_study.csv", "history.csv", "regions.csv", "robustness.csv",
             "detectability.csv", "foreign.csv", "card.json", "suspects.txt", "images.csv", *DATA)
# Of what an output offers, the first that a page can show: widgets and scripts are their text.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg",
         "text/plain"]
TERMS = ("auroc", "label_free", "interval", "threshold", "au_pro", "pixel_ap", "squared", "p_value",
         "paired")
RESULTS = """from adlib.report import study
from adlib.report.display import figures

figures.show(study.Study("reports").of_category({!r}))"""  # what a category's page begins with
Page = dict[str, typing.Any]
Part = tuple[str, Text, typing.Sequence[str]]  # of a page: id, heading, fragments of HTML


def build(reports: Path, *, again: bool = True, language: str = "") -> Path:
    """Render every page below `reports` from the executed notebooks and run folders there.

    The index is the executed comparison notebook. A run that failed gets a page that says why, with
    the end of its log.

    Args:
        again: False: only if something that the pages are made from has changed since.
        language: that the pages open in, en or zh (a reader can switch); empty: that of the last
            report here, else English.

    Returns:
        The path of index.html.

    Raises:
        InputError: when the comparison was never executed, naming the command that does it.
    """
    notebook, note = reports / "comparison.ipynb", reports / "report.json"
    if not notebook.is_file():
        raise InputError(f"there is no {notebook}; run `adlib run params/grids/quick.yaml` first, "
                         "or execute notebooks/06_comparison.ipynb with papermill")
    language = language or freshness.read(note).get("language", "en")
    made_from = freshness.of_report(reports) | {"language": language}
    if not again and not freshness.changed(note, made_from) and (reports / "index.html").is_file():
        log.info("the report is up to date; open %s", reports / "index.html")
        return reports / "index.html"
    study = Study(reports)
    study.write()
    table, commands = study.table, commands_of(reports)
    looks = sorted(path.parent for path in (reports / "eda").glob("*/notebook.ipynb"))
    pages = [_data_page(study, folder) for folder in looks]
    pages += [run_page(reports, row, commands) for row in table.itertuples()]
    pages += [_page_after(table, folder, kind) for kind in AFTER_A_RUN
              for folder in freshness.result_folders(reports, kind)]
    pages += side_by_side.pages(reports, table)
    noted = freshness.read(reports / "comparison.json")
    made_by = noted.get("made_by") or noted.get("retry")  # as an earlier version calls it
    pages.append({"notebook": notebook, "stem": "06_comparison", "title": t("page.study"),
                  "judged": study.rows["auroc"].notna().any() or not study.rows["seeds"].any(),
                  "synthetic": comparison.is_synthetic(table),
                  "warnings": _warnings(table["weights"]),
                  "command": f"{made_by} --report" if made_by else ""})
    common = shared(language) | {
        "hidden": machine_paths.hidden(reports, table, commands.values()),
        "mvtec": comparison.of_mvtec(table)}
    links = groups(pages, reports)
    for page in pages:
        write(common | page, links, reports)
    files.write_json(note, made_from)
    log.info("%d pages; open %s", len(pages), reports / "index.html")
    return reports / "index.html"


# ---- what is on a page


def _data_page(study: Study, folder: Path) -> Page:
    """A category's page: what its runs came to, then what is in its folder."""
    fingerprint, category = freshness.read(folder / "eda.json").get("data"), folder.name
    return {"notebook": folder / "notebook.ipynb", "stem": "01_eda", "category": category,
            "title": t("page.data_of", category=category),
            "link": (t("page.the_data"), category, ""),
            "results": study.of_category(category) if category in study.categories else "",
            "synthetic": comparison.is_synthetic(study.table[study.table["category"] == category]),
            "facts": [(t("page.data_fingerprint"), fingerprint)] if fingerprint else []}


def commands_of(reports: Path) -> dict[str, str]:
    """{folder: the command that does it again}, of what the last batch did."""
    path = reports / "batch.json"
    plan = files.read_json(path) if path.is_file() else []
    return {task["folder"]: task.get("retry", "") for task in plan}


def run_page(reports: Path, row: typing.Any, commands: dict[str, str]) -> Page:
    folder = reports / row.folder
    about, name = run_folder.manifest(folder), label(row.name)
    params, done = about.get("params") or {}, row.status == "finished"
    stem = Path(freshness.notebook_of(params["model"])).stem if "model" in params else ""
    note = named("status", row.status) if not done else (
        f"{row.auroc:.3f}" if row.auroc == row.auroc else "")
    page = {"notebook": folder / "notebook.ipynb", "stem": stem, "synthetic": row.synthetic is True,
            "title": t("page.category_configuration", category=row.category, configuration=name),
            "link": (t("page.runs_of", category=row.category),
                     t("page.seed", configuration=name, seed=row.seed), note),
            "category": row.category, "warnings": _warnings([row.weights]), "facts": _facts(about),
            "command": commands.get(row.folder) or _papermill(
                stem, folder / "notebook.ipynb", params),
            "figures": _figures(folder, params["target_fpr"]) if done else []}
    if done:
        metrics = comparison.read_metrics(folder)
        page["judged"] = row.auroc == row.auroc
        page["result"] = sentences.result(row.category, name, metrics, params["target_fpr"])
        page["caution"] = join(filter(None, [
            sentences.taken_otherwise(metrics, params["target_fpr"]), sentences.guessing(metrics)]))
    return page if done else page | {"failure": _failure(
        folder, t("page.run_not_finished"), row.status, row.reason, page["command"])}


def _page_after(table: typing.Any, folder: Path, kind: str) -> Page:
    """Of a run's limits, or of how many pictures it takes."""
    category, name = folder.parts[-2:]
    failure = freshness.failure(folder / f"{kind}.json")
    names = {"category": category, "configuration": label(name)}
    page = {"notebook": folder / "notebook.ipynb", "category": category,
            "stem": AFTER_A_RUN[kind].removesuffix(".ipynb"),
            "title": t(f"page.{kind}_of", **names),
            "link": (t(f"page.{kind}"), t("page.category_configuration", **names),
                     named("status", "failed") if failure else ""),
            "synthetic": comparison.is_synthetic(
                table[(table["category"] == category) & (table["name"] == name)])}
    return page if not failure else page | {"failure": _failure(
        folder, t(f"page.{kind}_not_finished"), "failed", failure["failed"], failure["retry"])}


def _failure(folder: Path, what: Text, status: str, reason: str, command: str) -> Page:
    why = reason.removeprefix("InputError: ")  # which says all; of others the log says more
    said = t("answer.status_why", status=named("status", status), why=why)
    end = local.log_end(folder, 20) if why == reason else []
    return {"what": what, "reason": said, "log": "\n".join(end), "command": command}


def _warnings(words: typing.Iterable[str]) -> list[Text]:
    random = sorted({word for word in words if word.startswith("random")})
    return [t("page.weights_warning", weights=sentences.weights(word)) for word in random]


def _facts(about: dict[str, typing.Any]) -> list[tuple[Text, str]]:
    """The manifest in rows: what a run was made from, and on what it ran."""
    if not about.get("params"):
        return []
    data, versions = about.get("data", {}), about.get("versions", {})
    started = about.get("started", "")[:16].replace("T", " ")
    facts = {
        "page.data": f"{Path(str(data.get('root'))).name} ({data.get('layout')})",
        "page.data_fingerprint": data.get("fingerprint"),
        "column.weights": sentences.weights(str(about.get("weights"))),
        "column.device": t("page.device_threads", device=about.get("device"),
                         threads=about.get("threads")),
        "page.git_revision": about.get("git"), "page.started": started and f"{started} UTC",
        "page.seconds": f"{about['seconds']:.0f}" if about.get("seconds") else "",
        "page.versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    return [(t(key), value if isinstance(value, str) else str(value))
            for key, value in facts.items() if value]


def _figures(folder: Path, target_fpr: float) -> list[tuple[Text, str, str]]:
    """What a finished run comes to, for the top of its page: name, number, 95% interval."""
    metrics = comparison.read_metrics(folder)
    chosen, figures = metrics["chosen"], []
    decided = Threshold.recorded(metrics, target_fpr).is_attainable
    entry = chosen["auroc"]["test"]
    if entry["value"] is not None:
        figures.append((t("page.auroc", score=sentences.score(chosen["score"])),
                        f"{entry['value']:.3f}", f"{entry['low']:.2f}–{entry['high']:.2f}"))
    operating = (chosen.get("operating") or {}).get("test", {})
    for key, name in (("detections", t("page.detections")),
                      ("false_positives", t("page.false_positives"))) if decided else ():
        if (rate := operating.get(key)) and rate["n"]:
            figures.append((name, f"{rate['count']} / {rate['n']}",
                            f"{rate['low']:.0%}–{rate['high']:.0%}"))
    return figures


def _papermill(stem: str, output: Path, params: dict[str, typing.Any]) -> str:
    """The command line that repeats a notebook by hand: what differs from the defaults is named."""
    if not stem:
        return ""
    default = Config().as_dict()
    # papermill fills in braces
    words = ["papermill", f"notebooks/{stem}.ipynb",
             str(output).replace("{", "{{").replace("}", "}}")]
    for key, value in params.items():
        if key == "weights" and Path(value).name == value not in ("imagenet", "none"):
            value = f"path/to/{value}"  # a run keeps the name alone
        if value != default.get(key, ""):
            words += ["-p", key, str(value)]
    return shlex.join(words)


# ---- how it is rendered


def shared(language: str) -> Page:
    """What the template needs to know whichever page it makes."""
    css, js, words = ((TEMPLATES / "study" / name).read_text(encoding="utf-8")
                      for name in ("style.css", "page.js", "glossary.js"))
    css, js = render.style() + css, render.script() + js + words
    digest = hashlib.sha256(js.encode()).digest()  # of the only script that the page's policy runs
    return {"lang": i18n.LANGUAGES[language], "css": css, "js": js,
            "js_hash": base64.b64encode(digest).decode(), "warnings": [], "failure": None,
            "command": "", "facts": [], "figures": [], "results": "", "category": "", "caution": "",
            "judged": True, "mvtec": set(),
            "glossary": [(named("term", name), t(f"glossary.{name}")) for name in TERMS]}


def groups(pages: list[Page], reports: Path) -> dict[Text, list[dict[str, typing.Any]]]:
    """The links to the pages by group, with what a reader wants to know of each beforehand."""
    groups: dict[Text, list[dict[str, typing.Any]]] = {}
    for page in pages:
        if "link" in page:
            (title, text, note), folder = page["link"], page["notebook"].parent
            groups.setdefault(title, []).append({
                "text": text, "note": note, "folder": folder,
                "category": page["category"] if folder.name.startswith("seed-") else "",
                "href": f"{folder.relative_to(reports).as_posix()}/index.html"})
    return groups


def write(page: Page, groups: dict[Text, list[dict[str, typing.Any]]], reports: Path) -> None:
    """index.html in the folder of an executed notebook. The notebook's question, its first line,
    becomes the page's heading."""
    folder = page["notebook"].parent
    notebook = _notebook(page)
    chinese = page.get("chinese") or dict(i18n.notebooks().get(page["stem"], {}))
    first, executed = notebook.cells[0], notebook.metadata.get("papermill", {})
    (question, first.source), (other, chinese[first.id]) = (
        (text.partition("\n")[0], text.partition("\n")[2].strip())
        for text in (first.source, chinese.get(first.id, "")))
    if page["stem"] == "06_comparison" and not page["judged"]:
        page["heading"], first.source = t("page.unjudged"), t("page.unjudged_said")
        chinese[first.id] = first.source.zh
    page |= {
        "question": page.get("heading") or Text(question.removeprefix("# "),
                                                other.removeprefix("# ") or None),
        "chinese": chinese, "up": "../" * len(folder.relative_to(reports).parts),
        "here": folder, "groups": {
            title: links for title, links in groups.items()
            if links[0]["category"] in ("", page["category"]) or len(groups) <= INLINE + 3},
        "command": page["command"] or (executed and _papermill(
            page["stem"], page["notebook"], executed.get("parameters", {}))),
        "downloads": [name for name in DOWNLOADS if (folder / name).is_file()]}
    if "result" in page:  # what was found is the title; what was asked goes with the method
        page |= {"asked": page["question"], "question": page["result"]} | notebook_page.links(
            groups, folder, reports / side_by_side.FOLDER / folder.parts[-3])
        notebook.cells = notebook_page.result_first(notebook.cells)
    if page["results"]:  # of a category's runs, before the look at its data
        page["question"] = page["category"]
        notebook.cells.insert(0, notebook_page.shown(
            "results", page["results"], source=RESULTS.format(page["category"])))
        notebook.cells[1].source = f"## {question.removeprefix('# ')}\n{first.source}"
        chinese[first.id] = f"## {other.removeprefix('# ')}\n{chinese[first.id]}"
    page["contents"] = [
        (f"cell-{cell.id}", Text(heading, _heading(chinese.get(cell.id, "")) or None))
        for cell in notebook.cells if cell.cell_type == "markdown"
        and not cell.metadata.get("folded") and (heading := _heading(cell.source))]
    if "result" in page:
        page["contents"].append(("method", t("template.method")))
    notebook_page.number_figures(notebook.cells)
    exporter = _exporter("run.html.j2" if "result" in page else "index.html.j2")
    content, _ = exporter.from_notebook_node(notebook, resources={"page": page})
    files.write_text(folder / "index.html", machine_paths.without_paths(content, page["hidden"]))


@functools.cache
def _exporter(template: str) -> HTMLExporter:
    """Of all pages of a template: to read it takes as long as to fill it."""
    exporter = HTMLExporter(TraitConfig({"NbConvertBase": {"display_data_priority": SHOWN}}),
                            template_name="study", template_file=template,
                            extra_template_basedirs=[str(TEMPLATES)])
    exporter.environment.autoescape = True
    exporter.environment.globals["t"] = t
    exporter.environment.filters |= {"formulas": render.formulas, "commands": render.commands,
                                     "both": render.both, "aria": render.aria}
    return exporter


def standalone_page(folder: Path, heading: Text, sections: typing.Sequence[Part], *,
                    synthetic: bool, command: typing.Sequence[str],
                    mvtec: typing.Collection[str] = (), home: Path | None = None,
                    language: str = "") -> Path:
    """A page on its own: index.html in a folder, which opens in `language` (empty: English); its
    path. command: what makes it again. home: the reports that it leads back to."""
    cells = [cell for name, title, fragments in sections for cell in (
        nbformat.v4.new_markdown_cell(f"## {title}", id=name),
        notebook_page.shown(f"{name}-shown", *fragments))]
    other = {name: f"## {i18n.chinese(title)}" for name, title, _ in sections}
    page = shared(language or "en") | {
        "notebook": folder / "notebook.ipynb", "stem": "", "cells": cells, "chinese": other,
        "heading": heading, "title": heading, "synthetic": synthetic, "mvtec": mvtec,
        "command": shlex.join(command), "hidden": machine_paths.shown([shlex.join(command)])}
    write(page, {}, home or folder)
    return folder / "index.html"


def _notebook(page: Page) -> nbformat.NotebookNode:
    """An executed notebook, opening with its question; where there is none, one of the figures that
    a run by hand has left."""
    # one line, which is escaped; what follows is markdown, which may hold HTML
    path, heading = page["notebook"], f"# {' '.join(page['title'].split())}"
    if "cells" in page:
        question = nbformat.v4.new_markdown_cell("", id="question")
        return nbformat.v4.new_notebook(cells=[question, *page["cells"]])
    try:
        notebook = nbformat.read(path, as_version=4)
    except FileNotFoundError:  # it never started, or was run by hand and written elsewhere
        # after a failure, figures are an earlier attempt's
        left = [] if page["failure"] else sorted(path.parent.glob("*.png"))
        said = join([heading, *[t("page.no_notebook")] * bool(left), *(
            f"![{png.stem.replace('_', ' ')}]({png.name})" for png in left)], "\n\n")
        cell = nbformat.v4.new_markdown_cell(said)
        page |= {"heading": page["title"], "chinese": {cell.id: said.zh}}
        return nbformat.v4.new_notebook(cells=[cell])
    except (ValueError, AttributeError, nbformat.reader.NotJSONError,
            nbformat.ValidationError) as error:
        raise InputError(f"{path} is not a notebook ({str(error)[:80]}); delete it and run it "
                         "again") from error
    notebook.metadata.pop("widgets", None)  # a page has no kernel: a widget is its text
    notebook.cells = _asked(notebook.cells)
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    # For whoever opens the notebook, not for readers of its page, which says itself what failed.
    left_out = {"exercise", "papermill-error-cell-tag"}
    if any("injected-parameters" in each for each in tags):  # what was given replaces the defaults
        left_out.add("parameters")
    if not page["judged"]:  # by labels of both classes: what these alone can answer
        left_out.add("judged")
    notebook.cells = [cell for cell, each in zip(notebook.cells, tags, strict=True)
                      if not left_out & set(each)]
    if not notebook.cells or notebook.cells[0].cell_type != "markdown":
        notebook.cells.insert(0, nbformat.v4.new_markdown_cell(heading))
    for cell in notebook.cells:
        cell.setdefault("id", "")  # of an older format
    return notebook


def _asked(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Without the questions that the runs did not ask: a cell tagged "optional" that shows nothing
    goes, and the text before it."""
    empty = {i for i, cell in enumerate(cells)
             if "optional" in cell.metadata.get("tags", []) and not cell.get("outputs")}
    return [cell for i, cell in enumerate(cells) if not {i, i + 1} & empty]


def _heading(markdown: str) -> str:
    """The heading of the second level that a cell begins with, "" where there is none."""
    first = markdown.partition("\n")[0]
    return first.removeprefix("## ") if first.startswith("## ") else ""
