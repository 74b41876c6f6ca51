"""Executed notebooks to one offline site: reports/index.html, and a page for every look at the
data, every run and its limits."""
from __future__ import annotations

import base64
import hashlib
import shlex
import typing
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config as TraitConfig

from adlib.config import InputError, log, notebook_of
from adlib.data import files
from adlib.report import comparison, i18n
from adlib.report.i18n import Text, t
from adlib.runs import freshness, run_folder
from adlib.runs.engines import local

TEMPLATES = Path(__file__).parent / "templates"
CREDIT_SYNTHETIC = t("page.pictures_drawn_adlib_s_own")
CREDIT = t("page.pictures_data_named_above_images")
DOWNLOADS = ("summary.csv", "summary.json", "all_runs.csv", "all_results.csv", "metrics.json",
             "score_study.csv", "history.csv", "epochs.csv", "regions.csv", "robustness.csv",
             "detectability.csv", "smallest.csv", "run.json", "notebook.ipynb", "comparison.ipynb")


def build(reports: Path, *, again: bool = True, language: str = "") -> Path:
    """Render every page below `reports` from the executed notebooks and run folders there; return
    index.html's path.

    The index is the executed comparison notebook. A run that failed gets a page that says why, with
    the end of its log. again=False: only if something that the pages are made from has changed
    since. language: the one that the pages open in, en or zh (a reader can switch); empty: that of
    the last report here, else English. Raises InputError when the comparison was never executed,
    naming the command that does it.
    """
    notebook = reports / "comparison.ipynb"
    if not notebook.is_file():
        raise InputError(
            f"there is no {notebook}; run `adlib run params/grids/quick.yaml` first, or execute "
            "notebooks/06_comparison.ipynb with papermill")
    note = reports / "report.json"
    language = language or freshness.read(note).get("language", "en")
    made_from = freshness.of_report(reports) | {"language": language}
    if not again and not freshness.changed(note, made_from) and (reports / "index.html").is_file():
        log.info("the report is up to date; open %s", reports / "index.html")
        return reports / "index.html"
    table = comparison.performance(reports)
    pages = [
        _data_page(table, path.parent)
        for path in sorted((reports / "eda").glob("*/notebook.ipynb"))
    ]
    pages += [_run_page(reports, row) for row in table.itertuples()]
    pages += [_limits_page(table, folder) for folder in freshness.limits(reports)]
    pages.append({
        "notebook": notebook, "title": t("page.image_anomaly_detection_study"),
        "synthetic": _drawn(table), "warnings": sorted(
            {f"Weights: {weights}"
             for weights in table["weights"]
             if weights.startswith("RANDOM")}), "command": f"{retry} --report" if
        (retry := freshness.read(reports / "comparison.json").get("retry")) else ""
    })
    links, same = _links(reports, table), _of_every_page(language)
    for page in pages:
        _write(page["notebook"], reports, same | page, links)
    files.write_json(note, made_from)
    log.info("%d pages; open %s", len(pages), reports / "index.html")
    return reports / "index.html"


def _data_page(table: typing.Any, folder: Path) -> dict[str, typing.Any]:
    fingerprint = freshness.read(folder / "eda.json").get("data")
    return {
        "notebook": folder / "notebook.ipynb", "title": t(
            "page.category_data", category=folder.name), "synthetic": _drawn(
                table[table["category"] == folder.name]),
        "facts": [(t("page.data_fingerprint"), fingerprint)] if fingerprint else []
    }


def _run_page(reports: Path, row: typing.Any) -> dict[str, typing.Any]:
    folder = reports / row.folder
    about = run_folder.manifest(folder)
    title = t("page.category_configuration", category=row.category, configuration=comparison.label(
        row.name))
    page = {
        "notebook": folder / "notebook.ipynb", "title": title, "synthetic": row.synthetic is True,
        "warnings": [f"Weights: {row.weights}"] if row.weights.startswith("RANDOM") else [],
        "command": _command(about, folder), "facts": _facts(about),
        "figures": _figures(folder) if row.status == "finished" else []
    }
    if row.status != "finished":
        page["failure"] = {
            "what": t("page.run_did_not_finish"), "reason": f"{row.status}: {row.reason}",
            "log": _log(folder), "command": _command(about, folder)
        }
    return page


