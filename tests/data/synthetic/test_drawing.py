import json

import numpy as np
import pytest
from PIL import Image

from adlib.config import InputError
from adlib.data import layout
from adlib.data.synthetic import drawing

EVERY = [(category, defect) for category, defects in drawing.CATEGORIES.items()
         for defect in defects]


@pytest.mark.parametrize("category, defect", EVERY)
def test_a_mask_is_what_the_defect_changed(category, defect):
    for index in range(3):
        good, none = drawing.render(category, seed=1, index=index, pixels=128)
        bad, mask = drawing.render(category, seed=1, index=index, defect=defect, pixels=128)
        assert not none.any() and 8 < mask.sum() < 0.25 * mask.size
        assert (good[~mask] == bad[~mask]).all()
        assert np.abs(good.astype(int) - bad)[mask].max(axis=-1).mean() > 4


@pytest.mark.parametrize("category, defect", EVERY)
def test_contrast_and_size_scale_a_defect(category, defect):
    def masks(**options):
        return [
            drawing.render(category, seed=2, index=i, defect=defect, pixels=128,
                           **options)[1].sum() for i in range(4)
        ]

    assert masks(contrast=0) == [0, 0, 0, 0]
    assert sum(masks(size=2.0)) > sum(masks(size=0.5)) > 0


def test_every_picture_is_its_own_and_always_the_same():
    pictures = [
        drawing.render(category, seed=seed, index=index, pixels=64)[0]
        for category in drawing.CATEGORIES for seed in (0, 1) for index in range(3)
    ]
    assert len({p.tobytes() for p in pictures}) == len(pictures)
    assert (pictures[1] == drawing.render("hazelnut", seed=0, index=1, pixels=64)[0]).all()


def test_dataset(tmp_path):
    root = drawing.write_dataset(tmp_path / "set", train=4, good=2, anomalous=9, pixels=64)
    assert layout.categories(root) == ["hazelnut", "zipper"]
    for name, defects in drawing.CATEGORIES.items():
        category = layout.open_category(root, name)
        assert category.synthetic and category.layout == "mvtec" and len(
            category.train) == 4 and len(category.test) == 11
        labels = layout.read_labels(category)
        assert {label.defect for label in labels.values()} == {"good", *defects}
        for path in category.test:
            mask = category.masks.get(path)
            assert (mask is not None) == labels[category.key(path)].anomalous
            assert mask is None or np.asarray(Image.open(mask)).any()
    assert json.loads((root / "synthetic.json").read_text())["train"] == 4
    assert Image.open(root / "zipper" / "train" / "good" / "000.png").mode == "L"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    before = (root / "hazelnut" / "test" / "good" / "001.png").read_bytes()
    # drawn anew, in its place
    drawing.write_dataset(root, train=2, good=2, anomalous=0, pixels=64, categories=["hazelnut"])
    assert layout.categories(root) == ["hazelnut"] and (root / "hazelnut" / "test" / "good" /
                                                        "001.png").read_bytes() == before


def test_many_processes_draw_the_same(tmp_path):
    options = {"train": 40, "good": 0, "anomalous": 0, "pixels": 32, "categories": ["hazelnut"]}
    root = drawing.write_dataset(tmp_path / "a", **options)
    expected, _ = drawing.render("hazelnut", seed=0, index=39, pixels=32)
    assert (np.asarray(Image.open(
        root / "hazelnut" / "train" / "good" / "039.png")) == expected).all()


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="did you mean 'hazelnut'"):
        drawing.render("hazelnuts", seed=0, index=0)
    with pytest.raises(InputError, match="hazelnut has no defect 'crak'; did you mean 'crack'"):
        drawing.render("hazelnut", seed=0, index=0, defect="crak")
    with pytest.raises(InputError, match="size must be above 0"):
        drawing.render("hazelnut", seed=0, index=0, defect="crack", size=0)
    with pytest.raises(InputError, match="at least 2 training"):
        drawing.write_dataset(tmp_path / "a", train=1)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="with something else in it"):
        drawing.write_dataset(tmp_path)
    assert (tmp_path / "mine.txt").exists()
    with pytest.raises(InputError, match="is a file"):
        drawing.write_dataset(tmp_path / "mine.txt")


def test_the_slower_of_two_processes_uses_the_quicker_ones_set(tmp_path, monkeypatch):
    options = {"train": 2, "good": 1, "anomalous": 0, "pixels": 32, "categories": ["hazelnut"]}
    real = drawing._draw_all

    def overtaken(jobs):
        monkeypatch.setattr(drawing, "_draw_all", real)
        drawing.write_dataset(tmp_path / "set", **options)
        (tmp_path / "set" / "quicker").touch()
        real(jobs)

    monkeypatch.setattr(drawing, "_draw_all", overtaken)
    drawing.write_dataset(tmp_path / "set", **options)
    assert (tmp_path / "set" / "quicker").exists() and [path.name
                                                        for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("said", [[], {"pixels": 64}, {"seed": "0", "pixels": 64},
                                  {"seed": 0, "pixels": 10**9}, {"seed": True, "pixels": 64}])
def test_a_marker_that_somebody_else_wrote_is_an_error_that_names_it(tmp_path, said):
    (tmp_path / drawing.MARKER).write_text(json.dumps(said))
    with pytest.raises(InputError, match="synthetic.json must hold a whole number as seed"):
        drawing.about(tmp_path)
    (tmp_path / drawing.MARKER).write_text(json.dumps({"seed": 3, "pixels": 64}))
    assert drawing.about(tmp_path) == {"seed": 3, "pixels": 64}
