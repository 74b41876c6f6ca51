"""A finished run opened to be looked at: its results, its threshold, what it sees in single
pictures, and that as HTML."""
from __future__ import annotations

import dataclasses
import functools
import math
import typing
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adlib.config import Config, InputError, did_you_mean
from adlib.data import images, layout
from adlib.data.synthetic import anomalies
from adlib.evaluation import calibration, limits, verdicts
from adlib.models import anomaly_maps
from adlib.report import clouds, comparison, scenes
from adlib.report.i18n import Text, t
from adlib.runs import run_folder

# pixels a side of a picture among many, beside another run's, and on its own
SMALL, MIDDLE, LARGE = 96, 128, 200


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a run sees in one picture."""

    picture: np.ndarray  # uint8 [S,S,3]
    map_: np.ndarray  # float32 [S,S], of the run's score
    score: float
    # its reconstruction, uint8 [S,S,3]; only an autoencoder's run has one
    redrawn: np.ndarray | None
    truth: np.ndarray | None = None  # bool [S,S]; None where no mask is known


@dataclasses.dataclass(frozen=True)
class Look:
    """A finished run to look through."""

    run: limits.Reopened
    # a row an image: path, split, label, defect, score and p_value (those of the score that the
    # study uses)
    rows: pd.DataFrame
    results: pd.DataFrame  # all_results.csv
    kept: dict[str, Seen] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.run.config.name

    @functools.cached_property
    def line(self) -> float:
        """An image is called anomalous from this score on, decided without a label. inf: none is;
        NaN: there is no threshold."""
        if math.isfinite(self.run.threshold):
            return float(np.nextafter(self.run.threshold, np.inf))  # above it
        return verdicts.asked(self.results, self.run.config.target_fpr, "chosen_")

    def images(self, keys: typing.Sequence[str]) -> list[Seen]:
        """Images of the category by their keys (the column `path`), with their masks."""
        new = [key for key in dict.fromkeys(keys) if key not in self.kept]
        paths, size, category = [self.run.category.root / key
                                 for key in new], self.run.config.image_size, self.run.category
        masks = [
            layout.mask_path(category, path) if category.layout == "mvtec" else None
            for path in paths
        ]
        for key, seen, mask, truth in zip(new, self.pictures(images.load(paths, size)), masks,
                                          images.load_masks(masks, size), strict=True):
            self.kept[key] = seen if mask is None else dataclasses.replace(
                seen, truth=truth.numpy())
        return [self.kept[key] for key in keys]

    def pictures(self, pictures: torch.Tensor) -> list[Seen]:
        """The same of any pictures, uint8 [N,3,S,S]."""
        return [seen for part in pictures.split(calibration.BATCH)
                for seen in self._part(part)] if len(pictures) else []

    def _part(self, pictures: torch.Tensor) -> list[Seen]:
        run, redrawn = self.run, [None] * len(pictures)
        if run.network is None:
            found = run.scorer(pictures)
        else:  # what its scorer does, but for the reconstruction that is kept
            x, y = (torch.cat(side) for side in zip(
                *anomaly_maps.reconstructions(run.network, pictures, run.config), strict=True))
            found = {
                name: values.cpu().numpy()
                for name, values in anomaly_maps.pixel_maps(x, y).items()
            }
            redrawn = (y * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        smoothed = anomaly_maps.all_maps(found, run.scale)
        maps = calibration.map_of(smoothed, pictures.shape[-1], run.score)
        scores = anomaly_maps.reduced(found, smoothed)[run.score]
        return [
            Seen(*parts) for parts in zip(
                pictures.permute(0, 2, 3, 1).numpy(), maps, scores, redrawn, strict=True)
        ]

    def strip(self, seen: Seen, size: int, name: str, caption: str, *, titled: bool = False) -> str:
        """Its pictures side by side, in the run's one colour scale."""
        shown = scenes.views(seen.picture, seen.map_, low=self.run.low, level=self.run.level,
                             size=size, redrawn=seen.redrawn, truth=seen.truth)
        return scenes.strip(shown, name, caption, titled=titled)


def look(folder: Path, data_root: str = "") -> Look:
    """Open the finished run of a folder; an InputError as in limits.reopen."""
    run, results = limits.reopen(folder, data_root), comparison.read_results(folder)
    rows = results[["path", "split", "label", "defect"]].assign(
        label=results["label"].astype("Int64"), defect=results["defect"].fillna(""),
        score=results["chosen_score"], p_value=results["chosen_p_value"])
    return Look(run, rows, results)


def find(config: Config) -> Path:
    """The folder of the finished run that a configuration's name and seed mean; without a category,
    of the first that has one.

    Raises InputError, in one sentence, where there is none.
    """
    reports = run_folder.reports_dir(config.reports)
    done = [
        path for path in run_folder.all_runs(reports) if run_folder.status(path).state == "finished"
    ]
    for path in done:
        if path.parent.name == config.name and path.name == f"seed-{config.seed}" and config.category in (
                "", path.parts[-3]):
            return path
    if not done:
        raise InputError(
            f"there is no finished run in {reports}; run `adlib run params/grids/quick.yaml` first")
    wanted = f"{config.category}/{config.name}/seed-{config.seed}".removeprefix("/")
    raise InputError(
        f"{reports} has no finished run {wanted!r} (run its configuration first, or set category, "
        f"name and seed)"
        f"{did_you_mean(wanted, ['/'.join(path.parts[-3:]) for path in done])}")


