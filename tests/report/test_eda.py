"""What the first notebook shows: duplicates with their pictures, any page of images, images by
their features, sizes in words."""
import dataclasses
import shutil

import bs4
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import files, layout, quality
from adlib.data.part import open_part
from adlib.models import weights
from adlib.report import eda
from adlib.report.display import components
from adlib.report.words import data_sentences
from tests.conftest import picture

CONFIG = Config(weights="none", image_size=32, precision="float32", device="cpu")


def soup(fragment):
    return bs4.BeautifulSoup(fragment, "html.parser")


def test_identical_images_are_shown_with_all_their_names(course_root):
    folder = course_root / "nut"
    category = layout.open_category(course_root, "nut")
    assert eda.duplicates(category, quality.check(category)) == ""
    shutil.copy(folder / "train" / "good" / "000.png", folder / "test" / "000.png")
    shutil.copy(folder / "train" / "good" / "001.png", folder / "train" / "good" / "002.png")
    category = layout.open_category(course_root, "nut")
    shown = soup(eda.duplicates(category, quality.check(category)))
    captions = [[part.text for part in caption.select("[lang=en]")] or [caption.text]
                for caption in shown.select(".caption")]
    assert captions == [["nut/train/good/000.png, nut/test/000.png"],
                        ["nut/train/good/001.png, nut/train/good/002.png"]]
    assert [image["alt"] for image in shown.select("img")] == [
        "nut/train/good/000.png: the same image 2 times",
        "nut/train/good/001.png: the same image 2 times"
    ]


def test_images_of_16_bits_are_shown_by_the_range_of_the_good_ones(mvtec_root):
    ramp = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    test = mvtec_root / "nut" / "test" / "spot" / "900.png"
    Image.fromarray(ramp // 2).save(test)
    kind, found = list(eda.samples(layout.open_category(mvtec_root, "nut")).items())[-1]
    assert kind == "test, spot" and found[-1].max() == 255  # of 8 bits alone
    Image.fromarray(ramp).save(mvtec_root / "nut" / "train" / "good" / "000.png")
    found = list(eda.samples(layout.open_category(mvtec_root, "nut")).values())[-1]
    assert found[-1].max() == pytest.approx(127.5, abs=2.5)


@pytest.mark.parametrize(("n", "said"),
                         [(3, "32x32 (9), 33x33 (1), 34x34 (1)"),
                          (8, "8 different ones, from 9x9 to 38x38; most often 32x32")])
def test_few_sizes_are_named_and_many_are_summed_up(mvtec_root, n, said):
    for i in range(1, n):
        picture(mvtec_root / "nut" / "test" / "spot" / f"9{i}.png", i,
                size=32 + i if n < 4 or i < n - 1 else 9)
    if n == 3:
        for i in range(3):
            (mvtec_root / "nut" / "test" / "good" / f"{i:03d}.png").unlink()
    findings = quality.check(layout.open_category(mvtec_root, "nut"))
    assert dict(data_sentences.findings_rows(findings))["sizes in pixels"] == said


def test_kinds_are_train_then_good_then_the_defects(mvtec_root):
    (mvtec_root / "nut" / "test" / "crack").mkdir()
    picture(mvtec_root / "nut" / "test" / "crack" / "000.png", 99)
    assert list(eda.groups(layout.open_category(
        mvtec_root, "nut"))) == ["train, good", "test, good", "test, crack", "test, spot"]
    assert list(eda.groups(layout.open_category(
        mvtec_root, "nut"), most=1)) == ["train, good", "test, good", "test, anomalous"]


def test_a_page_of_images(course_root):
    category = layout.open_category(course_root, "nut")
    shown = soup(eda.page(category, list(category.train), 2, 6))
    assert "7 to 8 of 8 images." in shown.text and [
        image["alt"] for image in shown.select("img")
    ] == ["nut/train/good/006.png: image", "nut/train/good/007.png: image"]


def test_pictures_are_shown_in_their_own_shape(course_root):
    for path in (course_root / "nut" / "train" / "good").iterdir():
        Image.open(path).resize((96, 48)).save(path)
    category = layout.open_category(course_root, "nut")
    shutil.copy(category.train[0], category.train[1])
    shown = eda.samples(category)["train, good"]
    assert {picture.shape for picture in shown} == {(48, 96, 3)}
    for fragment in (components.montage({"good": shown}), eda.page(category, category.train, 1, 6),
                     eda.duplicates(category, quality.check(category))):
        image = soup(fragment).select_one("img")
        assert (image["width"], image["height"]) == ("96", "48")
    drawn, _ = eda.feature_map(category, CONFIG)
    shapes = [image["style"] for image in soup(drawn).select("img")]
    assert shapes.count("--across:1.000;--down:0.500") == len(category.train)
    assert set(shapes) == {"--across:1.000;--down:0.500", "--across:1.000;--down:1.000"}


def test_a_number_on_an_axis_has_no_more_digits_than_one_reads(course_root):
    values = {"train, good": np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.4, 0.4])}  # three of seven
    ticks = soup(eda.brightness_curves(values, "brightness")).select("svg text")
    assert ticks[-1].text == "0.429"


