"""What adlib.data found, in words: where the data lie, what a check of them says, how an image was
disturbed."""
from __future__ import annotations

import math
import typing

import numpy as np

from adlib.data import corruptions, layout, untrusted
from adlib.data.quality import Findings
from adlib.report.words.i18n import Text, join, messages, t

if typing.TYPE_CHECKING:
    from adlib.data.layout import Category

MANY_SIZES = 6  # different ones that the data card still names one by one
MANY = 5  # names in a sentence
LISTED = ("unnamed", "outside", "eight_bits", "coarse")  # problems that may be those of every image


def data_source(rule: str, root_name: str) -> Text:
    """Where the data lie, by the folder's name alone. rule: a code of layout.find_root, or
    `folder` where it is not known."""
    return t(f"source.{rule}", folder=Text(root_name, root_name))  # a name, even if it is a word


def findings_rows(findings: Findings) -> list[tuple[Text, str]]:
    """The numbers of quality.check for a table: (what, value)."""
    def spell(counts: dict[str, int]) -> Text:
        return join((f"{key} ({value})" for key, value in counts.items()),
                    ", ") if counts else t("data.none")

    by_area = sorted(findings.sizes, key=lambda size: math.prod(map(int, size.split("x"))))
    sizes = spell(findings.sizes) if len(by_area) <= MANY_SIZES else t(
        "data.n_different_ones_least_most", n=len(by_area), least=by_area[0], most=by_area[-1],
        often=next(iter(findings.sizes)))
    deep = [(t("data.grey_values"), t("data.low_to_high", low=findings.grey_range[0],
                                      high=findings.grey_range[1]))] if findings.grey_range else []
    return [(t("data.images"), spell(findings.counts)), (t("data.sizes_pixels"), sizes),
            (t("data.modes"), spell(findings.modes)), *deep,
            (t("data.test_labels"), spell(findings.labels)),
            (t("data.masks"), join((f"{name} {n}/{of}"
                                    for name, (n, of) in findings.masks.items()), ", ")
             if any(n for n, _ in findings.masks.values()) else t("data.no_masks")),
            (t("data.identical_images_within_split"), str(len(findings.duplicates))),
            (t("data.identical_images_train_evaluation"), str(len(findings.leaks))),
            (t("data.unreadable"), str(len(findings.unreadable))),
            (t("data.files_no_images"), str(findings.ignored))]


def findings_problems(findings: Findings) -> list[str]:
    """Its problems, a sentence each; why a file cannot be read is told in its decoder's words."""
    sentences = []
    for code, names in findings.problems():
        if isinstance(names, dict):
            listed = names.get("names", ())
            sentences.append(t(code, **names | {"file": layout.LABELS, "n": len(listed),
                                                "names": layout.some(listed)}))
            continue
        listed = layout.some(names) if code in LISTED else join(names, ", ")
        if code in findings.noted:
            different = [untrusted.sanitized(name) for name in dict.fromkeys(names)]
            listed = join(different[:MANY], ", ") + (", ..." if len(different) > MANY else "")
        key = f"problem.{code}" if f"problem.{code}" in messages() else f"mask.{code}"
        said = t(key, name=listed, names=listed, n=len(names))
        sentences.append(said if code not in findings.noted else t("data.named", said=said,
                                                                   names=listed))
    return sentences


def corruption(name: str, strength: int) -> Text:
    """For a legend: "sensor noise, standard deviation 4% of the range". Raises ValueError for an
    unknown name or strength."""
    return t(f"corruption.{name}", amount=corruptions.amount(name, strength))


def samples(category: Category, pictures: dict[str, list[np.ndarray]]) -> Text:
    kinds = (t("data.n_kind", n=len(some), kind=kind) for kind, some in pictures.items())
    return t("data.samples", category=category.name, kinds=join(kinds, "; "))


def deviation(category: Category) -> Text:
    return t("data.deviation", category=category.name)


def brightness(values: dict[str, np.ndarray]) -> Text:
    medians = (t("list.value_3", name=kind, value=np.median(some)) for kind, some in values.items())
    return t("data.brightness", medians=join(medians, "; "))


def neighbours(near: int, anomalous: int, shown: int) -> Text:
    """Of how many anomalous images the nearest neighbour is anomalous, too (embedding.alike)."""
    if not anomalous:
        return t("data.no_anomalous_neighbours")
    return t("data.neighbours", n=anomalous, near=near, share=near / anomalous,
             base=anomalous / shown)


def data_answer(category: Category, findings: Findings, suspects: int = 0) -> Text:
    """How many images there are, and what speaks against them. suspects: pictures that may not be
    good."""
    counts = {"category": category.name, "train": len(category.train), "test": len(category.test)}
    problems = findings_problems(findings)
    return join([
        t("data.answer_with_bad", bad=len(category.train_bad), **counts) if category.train_bad
        else t("data.answer", **counts),
        t("data.n_problems", n=len(problems)) if problems else
        t("data.only_suspects", n=suspects) if suspects else t("data.fit_for_use")])


# ---- a run
