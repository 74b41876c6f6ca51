"""What a check of a folder finds, by the images that it is about, and that it finds nothing else."""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.config import InputError
from adlib.data import files, layout, quality
from tests.conftest import picture


def opened(root):
    return layout.open_category(root, "nut")


def checked(root):
    """The exit code of `adlib check`, whose list of suspects lies beside the data."""
    return cli.main(["check", "--data", str(root), "--weights", "none", "--reports",
                     str(root.parent / "reports")])


def test_findings(course_root):
    (course_root / "nut" / "test" / "000.png").write_bytes(b"")
    whole = (course_root / "nut" / "train" / "good" / "000.png").read_bytes()
    (course_root / "nut" / "train" / "good" / "001.png").write_bytes(whole[:len(whole) // 2])
    shutil.copy(course_root / "nut" / "train" / "good" / "002.png",
                course_root / "nut" / "test" / "002.png")
    shutil.copy(course_root / "nut" / "train" / "good" / "003.png",
                course_root / "nut" / "train" / "good" / "004.png")
    (course_root / "nut" / "train" / "good" / "notes.txt").write_text("")
    (course_root / "nut" / "train" / "good" / ".hidden.png").write_text("")
    findings = quality.check(opened(course_root))
    assert findings.counts == {"train/good": 8, "test": 6, "train/bad": 2}
    assert [name.split()[0]
            for name in findings.unreadable] == ["nut/train/good/001.png", "nut/test/000.png"]
    assert findings.leaks == (("nut/train/good/002.png", "nut/test/002.png"), )
    assert findings.duplicates == (("nut/train/good/003.png", "nut/train/good/004.png"), )
    assert findings.ignored == 1 and findings.labels == {"good": 3, "bad": 3}
    assert [code for code, _ in findings.problems()] == ["unreadable"] * 2 + ["leak", "duplicate"]
    assert findings.problems()[2][1] == findings.leaks[0] and findings.sizes == {"32x32": 14}


def test_a_file_that_may_not_be_read_is_a_finding(course_root, monkeypatch):
    locked, opened_file = course_root / "nut" / "train" / "good" / "001.png", open

    def guarded(path, *how, **more):
        if Path(path) == locked:
            raise PermissionError(13, "Permission denied")
        return opened_file(path, *how, **more)

    monkeypatch.setattr("builtins.open", guarded)
    monkeypatch.setattr("io.open", guarded)
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked)
    assert quality.check(opened(course_root)).unreadable == (
        "nut/train/good/001.png (Permission denied)", )


def test_findings_of_broken_or_one_sided_labels(course_root):
    labels = json.loads((course_root / layout.LABELS).read_text())
    labels.pop("nut/test/000.png")
    (course_root / layout.LABELS).write_text(json.dumps(labels))
    findings = quality.check(opened(course_root))
    assert findings.problems() == [("labels.unlabelled", {"names": ["nut/test/000.png"]})]
    (course_root / layout.LABELS).write_text(
        json.dumps({f"nut/test/{i:03d}.png": {"label": "good"}
                    for i in range(6)}))
    assert quality.check(opened(course_root)).problems() == [("all_good", ())]


def test_findings_of_the_real_data_are_clean(shared):
    findings = quality.check(
        layout.open_category(shared / "data" / "Image_Anomaly_Detection", "zipper"))
    assert findings.problems() == [] and findings.modes == {"L": 257}



# ---- masks and places


def write_mask(path, level=255, square=(8, 16), size=32):
    mask = np.zeros((size, size), np.uint8)
    mask[slice(*square), slice(*square)] = level
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


def test_masks_are_counted_against_defective_images_by_defect(mvtec_root):
    for i in range(2):
        picture(mvtec_root / "nut" / "test" / "cut" / f"{i}.png", 70 + i, defect=True)
    write_mask(mvtec_root / "nut" / "ground_truth" / "cut" / "1.BMP")
    findings = quality.check(opened(mvtec_root))
    assert findings.masks == {"cut": (1, 2), "spot": (3, 3)}
    assert findings.problems() == [("absent", ("nut/test/cut/0.png", ))]


def test_data_without_any_masks_have_none_and_nobody_misses_them(mvtec_root, course_root):
    shutil.rmtree(mvtec_root / "nut" / "ground_truth")
    for root, defect in ((mvtec_root, "spot"), (course_root, "bad")):
        findings = quality.check(opened(root))
        assert findings.masks == {defect: (0, 3)} and findings.problems() == []


def test_every_note_of_a_mask_names_its_image(mvtec_root):
    masks = mvtec_root / "nut" / "ground_truth"
    write_mask(masks / "spot" / "000.png", square=(0, 0))
    write_mask(masks / "spot" / "001_mask.png", square=(0, 30))
    Image.fromarray(np.eye(32, dtype=np.uint8) * np.arange(32, dtype=np.uint8)).save(
        masks / "spot" / "002_mask.png")
    write_mask(masks / "good" / "000.png", level=0)  # as some datasets have them
    write_mask(masks / "good" / "001.png")
    findings = quality.check(opened(mvtec_root), size=8)
    spots = [f"nut/test/spot/00{i}.png" for i in range(3)]
    assert dict(findings.problems()) == {
        "empty": (spots[0], ), "most": (spots[1], ), "levels": (spots[2], ),
        "kept": (spots[2], ), "contradicted": ("nut/test/good/001.png", )}


def test_a_mask_that_cannot_be_used_stops_a_run_and_is_named(mvtec_root, capsys):
    write_mask(mvtec_root / "nut" / "ground_truth" / "spot" / "000.png", size=48)
    Image.new("L", (32, 20)).save(mvtec_root / "nut" / "ground_truth" / "spot" / "001_mask.png")
    findings = quality.check(opened(mvtec_root))
    assert findings.problems() == [("masks.unusable", {"names": [
        "nut/ground_truth/spot/001_mask.png (its 32x20 pixels do not have the shape of the image's "
        "32x32)"]})]
    assert checked(mvtec_root) == 1
    assert "problem: 1 masks cannot be used" in capsys.readouterr().out


def test_what_has_no_place_and_what_is_spelled_otherwise(mvtec_root):
    nut = mvtec_root / "nut"
    picture(nut / "val" / "1.png", 1)
    picture(nut / "test" / "Spot" / "9.png", 2, defect=True)
    write_mask(nut / "ground_truth" / "spot" / "8.png")
    write_mask(nut / "ground_truth" / "spot" / "9.png")
    (nut / "test" / "hole").mkdir()
    (nut / "test" / "good").rename(nut / "test" / "Good")
    assert dict(quality.check(opened(mvtec_root)).problems()) == {
        "unread": ("nut/val/1.png", ), "stray": ("nut/ground_truth/spot/8.png", ),
        "bare": ("test/hole", ), "respelled": ("test/Good", ), "alike": ("Spot", "spot")}


def test_labels_in_another_case_are_told(course_root):
    path = course_root / layout.LABELS
    path.write_text(path.read_text().replace('"good"', '"Good"'))
    findings = quality.check(opened(course_root))
    assert findings.labels == {"good": 3, "bad": 3}
    assert findings.problems() == [("respelled", ("Good", ))]


def test_a_category_without_test_images(mvtec_root):
    shutil.rmtree(mvtec_root / "nut" / "test")
    shutil.rmtree(mvtec_root / "nut" / "ground_truth")
    assert quality.check(opened(mvtec_root)).problems() == [("no_test", ())]


def test_a_class_that_is_missing(mvtec_root):
    shutil.rmtree(mvtec_root / "nut" / "test" / "good")
    assert quality.check(opened(mvtec_root)).problems() == [("all_anomalous", ())]


@pytest.mark.parametrize("layout_of", ["course_root", "mvtec_root"])
def test_nothing_is_found_in_sound_data(layout_of, request):
    assert quality.check(opened(request.getfixturevalue(layout_of))).problems() == []


def test_a_folder_that_is_nearly_a_category_is_told(mvtec_root, capsys):
    picture(mvtec_root / "zip" / "train" / "ok" / "1.png", 1)
    assert checked(mvtec_root) == 0
    assert "zip/train has no folder good, but ok" in capsys.readouterr().out


def test_one_category_that_cannot_be_opened_does_not_hide_the_others(mvtec_root, capsys):
    shutil.copytree(mvtec_root / "nut", mvtec_root / "pin")
    picture(mvtec_root / "nut" / "test" / "spot" / "001.jpg", 1)
    assert checked(mvtec_root) == 1
    said = capsys.readouterr().out
    assert "spot/001.jpg and " in said and "  pin: images train/good (6), test (6)" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_waited_for_by_nobody_and_named(mvtec_root):
    os.mkfifo(mvtec_root / "nut" / "train" / "good" / "pipe.png")
    os.mkfifo(mvtec_root / "nut" / "train" / "good" / "pipe")  # by its name no picture
    category = layout.open_category(mvtec_root, "nut")
    findings = quality.check(category)
    assert findings.ignored == 1 and findings.unreadable == (
        f"nut/train/good/pipe.png ({files.NO_FILE})", )
    with pytest.raises(InputError, match=f"pipe.png: {files.NO_FILE}; take it out"):
        layout.fingerprint(category)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_for_a_mask_or_the_labels_is_waited_for_by_nobody(mvtec_root, course_root):
    mask = mvtec_root / "nut" / "ground_truth" / "spot" / "000.png"
    mask.unlink()
    os.mkfifo(mask)
    findings = quality.check(layout.open_category(mvtec_root, "nut"))
    assert findings.mask_problems == (("masks.unusable", {
        "names": [f"nut/ground_truth/spot/000.png ({files.NO_FILE})"]}), )
    (course_root / layout.LABELS).unlink()
    os.mkfifo(course_root / layout.LABELS)
    with pytest.raises(InputError, match=f"{layout.LABELS}: {files.NO_FILE}"):
        layout.read_labels(layout.open_category(course_root, "nut"))


def test_other_files_are_counted_and_a_drawing_beside_its_mask_is_told(mvtec_root):
    nut = mvtec_root / "nut"
    (nut / "train" / "good" / "notes.txt").write_text("")
    (nut / "train").rename(nut / "Train")
    (nut / "ground_truth" / "spot" / "000.psd").write_bytes(b"8BPS")
    findings = quality.check(layout.open_category(mvtec_root, "nut"))
    assert findings.ignored == 1 and findings.masks == {"spot": (3, 3)}
    assert dict(findings.problems()) == {
        "stray": ("nut/ground_truth/spot/000.psd", ), "respelled": ("Train", )}


def test_masks_that_are_not_read_for_their_names_are_told(mvtec_root):
    spots = mvtec_root / "nut" / "ground_truth" / "spot"
    for path in list(spots.iterdir()):
        path.rename(path.with_suffix(""))
    (spots / "labels.json").write_text("{}")
    findings = quality.check(layout.open_category(mvtec_root, "nut"))
    assert findings.masks == {"spot": (0, 3)} and findings.ignored == 1
    assert findings.problems() == [("unnamed", tuple(
        f"nut/ground_truth/spot/{name}" for name in ("000", "001_mask", "002_mask")))]


def test_a_region_of_another_shape_is_told_and_one_that_leaves_nothing_stops_a_run(mvtec_root):
    for folder, shape, white in (("roi", (16, 160), 255), ("ignore", (300, 300), 0)):
        (mvtec_root / "nut" / folder).mkdir()
        Image.fromarray(np.full(shape, white, np.uint8)).save(
            mvtec_root / "nut" / folder / "a.png")
    findings = quality.check(opened(mvtec_root))
    assert findings.problems() == [("misfit", ("nut/roi/a.png", ))] and not findings.stopping
    Image.new("L", (300, 300), 255).save(mvtec_root / "nut" / "ignore" / "a.png")
    findings = quality.check(opened(mvtec_root))
    assert findings.stopping == 1 and findings.mask_problems == (
        ("masks.nothing_left", {"names": ["nut/roi/a.png", "nut/ignore/a.png"]}), )
    (mvtec_root / "nut" / "roi" / "a.png").write_bytes(b"")
    (code, values), = quality.check(opened(mvtec_root)).mask_problems
    assert code == "masks.unusable" and values["names"][0].startswith("nut/roi/a.png (")


@pytest.mark.parametrize(("size", "told"), [((36, 72), False), ((72, 36), True)])
def test_a_region_that_lies_on_its_side_is_told(mvtec_root, size, told):
    for i, path in enumerate(opened(mvtec_root).train):
        Image.new("RGB", (36, 72), (90 + i, 90, 90)).save(path)
    (mvtec_root / "nut" / "roi").mkdir()
    Image.new("L", size, 255).save(mvtec_root / "nut" / "roi" / "a.png")
    problems = dict(quality.check(opened(mvtec_root)).problems())
    assert problems.get("misfit", ()) == ("nut/roi/a.png", ) * told