def test_what_kind_of_part_it_is_is_measured_once_and_noted(course_root, tmp_path):
    part = open_part(dataclasses.replace(CONFIG, data_root=str(course_root), category="nut",
                                         reports=str(tmp_path), held_out=0))
    measured = {"form": 0.75, "alignment": 0.16, "colour": 0.1, "good": 31}
    assert "explains 75% of the brightness" in eda.properties(part, measured)
    assert files.read_json(tmp_path / "eda" / "nut" / "properties.json") == measured
    assert eda.properties(part, {}).startswith("One good picture")


def test_images_by_their_features_say_how_and_with_which_weights(course_root, monkeypatch):
    category = layout.open_category(course_root, "nut")
    drawn, said = eda.feature_map(category, CONFIG)
    title = soup(drawn).select_one(".feature-map")["aria-label"]
    assert title == "16 images by the features of a frozen ResNet18 (t-SNE; weights: RANDOM, because no run asks for others)"
    assert len(soup(drawn).select("img")) == 16 and said.startswith(
        "Of 5 anomalous images, ") and "31% of all images" in said
    few, _ = eda.feature_map(category, CONFIG, most=6)
    assert len(soup(few).select("img")) == 6 and "(PCA;" in few and eda.feature_map(
        category, CONFIG) == (drawn, said)

    def out_of_reach():
        raise InputError("no network") from ConnectionError("no network")

    monkeypatch.setattr(weights, "_imagenet_state", out_of_reach)
    drawn, said = eda.feature_map(category, Config(image_size=32))
    assert drawn == "" and said == "There is no map of the features: no network."
    drawn, _ = eda.feature_map(category, Config(image_size=32, weights_fallback=True))
    assert "weights: RANDOM, not ImageNet's (" in soup(drawn).select_one(
        ".feature-map")["aria-label"]


def test_without_labels_there_is_a_map_all_the_same(course_root):
    (course_root / "image_anomaly_labels.json").unlink()
    shutil.rmtree(course_root / "nut" / "train" / "bad")
    drawn, said = eda.feature_map(layout.open_category(course_root, "nut"), CONFIG)
    assert "test, unlabelled" in drawn and said.startswith("No image is known to be anomalous")


def test_the_brightness_of_every_image_lies_beside_the_page(course_root, tmp_path):
    part = open_part(dataclasses.replace(CONFIG, data_root=str(course_root), category="nut",
                                         reports=str(tmp_path), held_out=0))
    values = eda.brightness(part)
    table = pd.read_csv(tmp_path / "eda" / "nut" / eda.IMAGES)
    category = part.category
    assert set(table["path"]) == set(map(category.key, [*category.train, *category.test,
                                                        *category.train_bad]))
    assert table.groupby("kind")["brightness"].median().to_dict() == pytest.approx(
        {str(kind): np.median(some) for kind, some in values.items()})
    drawn = soup(eda.brightness_curves(values, "brightness"))
    assert drawn.select(f'a[href="{eda.IMAGES}"]')