def _limits_page(table: typing.Any, folder: Path) -> dict[str, typing.Any]:
    category, name = folder.parts[-2:]
    title = t("page.category_limits_configuration", category=category,
              configuration=comparison.label(name))
    page = {
        "notebook": folder / "notebook.ipynb", "title": title, "synthetic": _drawn(
            table[(table["category"] == category) & (table["name"] == name)])
    }
    if failure := freshness.failure(folder / "limits.json"):
        page["failure"] = {
            "what": t("page.work_these_limits_did_not"), "reason": f"failed: {failure['failed']}",
            "log": _log(folder), "command": failure["retry"]
        }
    return page


def _drawn(table: typing.Any) -> bool:
    return bool((table["synthetic"] == True).any())  # noqa: E712  (True, False or nothing)


def _log(folder: Path) -> str:
    return "\n".join(local.log_end(folder, 20))


def _of_every_page(language: str) -> dict[str, typing.Any]:
    """What the template needs to know whichever page it makes."""
    css, js = ((TEMPLATES / "study" / name).read_text(encoding="utf-8")
               for name in ("style.css", "page.js"))
    # the only script that the page's policy lets run
    js_hash = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    return {
        "lang": i18n.LANGUAGES[language], "css": css + _highlight_css(), "js": js,
        "js_hash": js_hash, "warnings": [], "failure": None, "command": "", "facts": [],
        "figures": [], "chinese": i18n.strings().get, "tr": lambda text: i18n.html(
            text if isinstance(text, Text) else Text(text,
                                                     i18n.strings().get(text, text)))
    }


def _links(reports: Path, table: typing.Any) -> dict[Text, list[dict[str, typing.Any]]]:
    """The pages by group, with what a reader wants to know of each before going there."""
    links: dict[Text, list[dict[str, typing.Any]]] = {}
    for path in sorted((reports / "eda").glob("*/notebook.ipynb")):
        links.setdefault(t("page.data_2"), []).append(
            {"folder": path.parent, "text": path.parent.name, "note": ""})
    for row in table.itertuples():
        name = comparison.label(row.name)
        text = t("page.configuration_seed_seed", configuration=name,
                 seed=row.seed) if table["seed"].nunique() > 1 else name
        note = row.status if row.status != "finished" else "" if row.auroc != row.auroc else f"{row.auroc:.3f}"
        group = links.setdefault(t("page.runs_category", category=row.category), [])
        group.append({"folder": reports / row.folder, "text": text, "note": note})
    for folder in freshness.limits(reports):
        category, name = folder.parts[-2:]
        text = t("page.category_configuration", category=category,
                 configuration=comparison.label(name))
        note = "failed" if freshness.failure(folder / "limits.json") else ""
        links.setdefault(t("page.limits"), []).append(
            {"folder": folder, "text": text, "note": note})
    return {
        name: [
            link | {"href": link["folder"].relative_to(reports).as_posix() + "/index.html"}
            for link in group
        ]
        for name, group in links.items()
    }


def _facts(about: dict[str, typing.Any]) -> list[tuple[Text, str]]:
    """The manifest in rows: what a run was made from, and on what it ran."""
    if not about.get("params"):
        return []
    where = about.get("data", {})
    facts = [(t("page.data"), f"{where.get('root')} ({where.get('layout')} layout)"),
             (t("page.data_fingerprint"), str(where.get("fingerprint"))),
             (t("page.weights"), str(about.get("weights"))),
             (t("page.device"), f"{about.get('device')}, {about.get('threads')} threads"),
             (t("page.git_revision"), str(about.get("git"))),
             (t("page.started"), str(about.get("started")))]
    if about.get("seconds"):
        facts.append((t("page.seconds_all"), f"{about['seconds']:.0f}"))
    return [
        *facts,
        (t("page.versions"), ", ".join(
            f"{name} {version}" for name, version in about.get("versions", {}).items()))
    ]


def _figures(folder: Path) -> list[tuple[Text, str, str]]:
    """What a finished run comes to, for the top of its page: name, number, and its 95 % interval.
    """
    measured = files.read_json(folder / "metrics.json")
    found = []
    same = measured["chosen"]["score"] == measured["score"]
    for name, part in ([] if same else [(measured["score"], measured)]) + [
        (measured["chosen"]["score"], measured["chosen"])
    ]:
        entry = part["auroc"]["test"]
        if entry["value"] is not None:
            found.append(
                (t("page.auroc_score",
                   score=name), f"{entry['value']:.3f}", f"{entry['low']:.2f}–{entry['high']:.2f}"))
    operating = (measured["chosen"].get("operating") or {}).get("test", {})
    for text, key in ((t("page.detections"), "detections"), (t("page.false_positives"),
                                                             "false_positives")):
        if (rate := operating.get(key)) and rate["n"]:
            found.append(
                (text, f"{rate['count']} / {rate['n']}", f"{rate['low']:.0%}–{rate['high']:.0%}"))
    return found


