"""Executed notebooks to one offline site: reports/index.html, and a page for every look at the data, every run and its limits."""
from __future__ import annotations

import shlex
import typing
from html import escape
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter
from traitlets.config import Config as TraitConfig

from adlib import compare, files, notes, process, runs
from adlib.config import InputError

TEMPLATES = Path(__file__).parent / "templates"
CREDIT_SYNTHETIC = "Pictures: drawn by adlib's own generator."
CREDIT = ("Pictures: the data named above. Images of MVTec AD are by Bergmann, Fauser, Sattlegger and Steger (CVPR 2019), under "
          "CC BY-NC-SA 4.0: pages that show them may be passed on under that licence only, and not used commercially.")


def build(reports: Path, say: typing.Callable[[str], None] = print, *, again: bool = True) -> Path:
    """Render every page below `reports` from the executed notebooks and run folders there; return index.html's path.

    The index is the executed comparison notebook. A run that failed gets a page that says why, with the end of its log.
    again=False: only if something that the pages are made from has changed since.
    Raises InputError when the comparison was never executed, naming the command that does it.
    """
    notebook = reports / "comparison.ipynb"
    if not notebook.is_file():
        raise InputError(f"there is no {notebook}; run `adlib run params/quick.yaml` first, or execute "
                         "notebooks/06_comparison.ipynb with papermill")
    made_from, note = notes.of_report(reports), reports / "report.json"
    if not again and not notes.changed(note, made_from) and (reports / "index.html").is_file():
        say(f"the report is up to date; open {reports / 'index.html'}")
        return reports / "index.html"
    table = compare.performance(reports)
    synthetic = bool((table["synthetic"] == True).any())  # noqa: E712  (True, False or nothing)
    pages = 0
    for path in sorted((reports / "eda").glob("*/notebook.ipynb")):
        category = path.parent.name
        rows = table[(table["category"] == category) & table["synthetic"].notna()]
        _write(path.parent / "index.html", path, _page(reports, table, f"eda/{category}/index.html", f"{category}: the data",
                                                       synthetic=bool(rows["synthetic"].any())))
        pages += 1
    for row in table.itertuples():
        _write(reports / row.folder / "index.html", reports / row.folder / "notebook.ipynb", _run_page(reports, table, row))
        pages += 1
    for folder in notes.limits(reports):
        _write(folder / "index.html", folder / "notebook.ipynb", _limits_page(reports, table, folder))
        pages += 1
    warnings = sorted({f"Weights: {weights}" for weights in table["weights"] if weights.startswith("RANDOM")})
    _write(reports / "index.html", notebook,
           _page(reports, table, "index.html", "Image anomaly detection: the study", synthetic=synthetic, warnings=warnings))
    files.write_json(note, made_from)
    say(f"{pages + 1} pages; open {reports / 'index.html'}")
    return reports / "index.html"


def _run_page(reports: Path, table: typing.Any, row: typing.Any) -> dict[str, typing.Any]:
    folder = reports / row.folder
    about = runs.manifest(folder)
    warnings = [f"Weights: {row.weights}"] if row.weights.startswith("RANDOM") else []
    page = _page(reports, table, f"{row.folder}/index.html", f"{row.category}: {row.label}", synthetic=row.synthetic is True,
                 warnings=warnings, facts=_facts(about, folder))
    if row.status != "finished":
        page["failure"] = {"what": "This run", "reason": f"{row.status}: {row.reason}", "log": _log(folder),
                           "command": _command(about, folder)}
    return page


def _limits_page(reports: Path, table: typing.Any, folder: Path) -> dict[str, typing.Any]:
    category, name = folder.parts[-2:]
    mine = table[(table["category"] == category) & (table["name"] == name)]
    page = _page(reports, table, f"limits/{category}/{name}/index.html", f"{category}: the limits of {compare.LABELS.get(name, name)}",
                 synthetic=bool((mine["synthetic"] == True).any()))  # noqa: E712  (True, False or nothing)
    if failure := notes.failure(folder / "limits.json"):
        page["failure"] = {"what": "The work on these limits", "reason": f"failed: {failure['failed']}", "log": _log(folder),
                           "command": failure["retry"]}
    return page


def _log(folder: Path) -> str:
    return "\n".join(process.log_end(folder, 20))


