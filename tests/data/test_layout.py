import json
import os
import shutil
import time
import unicodedata
from pathlib import Path

import pytest

from adlib.config import InputError
from adlib.data import files, layout
from tests.conftest import picture


def open_nut(root):
    return layout.open_category(root, "nut")


def labels_file(root):
    return root / "image_anomaly_labels.json"


def edit_labels(root, change):
    labels = json.loads(labels_file(root).read_text())
    change(labels)
    labels_file(root).write_text(json.dumps(labels))


def test_course_layout(course_root):
    assert layout.categories(course_root) == ["nut", "zip"]
    category = open_nut(course_root)
    assert (category.layout, len(category.train), len(category.test), len(
        category.train_bad)) == ("course", 8, 6, 2)
    labels = layout.read_labels(category)
    assert labels["nut/test/001.png"] == layout.Label(
        True, "bad") and labels["nut/test/002.png"] == layout.Label(False, "good")
    assert labels["nut/train/bad/000.png"].anomalous and len(labels) == 8
    assert not set(category.train) & set(category.train_bad)


def test_mvtec_layout(mvtec_root):
    category = open_nut(mvtec_root)
    assert category.layout == "mvtec" and len(category.test) == 6
    assert layout.read_labels(category)["nut/test/spot/001.png"] == layout.Label(True, "spot")
    masks = [category.masks.get(path) for path in category.test]
    assert [mask and mask.name
            for mask in masks] == [None, None, None, "000.png", "001_mask.png", "002_mask.png"]


def test_plain_layout(course_root):
    labels_file(course_root).unlink()
    shutil.rmtree(course_root / "nut" / "train" / "bad")
    category = open_nut(course_root)
    assert category.layout == "plain" and layout.read_labels(category) == {}


def test_real_data(shared):
    root = shared / "data" / "Image_Anomaly_Detection"
    assert layout.categories(root) == ["hazelnut", "zipper"]
    for name, test in (("hazelnut", 55), ("zipper", 47)):
        category = layout.open_category(root, name)
        assert (len(category.train), len(category.test), len(category.train_bad)) == (200, test, 10)
        assert sum(
            layout.read_labels(category)[category.key(path)].anomalous
            for path in category.test) == 15
    assert layout.open_category(shared / "data" / "mvtec_ad").layout == "mvtec"
    toy = layout.open_category(shared / "data", "hazelnut_toy")
    assert len(toy.train) == 28 and all(
        toy.masks.get(path) for path in toy.test if path.parent.name == "colour")


def test_where_the_data_is_looked_for(course_root, tmp_path, monkeypatch):
    assert layout.find_root(str(course_root)) == (course_root, "parameter")
    monkeypatch.setenv("ADLIB_DATA", str(course_root))
    assert layout.find_root("") == (course_root, "environment")
    monkeypatch.delenv("ADLIB_DATA")
    monkeypatch.chdir(tmp_path)
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    shutil.copytree(course_root, tmp_path / "data")
    assert layout.find_root("") == (tmp_path / "data", "project")


