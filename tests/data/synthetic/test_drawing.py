import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
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
    for how in ({"contrast": float("nan")}, {"size": float("inf")}, {"size": 1e9}):
        with pytest.raises(InputError, match="both up to 100"):
            drawing.render("hazelnut", seed=0, index=0, defect="print", **how)
    with pytest.raises(InputError, match="at least 2 training"):
        drawing.write_dataset(tmp_path / "a", train=1)
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="with something else in it"):
        drawing.write_dataset(tmp_path)
    assert (tmp_path / "mine.txt").exists()
    drawing.write_dataset(tmp_path / "set", train=2, good=0, anomalous=0, pixels=32)
    (tmp_path / "set" / "my-part" / "train" / "good").mkdir(parents=True)  # beside what was drawn
    with pytest.raises(InputError, match=r"something else in it \(my-part\)"):
        drawing.write_dataset(tmp_path / "set", train=3, good=0, anomalous=0, pixels=32)
    assert (tmp_path / "set" / "my-part" / "train" / "good").is_dir()
    shutil.rmtree(tmp_path / "set" / "my-part")
    for mine in (".git", "hazelnut/roi"):
        (tmp_path / "set" / mine).mkdir()
        with pytest.raises(InputError, match=rf"something else in it \({mine}\)"):
            drawing.write_dataset(tmp_path / "set", train=3, good=0, anomalous=0, pixels=32)
        (tmp_path / "set" / mine).rmdir()
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
    assert drawing.about(tmp_path) == {"seed": 3, "pixels": 64, "across": 1, "down": 1}


def test_a_tray_is_workpieces_beside_each_other_and_one_has_the_defect():
    how = {"seed": 1, "pixels": 48}
    image, mask = drawing.tray("hazelnut", index=7, defect="hole", across=3, down=2, **how)
    assert image.shape == (96, 144, 3) and mask.shape == (96, 144)
    parts = [(image[y:y + 48, x:x + 48], mask[y:y + 48, x:x + 48])
             for y in (0, 48) for x in (0, 48, 96)]
    for place, (part, changed) in enumerate(parts):  # number 7 has it at place 1 of six
        expected, marked = drawing.render("hazelnut", index=7 + place * drawing.PLACE, **how,
                                          defect="hole" if place == 1 else None)
        assert (part == expected).all() and (changed == marked).all()
        assert changed.any() == (place == 1)
    one, other = (make("zipper", index=5, **how) for make in (drawing.tray, drawing.render))
    assert (one[0] == other[0]).all()


def test_large_and_long_sets_are_drawn(tmp_path):
    root = drawing.write_dataset(tmp_path / "set", train=2, good=0, anomalous=1, pixels=40,
                                 across=1, down=4, categories=["zipper"])
    with Image.open(next((root / "zipper" / "train" / "good").iterdir())) as drawn:
        assert drawn.size == (40, 160)
    assert drawing.about(root)["down"] == 4
    with pytest.raises(InputError, match="across 0, down 1: give 1 to 64"):
        drawing.write_dataset(tmp_path / "other", across=0)


@pytest.mark.skipif(os.name == "nt" or os.cpu_count() == 1, reason="no group of workers here")
def test_ctrl_c_while_workers_start_is_answered_in_one_line(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-m", "adlib.cli", "data", "synthesize", "--root", str(tmp_path / "drawn"),
         "--pixels", "512"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True)
    ends, process = time.monotonic() + 60, psutil.Process(child.pid)
    while not process.children() and child.poll() is None and time.monotonic() < ends:
        time.sleep(0.01)
    time.sleep(0.3)  # they import
    os.killpg(child.pid, signal.SIGINT)
    assert child.communicate(timeout=120)[0] == "adlib: stopped\n" and child.returncode == 130
    assert not (tmp_path / "drawn").exists()
