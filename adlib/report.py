"""Executed notebooks to one offline site: reports/index.html, and a page for every look at the data, every run and its limits."""
from __future__ import annotations

import base64
import hashlib
import shlex
import typing
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config as TraitConfig

from adlib import compare, files, lang, notes, process, runs
from adlib.config import InputError
from adlib.lang import Text, t

TEMPLATES = Path(__file__).parent / "templates"
CREDIT_SYNTHETIC = t("Pictures: drawn by adlib's own generator.")
CREDIT = t("Pictures: the data named above. Images of MVTec AD are by Bergmann, Fauser, Sattlegger and Steger (CVPR 2019), under "
           "CC BY-NC-SA 4.0: pages that show them may be passed on under that licence only, and not used commercially.")
DOWNLOADS = ("summary.csv", "summary.json", "all_runs.csv", "all_results.csv", "metrics.json", "score_study.csv", "history.csv",
             "epochs.csv", "regions.csv", "robustness.csv", "detectability.csv", "smallest.csv", "run.json", "notebook.ipynb",
             "comparison.ipynb")


def build(reports: Path, say: typing.Callable[[str], None] = print, *, again: bool = True, language: str = "") -> Path:
    """Render every page below `reports` from the executed notebooks and run folders there; return index.html's path.

    The index is the executed comparison notebook. A run that failed gets a page that says why, with the end of its log.
    again=False: only if something that the pages are made from has changed since. language: the one that the pages open in, en or
    zh (a reader can switch); empty: that of the last report here, else English.
    Raises InputError when the comparison was never executed, naming the command that does it.
    """
    notebook = reports / "comparison.ipynb"
    if not notebook.is_file():
        raise InputError(f"there is no {notebook}; run `adlib run params/quick.yaml` first, or execute "
                         "notebooks/06_comparison.ipynb with papermill")
    note = reports / "report.json"
    language = language or notes.read(note).get("language", "en")
    made_from = notes.of_report(reports) | {"language": language}
    if not again and not notes.changed(note, made_from) and (reports / "index.html").is_file():
        say(f"the report is up to date; open {reports / 'index.html'}")
        return reports / "index.html"
    table = compare.performance(reports)
    pages = [_data_page(table, path.parent) for path in sorted((reports / "eda").glob("*/notebook.ipynb"))]
    pages += [_run_page(reports, row) for row in table.itertuples()]
    pages += [_limits_page(table, folder) for folder in notes.limits(reports)]
    pages.append({"notebook": notebook, "title": t("Image anomaly detection: the study"), "synthetic": _drawn(table),
                  "warnings": sorted({f"Weights: {weights}" for weights in table["weights"] if weights.startswith("RANDOM")}),
                  "command": f"{retry} --report" if (retry := notes.read(reports / "comparison.json").get("retry")) else ""})
    links, same = _links(reports, table), _of_every_page(language)
    for page in pages:
        _write(page["notebook"], reports, same | page, links)
    files.write_json(note, made_from)
    say(f"{len(pages)} pages; open {reports / 'index.html'}")
    return reports / "index.html"


def _data_page(table: typing.Any, folder: Path) -> dict[str, typing.Any]:
    fingerprint = notes.read(folder / "eda.json").get("data")
    return {"notebook": folder / "notebook.ipynb", "title": t("{category}: the data", category=folder.name),
            "synthetic": _drawn(table[table["category"] == folder.name]),
            "facts": [(t("Data fingerprint"), fingerprint)] if fingerprint else []}


def _run_page(reports: Path, row: typing.Any) -> dict[str, typing.Any]:
    folder = reports / row.folder
    about = runs.manifest(folder)
    title = t("{category}: {configuration}", category=row.category, configuration=compare.label(row.name))
    page = {"notebook": folder / "notebook.ipynb", "title": title,
            "synthetic": row.synthetic is True, "warnings": [f"Weights: {row.weights}"] if row.weights.startswith("RANDOM") else [],
            "command": _command(about, folder), "facts": _facts(about), "figures": _figures(folder) if row.status == "finished" else []}
    if row.status != "finished":
        page["failure"] = {"what": t("This run did not finish"), "reason": f"{row.status}: {row.reason}", "log": _log(folder),
                           "command": _command(about, folder)}
    return page