def test_a_named_folder_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="parameter data_root is '.*none', which is missing"):
        layout.find_root(str(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADLIB_DATA", str(tmp_path / "file"))
    with pytest.raises(InputError, match="environment variable ADLIB_DATA is .* a file"):
        layout.find_root("")
    with pytest.raises(InputError, match="has no folder <category>/train/good"):
        layout.categories(tmp_path)


def test_a_category_given_as_root(course_root):
    with pytest.raises(InputError, match="is a category itself; give its parent"):
        layout.categories(course_root / "nut")


def test_unknown_category(course_root):
    with pytest.raises(InputError, match="category 'nutt' is not in .*; did you mean 'nut'?"):
        layout.open_category(course_root, "nutt")


def test_no_training_image(course_root):
    for path in sorted((course_root / "nut" / "train" / "good").iterdir()):
        path.unlink()
    with pytest.raises(InputError, match="holds no image; give at least a good one"):
        open_nut(course_root)


@pytest.mark.parametrize("change, words", [
    (lambda labels: labels.update({"nut/test/999.png": {"label": "bad"}}),
     "names 1 images that are not there .nut/test/999.png"),
    (lambda labels: labels.pop("nut/test/000.png"), "no entry for 1 test images .nut/test/000.png"),
    (lambda labels: labels.update({"nut/test/000.png": {"label": "ugly"}}),
     "label of 'nut/test/000.png' is 'ugly'"),
    (lambda labels: labels.update({"nut/test/000.png": {}}), "label of 'nut/test/000.png' is None"),
    *((lambda labels, key=key: labels.update({key: {"label": "bad"}}),
       "leads out of the data folder") for key in (
           "../nut/test/000.png", "/etc/passwd", "..\\x.png", "C:/x.png", "nut/../../x.png")),
    (lambda labels: labels.update({"nut/test/000.png": {"label": "<b>"}}),
     "label of 'nut/test/000.png' is '<b>'")
])
def test_bad_labels(course_root, change, words):
    edit_labels(course_root, change)
    with pytest.raises(InputError, match=words):
        layout.read_labels(open_nut(course_root))


@pytest.mark.parametrize("text, words", [("{", "not valid JSON"), ("[" * 100_000, "not valid JSON"),
                                         ("[1]", "must hold one object")])
def test_a_label_file_that_is_none(course_root, text, words):
    labels_file(course_root).write_text(text)
    with pytest.raises(InputError, match=words):
        layout.read_labels(open_nut(course_root))
    assert layout.fingerprint(open_nut(course_root))  # staleness must not fail over it


def test_a_missing_label_file(course_root):
    labels_file(course_root).unlink()
    with pytest.raises(InputError, match="image_anomaly_labels.json is missing"):
        layout.read_labels(open_nut(course_root))


def test_fingerprint_follows_content_labels_and_masks(course_root, mvtec_root):
    before, other = layout.fingerprint(open_nut(course_root)), layout.fingerprint(
        layout.open_category(course_root, "zip"))
    edit_labels(course_root, lambda labels: labels.update({"nut/test/000.png": {"label": "bad"}}))
    assert layout.fingerprint(open_nut(course_root)) != before
    assert layout.fingerprint(layout.open_category(course_root, "zip")) == other
    before = layout.fingerprint(open_nut(mvtec_root))
    mask = mvtec_root / "nut" / "ground_truth" / "spot" / "000.png"
    mask.write_bytes(mask.read_bytes() + b" ")
    assert layout.fingerprint(open_nut(mvtec_root)) != before


def test_hashes_are_remembered_and_survive_a_damaged_memory(course_root, monkeypatch):
    paths = open_nut(course_root).train
    first = files.content_hashes(paths)
    with monkeypatch.context() as blind:
        read = type(paths[0]).read_bytes
        blind.setattr(type(paths[0]), "read_bytes", lambda path: pytest.fail("read again")
                      if path in paths else read(path))
        assert files.content_hashes(paths) == first
    for memory in (files.cache_dir() / "hashes").iterdir():
        memory.write_text("{")
    assert files.content_hashes(paths) == first
    for memory in (files.cache_dir() / "hashes").iterdir():
        memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), 5)))
    assert files.content_hashes(paths) == first


def test_names_that_are_not_utf_8(course_root):
    good = course_root / "nut" / "train" / "good"
    try:
        (good / "000.png").rename(good / "\udcb5\udcbc.png")  # GBK bytes, as old archives hold them
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    with pytest.raises(
            InputError,
            match=r"the name 'nut/train/good/\\udcb5\\udcbc.png' holds .* bytes that are no UTF-8; "
            r"rename it"):
        open_nut(course_root)  # no table could hold it, which would be found out at a run's end


def test_hashing_again_is_quick(tmp_path):
    paths = []
    for i in range(1000):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(str(i).encode())
    files.content_hashes(paths)
    started = time.perf_counter()
    files.content_hashes(paths)
    # a loose bound against hashing anew; timings proper live in benchmarks/
    assert time.perf_counter() - started < 2


def test_the_case_of_names_and_the_depth_of_folders_do_not_matter(mvtec_root):
    before = open_nut(mvtec_root)
    nut = mvtec_root / "nut"
    for folder, new in (("train/good", "batch 1"), ("test/spot", "a/b"), ("test/good", "b")):
        pictures = list((nut / folder).iterdir())
        (nut / folder / new).mkdir(parents=True)
        for path in pictures:
            path.rename(nut / folder / new / path.name)
    for old, new in (("test/good", "GOOD"), ("train/good", "Good"), ("train", "Train"),
                     ("test", "TEST"), ("ground_truth", "Ground_Truth")):
        (nut / old).rename((nut / old).with_name(new))
    after = open_nut(mvtec_root)
    assert (len(after.train), len(after.test), after.layout) == (6, 6, "mvtec")
    assert [path.name for path in after.masks.values()] == [
        path.name for path in before.masks.values()] and after.unread == ()
    labels = layout.read_labels(after)
    assert labels["nut/TEST/GOOD/b/000.png"] == layout.Label(False, "good")
    assert labels["nut/TEST/spot/a/b/002.png"] == layout.Label(True, "spot")


def test_what_has_no_place_is_listed(mvtec_root):
    nut = mvtec_root / "nut"
    for name in ("train/loose.png", "train/ok/1.png", "val/good/1.png", "ground_truth/spot/9.png"):
        picture(nut / name, 1)
    assert [path.relative_to(nut).as_posix() for path in open_nut(mvtec_root).unread] == [
        "train/loose.png", "train/ok/1.png", "val/good/1.png", "ground_truth/spot/9.png"]