def _page(reports: Path, table: typing.Any, here: str, title: str, *, synthetic: bool, warnings: typing.Sequence[str] = (),
          facts: typing.Sequence[tuple[str, str]] = ()) -> dict[str, typing.Any]:
    """What the template needs to know of a page; `here` is its path below reports/, with '/'."""
    data_pages = [f"eda/{path.parent.name}/index.html" for path in sorted((reports / "eda").glob("*/notebook.ipynb"))]
    links = {"The data": [{"href": href, "text": href.split("/")[1], "note": ""} for href in data_pages]}
    for row in table.itertuples():
        text = row.label + (f", seed {row.seed}" if table["seed"].nunique() > 1 else "")
        note = row.status if row.status != "finished" else "" if row.auroc != row.auroc else f"{row.auroc:.3f}"
        links.setdefault(f"Runs: {row.category}", []).append({"href": f"{row.folder}/index.html", "text": text, "note": note})
    for folder in notes.limits(reports):
        category, name = folder.parts[-2:]
        text, note = f"{category}: {compare.LABELS.get(name, name)}", "failed" if notes.failure(folder / "limits.json") else ""
        links.setdefault("Limits", []).append({"href": f"limits/{category}/{name}/index.html", "text": text, "note": note})
    groups = [{"title": name, "open": False, "links": [link | {"here": link["href"] == here} for link in entries]}
              for name, entries in links.items() if entries]
    return {"title": title, "up": "../" * here.count("/"), "groups": groups, "synthetic": synthetic, "warnings": list(warnings),
            "failure": None, "facts": list(facts), "credit": CREDIT_SYNTHETIC if synthetic else CREDIT,
            "css": (TEMPLATES / "study" / "style.css").read_text(encoding="utf-8") + _highlight_css()}


def _facts(about: dict[str, typing.Any], folder: Path) -> list[tuple[str, str]]:
    """The manifest in rows: the command that makes this page again, then what it ran on."""
    if not about.get("params"):
        return []
    where = about.get("data", {})
    facts = [("Command", _command(about, folder)), ("Data", f"{where.get('root')} ({where.get('layout')} layout)"),
             ("Data fingerprint", str(where.get("fingerprint"))), ("Weights", str(about.get("weights"))),
             ("Device", f"{about.get('device')}, {about.get('threads')} threads"), ("Git revision", str(about.get("git"))),
             ("Started", str(about.get("started")))]
    if about.get("seconds"):
        facts.append(("Seconds in all", f"{about['seconds']:.0f}"))
    facts.append(("Versions", ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())))
    return facts


def _command(about: dict[str, typing.Any], folder: Path) -> str:
    """The papermill command line that repeats a run by hand."""
    params = about.get("params") or {}
    notebook = runs.NOTEBOOKS.get(params.get("model"), "")
    if not notebook:
        return ""
    words = ["papermill", f"notebooks/{notebook}", str(folder / "notebook.ipynb"), "-k", "python3"]
    for key, value in params.items():
        words += ["-p", key, str(value)] if value != "" else []
    return shlex.join(words)


def _write(path: Path, notebook: Path, page: dict[str, typing.Any]) -> None:
    exporter = HTMLExporter(TraitConfig(), template_name="study", extra_template_basedirs=[str(TEMPLATES)])
    try:
        cells = nbformat.read(notebook, as_version=4)
    except FileNotFoundError:  # it never started, or was run by hand with its notebook written elsewhere
        left = [] if page["failure"] else sorted(notebook.parent.glob("*.png"))  # those of a failure are an earlier attempt's
        pictures = [f"![The run's {png.stem.replace('_', ' ')}]({png.name})" for png in left]
        said = ["The executed notebook of this run is not in its folder; these are its figures."] if pictures else []
        text = "\n\n".join([f"# {escape(page['title'])}", *said, *pictures])
        cells = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    except (ValueError, AttributeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise InputError(f"{notebook} is not a notebook ({str(error)[:80]}); delete it and run it again") from error
    html, _ = exporter.from_notebook_node(cells, resources={"page": page})
    files.write_text(path, html)


def _highlight_css() -> str:
    from pygments.formatters import HtmlFormatter

    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("default", "github-dark"))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}\n.highlight {{ background: none; }}"