def _limits_page(table: typing.Any, folder: Path) -> dict[str, typing.Any]:
    category, name = folder.parts[-2:]
    title = t("{category}: the limits of {configuration}", category=category, configuration=compare.label(name))
    page = {"notebook": folder / "notebook.ipynb", "title": title,
            "synthetic": _drawn(table[(table["category"] == category) & (table["name"] == name)])}
    if failure := notes.failure(folder / "limits.json"):
        page["failure"] = {"what": t("The work on these limits did not finish"), "reason": f"failed: {failure['failed']}",
                           "log": _log(folder), "command": failure["retry"]}
    return page


def _drawn(table: typing.Any) -> bool:
    return bool((table["synthetic"] == True).any())  # noqa: E712  (True, False or nothing)


def _log(folder: Path) -> str:
    return "\n".join(process.log_end(folder, 20))


def _of_every_page(language: str) -> dict[str, typing.Any]:
    """What the template needs to know whichever page it makes."""
    css, js = ((TEMPLATES / "study" / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    js_hash = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()  # the only script that the page's policy lets run
    return {"lang": lang.LANGUAGES[language], "css": css + _highlight_css(), "js": js, "js_hash": js_hash, "warnings": [], "failure": None,
            "command": "", "facts": [], "figures": [], "chinese": lang.strings().get,
            "tr": lambda text: lang.html(text if isinstance(text, Text) else Text(text, lang.strings().get(text, text)))}


def _links(reports: Path, table: typing.Any) -> dict[Text, list[dict[str, typing.Any]]]:
    """The pages by group, with what a reader wants to know of each before going there."""
    links: dict[Text, list[dict[str, typing.Any]]] = {}
    for path in sorted((reports / "eda").glob("*/notebook.ipynb")):
        links.setdefault(t("The data"), []).append({"folder": path.parent, "text": path.parent.name, "note": ""})
    for row in table.itertuples():
        name = compare.label(row.name)
        text = t("{configuration}, seed {seed}", configuration=name, seed=row.seed) if table["seed"].nunique() > 1 else name
        note = row.status if row.status != "finished" else "" if row.auroc != row.auroc else f"{row.auroc:.3f}"
        group = links.setdefault(t("Runs: {category}", category=row.category), [])
        group.append({"folder": reports / row.folder, "text": text, "note": note})
    for folder in notes.limits(reports):
        category, name = folder.parts[-2:]
        text = t("{category}: {configuration}", category=category, configuration=compare.label(name))
        note = "failed" if notes.failure(folder / "limits.json") else ""
        links.setdefault(t("Limits"), []).append({"folder": folder, "text": text, "note": note})
    return {name: [link | {"href": link["folder"].relative_to(reports).as_posix() + "/index.html"} for link in group]
            for name, group in links.items()}


def _facts(about: dict[str, typing.Any]) -> list[tuple[Text, str]]:
    """The manifest in rows: what a run was made from, and on what it ran."""
    if not about.get("params"):
        return []
    where = about.get("data", {})
    facts = [(t("Data"), f"{where.get('root')} ({where.get('layout')} layout)"), (t("Data fingerprint"), str(where.get("fingerprint"))),
             (t("Weights"), str(about.get("weights"))), (t("Device"), f"{about.get('device')}, {about.get('threads')} threads"),
             (t("Git revision"), str(about.get("git"))), (t("Started"), str(about.get("started")))]
    if about.get("seconds"):
        facts.append((t("Seconds in all"), f"{about['seconds']:.0f}"))
    return [*facts, (t("Versions"), ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items()))]


def _figures(folder: Path) -> list[tuple[Text, str, str]]:
    """What a finished run comes to, for the top of its page: name, number, and its 95 % interval."""
    measured = files.read_json(folder / "metrics.json")
    found = []
    same = measured["chosen"]["score"] == measured["score"]
    for name, part in ([] if same else [(measured["score"], measured)]) + [(measured["chosen"]["score"], measured["chosen"])]:
        entry = part["auroc"]["test"]
        if entry["value"] is not None:
            found.append((t("AUROC, {score}", score=name), f"{entry['value']:.3f}", f"{entry['low']:.2f}–{entry['high']:.2f}"))
    operating = (measured["chosen"].get("operating") or {}).get("test", {})
    for text, key in ((t("detections"), "detections"), (t("false alarms"), "false_alarms")):
        if (rate := operating.get(key)) and rate["n"]:
            found.append((text, f"{rate['count']} / {rate['n']}", f"{rate['low']:.0%}–{rate['high']:.0%}"))
    return found


def _command(about: dict[str, typing.Any], folder: Path) -> str:
    """The papermill command line that repeats a run by hand."""
    params = about.get("params") or {}
    notebook = runs.NOTEBOOKS.get(params.get("model"), "")
    return _papermill(f"notebooks/{notebook}", folder / "notebook.ipynb", params) if notebook else ""


def _papermill(notebook: str, output: Path, params: dict[str, typing.Any]) -> str:
    words = ["papermill", notebook, str(output), "-k", "python3"]
    for key, value in params.items():
        words += ["-p", key, str(value)] if value != "" else []
    return shlex.join(words)


def _write(notebook: Path, reports: Path, page: dict[str, typing.Any], links: dict[Text, list[dict[str, typing.Any]]]) -> None:
    """index.html in the folder of an executed notebook. The notebook's question, its first line, becomes the page's heading."""
    here = notebook.parent
    cells = _cells(notebook, page)
    question, _, rest = cells.cells[0].source.partition("\n")
    other, _, other_rest = lang.strings().get(cells.cells[0].source, "").partition("\n")
    cells.cells[0].source = rest.strip()
    executed = cells.metadata.get("papermill", {})
    if not page["command"] and executed.get("input_path"):
        page["command"] = _papermill(f"notebooks/{Path(executed['input_path']).name}", notebook, executed.get("parameters", {}))
    groups = [{"title": name, "links": [link | {"here": link["folder"] == here} for link in group]} for name, group in links.items()]
    page |= {"groups": groups, "up": "../" * len(here.relative_to(reports).parts),
             "question": Text(question.removeprefix("# "), other.removeprefix("# ") or None),
             "intro": Text(rest.strip(), other_rest.strip()),
             "credit": CREDIT_SYNTHETIC if page["synthetic"] else CREDIT,
             "downloads": [name for name in DOWNLOADS if (here / name).is_file()]}
    exporter = HTMLExporter(TraitConfig(), template_name="study", extra_template_basedirs=[str(TEMPLATES)])
    html, _ = exporter.from_notebook_node(cells, resources={"page": page})
    files.write_text(here / "index.html", html)


def _cells(notebook: Path, page: dict[str, typing.Any]) -> nbformat.NotebookNode:
    """An executed notebook, opening with its question; where there is none, one of the figures that a run by hand has left."""
    heading = f"# {' '.join(page['title'].split())}"  # one line, which is escaped; what follows is markdown, which may hold HTML
    try:
        cells = nbformat.read(notebook, as_version=4)
    except FileNotFoundError:  # it never started, or was run by hand with its notebook written elsewhere
        left = [] if page["failure"] else sorted(notebook.parent.glob("*.png"))  # those of a failure are an earlier attempt's
        pictures = [f"![The run's {png.stem.replace('_', ' ')}]({png.name})" for png in left]
        said = ["The executed notebook of this run is not in its folder; these are its figures."] if pictures else []
        cells = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("\n\n".join([heading, *said, *pictures]))])
    except (ValueError, AttributeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise InputError(f"{notebook} is not a notebook ({str(error)[:80]}); delete it and run it again") from error
    tags = [cell.metadata.get("tags", []) for cell in cells.cells]
    if any("injected-parameters" in each for each in tags):  # what was given stands above what would have been
        cells.cells = [cell for cell, each in zip(cells.cells, tags, strict=True) if "parameters" not in each]
    if not cells.cells or cells.cells[0].cell_type != "markdown":
        cells.cells.insert(0, nbformat.v4.new_markdown_cell(heading))
    return cells


def _highlight_css() -> str:
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none; }}"