@pytest.mark.parametrize(("make", "words"), [
    ("nut/train/ok/1.png", r"; .*nut/train has no folder good, but ok"),
    ("nut/train/1.png", r"; .*nut/train has no folder good$"),
    ("train/normal/1.png", r"; .*d/train has no folder good, but normal"),
    ("nut/Test/good/1.png", r"; .*d/nut has no folder train, but Test"),
    ("mvtec/nut/train/good/1.png", "; .*d/mvtec has one"), ("nut/good/1.png", "by adlib new$")])
def test_a_layout_that_nearly_fits_is_told(tmp_path, make, words):
    picture(tmp_path / "d" / make, 1)
    with pytest.raises(InputError, match="has no folder <category>/train/good;.*" + words):
        layout.categories(tmp_path / "d")


@pytest.mark.parametrize(("folder", "words"), [
    ("test/batch1/Good", "test/batch1/Good calls pictures good"),
    ("test/OK", "test/OK calls pictures good that count as a defect there"),
    ("train/good/NOK", "train/good/NOK lies in the folder of good pictures"),
    ("train/good/day1/bad", "train/good/day1/bad lies in the folder of good pictures")])
def test_folders_that_call_the_same_pictures_good_and_bad_are_an_error(mvtec_root, folder, words):
    picture(mvtec_root / "nut" / folder / "1.png", 1)
    with pytest.raises(InputError, match=words):
        open_nut(mvtec_root)


def test_pictures_beside_folders_of_pictures_are_named(mvtec_root):
    picture(mvtec_root / "nut" / "test" / "loose.png", 1)
    with pytest.raises(InputError, match="test holds both images and folders of images "
                       ".loose.png, good/000.png."):
        open_nut(mvtec_root)


def test_masks_among_the_pictures_and_pictures_of_one_name_are_named(mvtec_root):
    picture(mvtec_root / "nut" / "test" / "spot" / "001.jpg", 1)
    with pytest.raises(InputError, match="spot/001.jpg and .*spot/001.png share the mask .*"
                       "spot/001_mask.png"):
        open_nut(mvtec_root)
    shutil.rmtree(mvtec_root / "nut" / "ground_truth")
    with pytest.raises(InputError, match="spot/001.jpg and 001.png are two pictures of one name"):
        open_nut(mvtec_root)
    (mvtec_root / "nut" / "test" / "spot" / "001.jpg").unlink()
    picture(mvtec_root / "nut" / "test" / "good" / "001.jpg", 1)  # which need no mask
    assert len(open_nut(mvtec_root).test) == 7


def test_names_of_all_kinds(tmp_path):
    """Below a hidden folder (anomalib 2488), with glob's signs (ultralytics 24257), beside what
    JupyterLab and macOS leave (anomalib 865)."""
    root = tmp_path / ".config" / "a [b] *? $(c) ü"
    for i in range(4):
        picture(root / "n [1] ö" / "train" / "good" / f"[{i}] 50%.png", i)
    picture(root / "n [1] ö" / "test" / "crack [x]" / "1 * 2.png", 9)
    picture(root / "n [1] ö" / "ground_truth" / "crack [x]" / "1 * 2_mask.png", 9)
    for name in (".ipynb_checkpoints/1.png", "crack [x]/.ipynb_checkpoints/1.png",
                 "crack [x]/._1 * 2.png"):
        picture(root / "n [1] ö" / "test" / name, 9)
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (root / "n [1] ö" / "test" / name).write_text("")
    category = layout.open_category(root)
    assert (len(category.train), len(category.test), len(category.masks)) == (4, 1, 1)
    assert category.unread == () and layout.fingerprint(category)


@pytest.mark.parametrize("encode", [
    lambda text: text.replace("\n", "\r\n").encode(), lambda text: text.encode("utf-8-sig"),
    lambda text: text.encode("utf-16"), lambda text: text.replace("nut/test/", "nut\\\\test\\\\").encode(),
    lambda text: text.replace('"good"', '" Good"').replace('"bad"', '"BAD"').encode(),
    lambda text: text.replace("nut/test/", "./Nut/TEST/").encode(),
    lambda text: text.replace(".png", ".PNG").encode()],
    ids=["CRLF", "BOM", "UTF-16", "backslashes", "case", "case of keys", "case of suffixes"])
def test_a_label_file_of_another_system(course_root, encode):
    expected = layout.read_labels(open_nut(course_root))
    text = json.dumps(json.loads(labels_file(course_root).read_text()), indent=1)
    labels_file(course_root).write_bytes(encode(text))
    assert layout.read_labels(open_nut(course_root)) == expected


def test_a_label_file_whose_name_has_another_case(course_root):
    expected = layout.read_labels(open_nut(course_root))
    labels_file(course_root).rename(course_root / "Image_Anomaly_Labels.JSON")
    assert layout.read_labels(open_nut(course_root)) == expected
    assert layout.LABELS in layout.contents(open_nut(course_root))