def others(folder: Path) -> dict[str, Path]:
    """{configuration: folder} of the finished runs of the same category and reports, other
    configurations, the first seed of each."""
    found: dict[str, Path] = {}
    for path in run_folder.all_runs(folder.parents[3]):
        if path.parts[-3] == folder.parts[-3] and path.parent != folder.parent and run_folder.status(
                path).state == "finished":
            found.setdefault(path.parent.name, path)
    return found


def page(look: Look, rows: pd.DataFrame, number: int, each: int) -> str:
    """The images of page `number` (1, 2, ...; after the last comes the first) of rows of
    `look.rows`, `each` a page."""
    if rows.empty:
        return scenes.paragraph(t("view.no_image_like"))
    start = (number - 1) % math.ceil(len(rows) / each) * each
    shown = rows.iloc[start:start + each]
    said = t("data.first_last_n_images", first=start + 1, last=start + len(shown), n=len(rows))
    strips = [
        look.strip(
            seen, SMALL, row.path,
            scenes.caption(row.defect,
                           Path(row.path).name, row.score, row.p_value, _known(row.label),
                           look.line))
        for row, seen in zip(shown.itertuples(), look.images(list(shown["path"])), strict=True)
    ]
    return scenes.paragraph(said + " " +
                            outlines(any(look.kept[key].truth is not None
                                         for key in shown["path"]))) + scenes.flow(strips)


def outlines(truth: bool) -> Text:
    """What the outlines in the pictures mean; `truth`: whether there are masks."""
    if truth:
        return t("view.dashed_map_exceeds_one_twenty_2")
    return t("view.dashed_map_exceeds_one_twenty")


def together(one: Look, other: Look) -> pd.DataFrame:
    """The test images of two runs: path, label, defect, score, score_other; apart in [-1,1], how
    much higher `other` ranks it. By apart."""
    test = one.rows[one.rows["split"] == "test"]
    both = test.merge(other.rows.loc[other.rows["split"] == "test", ["path", "score"]], on="path",
                      suffixes=("", "_other"))
    apart = both["score_other"].rank(pct=True) - both["score"].rank(pct=True)
    return both.assign(apart=apart).sort_values("apart", kind="stable", ignore_index=True)


def farthest(pairs: pd.DataFrame) -> int:
    """The row of the anomalous image that two runs rank most differently; of any image where none
    is known to be anomalous."""
    apart = pairs["apart"].abs()
    anomalous = (pairs["label"] == 1).fillna(False)
    return int((apart.where(anomalous) if anomalous.any() else apart).argmax())


def compared(one: Look, other: Look, pairs: pd.DataFrame, i: int) -> str:
    """Row i of `together`: what either run sees in the image, and where it lies among their scores.
    """
    row, strips = pairs.iloc[i], []
    label = _known(row["label"])
    for look, value in ((one, row["score"]), (other, row["score_other"])):
        caption = f"<strong>{escape(look.name)}</strong> · {look.run.score} {value:.4g} {scenes.verdict(value, label, look.line)}"
        strips.append(
            look.strip(*look.images([row["path"]]), MIDDLE, f"{look.name}, {row['path']}", caption,
                       titled=True))
    plot = clouds.scatter(pairs["score"].to_numpy(float), pairs["score_other"].to_numpy(float),
                          [_known(label) for label in pairs["label"]],
                          tuple(f"{look.name}: {look.run.score}" for look in (one, other)),
                          (one.line, other.line), i)
    said = t("view.defect_file", defect=row["defect"] or t("view.unlabelled"), file=row["path"])
    return scenes.paragraph(said) + scenes.flow(
        [plot, "<div>" + '<div style="height:10px"></div>'.join(strips) + "</div>"])


def dropped(look: Look, picture: torch.Tensor, other: torch.Tensor, kind: str, *,
            centre: tuple[float,
                          float], size: float, contrast: float, seed: int, before: float) -> str:
    """A good picture with an anomaly dropped into it (anomalies.drop), and what the run makes of
    that. before: the score without it."""
    changed, mask = anomalies.drop(picture, other, kind, centre=centre, size=size,
                                   contrast=contrast, seed=seed)
    (seen, ) = look.pictures(changed[None])
    test = look.rows[look.rows["split"] == "test"]
    good, bad = (test.loc[(test["label"] == label).fillna(False), "score"].to_numpy(float)
                 for label in (0, 1))
    said = t("view.share_image_changed_name_before", share=float(mask.float().mean()),
             name=look.run.score, before=before, after=seen.score)
    caption = f"{scenes.both(said)} {scenes.verdict(seen.score, int(mask.any()), look.line)}"
    return look.strip(dataclasses.replace(seen, truth=mask.numpy()), LARGE, kind, caption,
                      titled=True) + scenes.gauge(seen.score, good, bad, look.line, look.run.score)


def _known(label: typing.Any) -> int | None:
    return None if pd.isna(label) else int(label)
