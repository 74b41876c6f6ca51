import json
import shutil
import time

import pytest

from adlib.config import InputError
from adlib.data import layout, quality


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
    masks = [layout.mask_path(category, path) for path in category.test]
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
        layout.mask_path(toy, path) for path in toy.test if path.parent.name == "colour")


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


def test_too_few_training_images(course_root):
    for path in sorted((course_root / "nut" / "train" / "good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match="holds 1 images; at least 2"):
        open_nut(course_root)


@pytest.mark.parametrize("change, words", [
    (lambda labels: labels.update({"nut/test/999.png": {"label": "bad"}}),
     "names 1 images that are not there .nut/test/999.png"),
    (lambda labels: labels.pop("nut/test/000.png"), "no entry for 1 test images .nut/test/000.png"),
    (lambda labels: labels.update({"nut/test/000.png": {"label": "ugly"}}),
     "label of 'nut/test/000.png' is 'ugly'"),
    (lambda labels: labels.update({"nut/test/000.png": {}}), "label of 'nut/test/000.png' is None"),
    (lambda labels: labels.update({"../nut/test/000.png": {"label": "bad"}}),
     "leads out of the data folder"),
    (lambda labels: labels.update({"/etc/passwd": {"label": "bad"}}),
     "leads out of the data folder"),
    (lambda labels: labels.update({"..\\x.png": {"label": "bad"}}), "leads out of the data folder"),
    (lambda labels: labels.update({"C:/x.png": {"label": "bad"}}), "leads out of the data folder"),
    (lambda labels: labels.update({"nut/../../x.png": {"label": "bad"}}),
     "leads out of the data folder"),
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
    first = layout.content_hashes(paths)
    with monkeypatch.context() as blind:
        blind.setattr(type(paths[0]), "read_bytes", lambda self: pytest.fail("read again"))
        assert layout.content_hashes(paths) == first
    for memory in (layout.cache_dir() / "hashes").iterdir():
        memory.write_text("{")
    assert layout.content_hashes(paths) == first
    for memory in (layout.cache_dir() / "hashes").iterdir():
        memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), 5)))
    assert layout.content_hashes(paths) == first


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
    findings = quality.check(open_nut(course_root))
    assert findings.counts == {"train/good": 8, "test": 6, "train/bad": 2}
    assert [name.split()[0]
            for name in findings.unreadable] == ["nut/train/good/001.png", "nut/test/000.png"]
    assert findings.leaks == (("nut/train/good/002.png", "nut/test/002.png"), )
    assert findings.duplicates == (("nut/train/good/003.png", "nut/train/good/004.png"), )
    assert findings.ignored == 1 and findings.labels == {"good": 3, "bad": 3}
    assert [code for code, _ in findings.problems()] == ["unreadable"] * 2 + ["leak", "duplicate"]
    assert findings.problems()[2][1] == findings.leaks[0] and findings.sizes == {"32x32": 14}


def test_findings_of_broken_or_one_sided_labels(course_root):
    edit_labels(course_root, lambda labels: labels.pop("nut/test/000.png"))
    findings = quality.check(open_nut(course_root))
    assert "no entry for 1" in findings.label_problem
    assert findings.problems() == [("labels", (findings.label_problem, ))]
    labels_file(course_root).write_text(
        json.dumps({f"nut/test/{i:03d}.png": {"label": "good"}
                    for i in range(6)}))
    assert quality.check(open_nut(course_root)).problems() == [("all_good", ())]


def test_findings_of_the_real_data_are_clean(shared):
    findings = quality.check(
        layout.open_category(shared / "data" / "Image_Anomaly_Detection", "zipper"))
    assert findings.problems() == [] and findings.modes == {"L": 257}


def test_hashing_again_is_quick(tmp_path):
    paths = []
    for i in range(1000):
        paths.append(tmp_path / f"{i}.png")
        paths[-1].write_bytes(str(i).encode())
    layout.content_hashes(paths)
    started = time.perf_counter()
    layout.content_hashes(paths)
    # a loose bound against hashing anew; timings proper live in benchmarks/
    assert time.perf_counter() - started < 2


def test_labels_that_windows_wrote_are_the_same(course_root):
    category = layout.open_category(course_root, "nut")
    before, path = layout.read_labels(category), course_root / layout.LABELS
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")), indent=1)
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert layout.read_labels(category) == before and before