def _command(about: dict[str, typing.Any], folder: Path) -> str:
    """The papermill command line that repeats a run by hand."""
    params = about.get("params") or {}
    notebook = notebook_of(params["model"]) if "model" in params else ""
    return _papermill(f"notebooks/{notebook}", folder /
                      "notebook.ipynb", params) if notebook else ""


def _papermill(notebook: str, output: Path, params: dict[str, typing.Any]) -> str:
    words = ["papermill", notebook, str(output), "-k", "python3"]
    for key, value in params.items():
        words += ["-p", key, str(value)] if value != "" else []
    return shlex.join(words)


def _write(notebook: Path, reports: Path, page: dict[str, typing.Any],
           links: dict[Text, list[dict[str, typing.Any]]]) -> None:
    """index.html in the folder of an executed notebook. The notebook's question, its first line,
    becomes the page's heading."""
    here = notebook.parent
    cells = _cells(notebook, page)
    question, _, rest = cells.cells[0].source.partition("\n")
    other, _, other_rest = i18n.strings().get(cells.cells[0].source, "").partition("\n")
    cells.cells[0].source = rest.strip()
    executed = cells.metadata.get("papermill", {})
    if not page["command"] and executed.get("input_path"):
        page["command"] = _papermill(f"notebooks/{Path(executed['input_path']).name}", notebook,
                                     executed.get("parameters", {}))
    groups = [{"title": name, "links": [link | {"here": link["folder"] == here} for link in group]}
              for name, group in links.items()]
    page |= {
        "groups": groups, "up": "../" * len(here.relative_to(reports).parts), "question": Text(
            question.removeprefix("# "),
            other.removeprefix("# ") or None), "intro": Text(rest.strip(), other_rest.strip()),
        "credit": CREDIT_SYNTHETIC if page["synthetic"] else CREDIT,
        "downloads": [name for name in DOWNLOADS if (here / name).is_file()]
    }
    exporter = HTMLExporter(TraitConfig(), template_name="study",
                            extra_template_basedirs=[str(TEMPLATES)])
    html, _ = exporter.from_notebook_node(cells, resources={"page": page})
    files.write_text(here / "index.html", html)


def _cells(notebook: Path, page: dict[str, typing.Any]) -> nbformat.NotebookNode:
    """An executed notebook, opening with its question; where there is none, one of the figures that
    a run by hand has left."""
    # one line, which is escaped; what follows is markdown, which may hold HTML
    heading = f"# {' '.join(page['title'].split())}"
    try:
        cells = nbformat.read(notebook, as_version=4)
    # it never started, or was run by hand with its notebook written elsewhere
    except FileNotFoundError:
        # those of a failure are an earlier attempt's
        left = [] if page["failure"] else sorted(notebook.parent.glob("*.png"))
        pictures = [f"![The run's {png.stem.replace('_', ' ')}]({png.name})" for png in left]
        said = ["The executed notebook of this run is not in its folder; these are its figures."
                ] if pictures else []
        cells = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_markdown_cell("\n\n".join([heading, *said, *pictures]))])
    except (ValueError, AttributeError, nbformat.reader.NotJSONError,
            nbformat.ValidationError) as error:
        raise InputError(
            f"{notebook} is not a notebook ({str(error)[:80]}); delete it and run it again"
        ) from error
    tags = [cell.metadata.get("tags", []) for cell in cells.cells]
    # what was given stands above what would have been
    if any("injected-parameters" in each for each in tags):
        cells.cells = [
            cell for cell, each in zip(cells.cells, tags, strict=True) if "parameters" not in each
        ]
    if not cells.cells or cells.cells[0].cell_type != "markdown":
        cells.cells.insert(0, nbformat.v4.new_markdown_cell(heading))
    return cells


def _highlight_css() -> str:
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight")
                   for style in ("default", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none; }}"