def test_accents_of_either_form(course_root):
    old = course_root / "nut" / "test" / "000.png"
    old.rename(old.with_name(unicodedata.normalize("NFD", "é.png")))
    edit_labels(course_root, lambda labels: labels.update(
        {unicodedata.normalize("NFC", "nut/test/é.png"): labels.pop("nut/test/000.png")}))
    category = open_nut(course_root)
    assert layout.read_labels(category).keys() >= set(map(category.key, category.test))


def test_a_category_of_another_case_keeps_its_own_labels(course_root):
    try:
        shutil.copytree(course_root / "nut", course_root / "Nut")
    except FileExistsError:
        pytest.skip("this file system takes them for one")
    edit_labels(course_root, lambda labels: labels.update(
        {key.replace("nut", "Nut"): {"label": "good"} for key in list(labels) if "nut" in key}))
    assert sum(label.anomalous for label in layout.read_labels(open_nut(course_root)).values()) == 5


@pytest.mark.parametrize(("text", "words"), [
    ('{"nut/test/000.png": "good", "nut/test/000.png": "bad"}',
     "not valid JSON .it has 'nut/test/000.png' twice."),
    ('{"nut/test/000.png": "good", "nut\\\\test\\\\000.png": "bad"}',
     "names 'nut/test/000.png' twice"),
    ('{"nut/test/000.png": "good", "NUT/test/000.PNG": "bad"}', "names 'nut/test/000.png' twice")])
def test_two_labels_of_one_image_are_an_error(course_root, text, words):
    labels_file(course_root).write_text(text)
    with pytest.raises(InputError, match=words):
        layout.read_labels(open_nut(course_root))


def test_a_label_file_in_another_encoding_is_one_sentence(course_root):
    labels_file(course_root).write_bytes('{"nut/test/é.png": "good"}'.encode("gbk"))
    with pytest.raises(InputError, match="is not valid JSON .*utf-8.*; mend or delete it"):
        layout.read_labels(open_nut(course_root))


def test_labels_from_two_sources_are_an_error(mvtec_root):
    labels_file(mvtec_root).write_text('{"nut/test/spot/000.png": "good"}')
    with pytest.raises(InputError, match="has labels of nut, whose test images lie in folders"):
        layout.read_labels(open_nut(mvtec_root))
    labels_file(mvtec_root).write_text('{"zip/test/000.png": "good"}')
    assert len(layout.read_labels(open_nut(mvtec_root))) == 6


@pytest.mark.parametrize(("owner", "name", "end"), [
    (Path, "iterdir", "/spot"), (os, "stat", "/spot/.")], ids=["not listed", "not looked into"])
def test_a_folder_that_cannot_be_read_is_named_and_one_that_is_gone_is_empty(
        mvtec_root, monkeypatch, owner, name, end):
    ask = getattr(owner, name)

    def locked(path, **how):
        if str(path).endswith(end):
            raise PermissionError(13, "Permission denied")
        return ask(path, **how)

    assert layout.below(mvtec_root / "gone") == []
    monkeypatch.setattr(owner, name, locked)
    with pytest.raises(InputError, match="cannot read the folder .*/spot: Permission denied"):
        open_nut(mvtec_root)


def test_excluded_images_are_not_learned_from_and_change_what_the_data_are(course_root):
    every = layout.open_category(course_root, "nut")
    some = layout.open_category(course_root, "nut", [r"nut\train\good\003.png", "005.PNG",
                                                     "zip/train/good/000.png"])
    assert [path.name for path in some.excluded] == ["003.png", "005.png"]
    assert set(every.train) - set(some.train) == set(some.excluded)
    assert (some.test, some.train_bad) == (every.test, every.train_bad)
    assert layout.fingerprint(some) != layout.fingerprint(every)
    assert layout.changed(some, layout.contents(some)) == []


@pytest.mark.parametrize("name", ["nosuch.png", "nut/test/000.png", "nut/train/bad/000.png",
                                  "../zip/train/good/000.png"])
def test_what_is_no_good_training_image_cannot_be_excluded(course_root, name):
    with pytest.raises(InputError, match="exclude names 1 images that are not among the good"):
        layout.open_category(course_root, "nut", [name])


def test_what_is_excluded_and_is_a_test_image_is_told(course_root):
    names = ["nosuch.png", "nut\\test\\000.png"]
    with pytest.raises(InputError, match=r"000.png\), 1 of them among its test images; correct"):
        layout.open_category(course_root, "nut", names)


def test_excluding_all_leaves_none(course_root):
    with pytest.raises(InputError, match="holds no image beside 8 excluded ones"):
        layout.open_category(course_root, "nut", [f"{i:03d}.png" for i in range(8)])
