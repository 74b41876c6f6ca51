"""What adlib.data found, in words: where the data lie, what a check of them says, how an image was
disturbed."""
from __future__ import annotations

import math

from adlib.data import corruptions, layout, untrusted
from adlib.data.quality import Findings
from adlib.report.i18n import Text, join, t

MANY_SIZES = 6  # different ones that the data card still names one by one
MANY = 5  # names in a sentence
NAMED_BY = {
    "parameter": "data.parameter_data_root", "environment": "data.environment_variable_adlib_data"
}
FOLDERS = {
    "project": "data.data_folder_project_s_data", "drawn": "data.data_folder_drawn_adlib_because"
}
PROBLEMS = {
    "unreadable": "data.cannot_read_name", "leak": "data.same_image_training_evaluation_flatters",
    "duplicate": "data.same_image_more_than_once", "no_labels": "data.test_images_no_labels_they",
    "all_good": "data.test_images_all_good_will",
    "all_anomalous": "data.test_images_all_anomalous_will", "no_test": "data.no_test",
    **{code: f"data.{code}" for code in ("unread", "stray", "bare", "respelled", "alike")},
    **{code: f"mask.{code}" for code in ("absent", "contradicted", "empty", "most", "levels",
                                         "exif", "turned", "kept")},
    "unnamed": "data.unnamed", "outside": "data.clipped", "eight_bits": "data.eight_bits",
    "coarse": "data.coarse"
}
LISTED = ("unnamed", "outside", "eight_bits", "coarse")  # problems that may be those of every image
CORRUPTIONS = {
    "noise": "limits.sensor_noise_standard_deviation_amount",
    "blur": "limits.out_focus_gaussian_sigma_amount", "brighter": "limits.brighter_amount_range",
    "darker": "limits.darker_amount_range", "contrast": "limits.contrast_about_image_s_mean",
    "jpeg": "limits.jpeg_compression_quality_amount",
    "rotation": "limits.turned_amount_degrees_every_other",
    "shift": "limits.shifted_amount_image_s_side"
}


def data_source(rule: str, root_name: str) -> Text:
    """Where the data lie, by the folder's name alone. rule: a code of layout.find_root; of what an
    older version wrote in its place, the folder is all that is told."""
    folder = Text(root_name, root_name)  # a name, even where it is a word that has a Chinese
    if rule in NAMED_BY:
        return t("data.data_folder_rule", folder=folder, rule=t(NAMED_BY[rule]))
    return t(FOLDERS.get(rule, "data.data_folder"), folder=folder)


def findings_rows(findings: Findings) -> list[tuple[Text, str]]:
    """The numbers of quality.check for a table: (what, value)."""
    def spell(counts: dict[str, int]) -> Text:
        return join((f"{key} {value}" for key, value in counts.items()),
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
            (t("data.masks"), spell({name: f"{n}/{of}" for name, (n, of) in findings.masks.items()})
             if any(n for n, _ in findings.masks.values()) else t("data.no_masks")),
            (t("data.identical_images_within_split"), str(len(findings.duplicates))),
            (t("data.identical_images_train_evaluation"), str(len(findings.leaks))),
            (t("data.unreadable"), str(len(findings.unreadable))),
            (t("data.files_no_images"), str(findings.ignored))]


def findings_problems(findings: Findings) -> list[str]:
    """Its problems, a sentence each; what is wrong with the labels or masks is told in English
    alone."""
    sentences = []
    for code, names in findings.problems():
        listed = layout.some(names) if code in LISTED else join(names, ", ")
        if code in findings.noted:
            different = [untrusted.sanitized(name) for name in dict.fromkeys(names)]
            listed = join(different[:MANY], ", ") + (", ..." if len(different) > MANY else "")
        said = listed if code in ("labels", "masks") else t(PROBLEMS[code], name=listed,
                                                            names=listed, n=len(names))
        sentences.append(said if code not in findings.noted else t("data.named", said=said,
                                                                   names=listed))
    return sentences


def corruption(name: str, strength: int) -> Text:
    """For a legend: "sensor noise, standard deviation 4 % of the range". Raises ValueError for an
    unknown name or strength."""
    amount = corruptions.amount(name, strength)
    return t(CORRUPTIONS[name], amount=amount)
