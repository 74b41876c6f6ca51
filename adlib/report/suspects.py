"""The good training pictures that may not be good: in words, as a gallery, and as a list that the
parameter `exclude` takes."""
from __future__ import annotations

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from adlib.data import files, images, layout
from adlib.data.part import Part
from adlib.evaluation import suspects
from adlib.report import comparison
from adlib.report.display import components
from adlib.report.pages import site
from adlib.report.words.i18n import Text, join, named, t
from adlib.runs import freshness, run_folder

LIST = "suspects.txt"
MOST, SIDE = 60, 144  # pictures shown; pixels that one is high at the most, and twice as wide
HEAD = ("# {n} of {of} good training pictures that may not be good, the most suspect first.\n"
        "# Delete the lines of those that are good, and give this file as `exclude`.\n")


def of_part(part: Part) -> pd.DataFrame:
    """suspects.rank of a part's good images; the list is kept beside the data's page."""
    ranked = suspects.rank(part.good, part.config)
    write_list(ranked, _home(part))
    return ranked


def _home(part: Part) -> Path:
    return run_folder.reports_dir(part.config.reports) / "eda" / part.category.name


def page(category: layout.Category, found: pd.DataFrame, folder: Path, weights: str = "",
         language: str = "") -> Path:
    """A page of its own with the gallery, and the list, in a folder; the path of the list."""
    written = write_list(found, folder)
    site.standalone_page(folder, t("suspects.title", category=category.name), [
        ("suspects", t("suspects.heading"),
         [components.paragraph(said(found)), gallery(found, category)])],
        synthetic=category.synthetic, language=language, home=folder.parents[1],
        command=["adlib", "check", "--data", str(category.root),
                 *(["--weights", weights] if weights else []), "--reports",
                 str(folder.parents[1])], mvtec=comparison.of_mvtec(pd.DataFrame([
            {"category": category.name, "data": category.root.name, "layout": category.layout}])))
    return written


def write_list(found: pd.DataFrame, folder: Path) -> Path:
    """A name a line, and why above it. A category may be called #1, and no name begin a comment."""
    chosen, lines = _chosen(found), []
    for row in chosen.itertuples():
        lines += [f"# {_why(row)}", "./" * row.path.startswith("#") + row.path]
    files.write_text(folder / LIST, HEAD.format(n=len(chosen), of=len(found))
                     + "".join(f"{line}\n" for line in lines))
    return folder / LIST


def said(found: pd.DataFrame, part: Part | None = None) -> Text:
    """How many there are of each kind, and what to do. part: where somebody is at a notebook, the
    list is named by its path, which `exclude` takes; on a page it lies beside."""
    if found.empty:
        return t("suspects.too_few", least=suspects.FEWEST)
    counts = _chosen(found)["reason"].value_counts()
    if counts.empty:
        return t("suspects.none", n=len(found))
    kinds = join((t("list.n_of", n=counts[reason], what=named("suspect", reason))
                  for reason in suspects.REASONS if reason in counts), ", ")
    listed = (_home(part) / LIST).resolve() if part and freshness.attended() else LIST
    return t("suspects.some", n=int(counts.sum()), of=len(found), kinds=kinds, list=listed)


def left_out(part: Part) -> Text:
    """What `robust` left out of a run, in words."""
    n = len(part.category.train)
    if n < suspects.LEAST:
        return t("suspects.too_few", least=suspects.LEAST)
    if not part.left_out:
        return t("suspects.left_out_none", n=n)
    return t("suspects.left_out", n=len(part.left_out), of=n)


def gallery(found: pd.DataFrame, category: layout.Category, caption: str = "suspects.caption",
            data: str = LIST) -> Markup:
    """The suspect pictures, the first MOST of them, each with why, as a figure; "" where there is
    none. data: the file of their names, beside the page."""
    chosen = _chosen(found).head(MOST)
    if chosen.empty:
        return Markup("")
    grey_range = images.grey_range(category.train)
    paths = [category.root / path for path in chosen["path"]]
    shown = files.in_threads(lambda path: images.small(path, SIDE, grey_range), paths)
    strips = [components.strip({t("data.image"): picture}, row.path,
                               join([Text(path.name, path.name), _why(row)], ": "))
              for row, path, picture in zip(chosen.itertuples(), paths, shown, strict=True)]
    return components.figure(components.flow(strips), "suspect-pictures",
                             t(caption, n=len(strips)), data)


def _why(row: object) -> Text:
    if row.reason == "copy":
        return t("suspects.copy_of", of=row.of.rpartition("/")[2])
    return t("suspects.why", reason=named("suspect", row.reason), distance=row.distance)


def _chosen(found: pd.DataFrame) -> pd.DataFrame:
    return found[found["reason"] != ""]
