"""A user's photographs to a category: what goes where, what is left out, and all or nothing on
the disk."""
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adlib import cli
from adlib.config import InputError
from adlib.data import files, importer, layout
from adlib.runs.engines import local
from tests.conftest import picture


@pytest.fixture
def photos(tmp_path):
    for i in range(12):
        picture(tmp_path / "good" / f"shift {i % 2}" / f"IMG {i // 2}.png", i)
    return tmp_path / "good"


def test_one_in_five_good_pictures_is_tested_and_all_keep_their_names(photos):
    made = importer.plan(photos)
    assert made == importer.plan(photos) and made.left_out == [] and len(made.copies) == 12
    assert (made.count("train/good/"), made.count("test/good/")) == (10, 2)
    assert {target.rsplit("/", 1)[1]
            for target in made.copies} == {f"shift {i % 2}_IMG {i // 2}.png"
                                           for i in range(12)}
    assert importer.describe(made) == (
        "10 good pictures to learn from, 2 good ones to test with. Pictures of all these folders "
        "count as good: shift 0 (6), shift 1 (6).")


def test_folders_are_told_where_pictures_lie_in_more_than_one_place(photos):
    """Nobody knows what a folder of bad parts is called in every language."""
    flat = photos / "shift 0"
    assert importer.describe(importer.plan(flat)) == (
        "6 good pictures to learn from, 0 good ones to test with.")
    picture(flat / "schlecht" / "a" / "1.png", 99)
    assert importer.describe(importer.plan(flat)).endswith(
        " count as good: schlecht (1), the folder itself (6).")


def test_it_becomes_a_category_of_the_study_with_defects_and_masks(photos, tmp_path):
    for i, name in enumerate(("crack/a.png", "crack/b.png", "stain/a.png", "c.png", "-good/d.png")):
        picture(tmp_path / "bad" / name, 100 + i)
    for name in ("crack/a.png", "stain/a_mask.png"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "masks" / name)
    made = importer.plan(photos, tmp_path / "bad", tmp_path / "masks")
    assert "2 good ones to test with, 5 bad ones (2 with a mask)." in importer.describe(made)
    assert importer.create(tmp_path / "data", "my-part", made)
    category = layout.open_category(tmp_path / "data", "my-part")
    labels = layout.read_labels(category)
    assert category.layout == "mvtec" and len(category.train) == 10 and len(category.test) == 7
    assert sorted(labels[key].defect for key in labels) == [
        "_good", "bad", "crack", "crack", "good", "good", "stain"
    ]
    masked = set(map(category.key, category.masks))
    assert masked == {"my-part/test/crack/crack_a.png", "my-part/test/stain/stain_a.png"}
    assert not importer.create(tmp_path / "data", "my-part", made)  # the same command again


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_left_out_by_name_and_waited_for_by_nobody(photos, tmp_path):
    picture(tmp_path / "bad" / "a.png", 100)
    for name in ("good/pipe.png", "bad/pipe.JPG", "good/pipe"):
        os.mkfifo(tmp_path / name)
    made = importer.plan(photos, tmp_path / "bad")
    assert made.left_out == [f"{tmp_path / name} cannot be read ({files.NO_FILE})"
                             for name in ("good/pipe.png", "bad/pipe.JPG")]
    (tmp_path / "masks").mkdir()
    os.mkfifo(tmp_path / "masks" / "a.png")
    with pytest.raises(InputError, match=rf"masks/a.png cannot be used \({files.NO_FILE}\)"):
        importer.plan(photos, tmp_path / "bad", tmp_path / "masks")


@pytest.mark.parametrize(("folder", "words"), [
    ("good/Bad/1", "good/Bad/1 lies in the folder of good pictures"),
    ("good/masks", "good/masks lies in the folder of good pictures"),
    ("good/NG", "good/NG lies in the folder of good pictures"),  # a folder a class
    ("good/Images/Anomaly", "good/Images/Anomaly lies in the folder of good pictures"),
    ("bad/Good", "bad/Good calls pictures good that count as a defect there"),
    ("bad/Normal", "bad/Normal calls pictures good that count as a defect there")])
def test_pictures_that_folders_call_good_and_bad_are_taken_for_neither(photos, tmp_path, folder,
                                                                      words):
    """Such as `--good photos` or `--bad test`, where both kinds lie below."""
    picture(tmp_path / "bad" / "0.png", 90)
    picture(tmp_path / folder / "x.png", 91)
    with pytest.raises(InputError, match=words):
        importer.plan(photos, tmp_path / "bad")


def test_masks_are_paired_as_in_a_category_and_copied_as_they_are(photos, tmp_path):
    for i, name in enumerate(("crack/a.png", "crack/x y/b.png", "-good/c.png")):
        picture(tmp_path / "bad" / name, 100 + i)
    for name in ("Crack/A_mask.BMP", "crack/b.jpg"):
        (tmp_path / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save(tmp_path / "masks" / name)
    importer.create(tmp_path / "data", "mine", importer.plan(photos, tmp_path / "bad",
                                                             tmp_path / "masks"))
    category = layout.open_category(tmp_path / "data", "mine")
    assert {category.key(path): category.key(mask) for path, mask in category.masks.items()} == {
        "mine/test/crack/crack_a.png": "mine/ground_truth/crack/crack_a_mask.BMP",
        "mine/test/crack_x_y/crack_x y_b.png":
        "mine/ground_truth/crack_x_y/crack_x y_b_mask.jpg"}
    for path, mask in category.masks.items():
        assert mask.read_bytes() == next((tmp_path / "masks").glob(
            f"*rack/[Ab]*{mask.suffix}")).read_bytes(), path
    assert {category.defect(path) for path in category.test} == {
        "good", "crack", "crack_x_y", "_good"}


def test_what_cannot_be_used_is_left_out_and_said(photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"no picture")
    shutil.copy(photos / "shift 0" / "IMG 0.png", photos / "twice.png")
    picture(tmp_path / "bad" / "same.png", 0)  # a good picture among the bad ones
    picture(tmp_path / "bad" / "real.png", 99)
    made = importer.plan(photos, tmp_path / "bad")
    assert len(made.copies) == 13 and len(made.left_out) == 3
    within = importer.plan(photos / "shift 0", photos).left_out
    assert sum(words.endswith("is one of the good pictures") for words in within) == 6
    for reason, words in zip(
            made.left_out,
        ("broken.jpg cannot be read", "twice.png is a copy of", "same.png is a copy of"),
            strict=True):
        assert words in reason


def test_what_looks_like_a_picture_and_is_not_used_is_said(photos, tmp_path):
    (photos / "shift 0" / "IMG 0.png").rename(photos / "shift 0" / "IMG_0000")
    (photos / "raw.NEF").write_bytes(b"II*\0" + bytes(64))
    (photos / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    pages = [Image.new("L", (16, 16), grey) for grey in (0, 9)]
    pages[0].save(photos / "pages.tif", save_all=True, append_images=pages[1:])
    made = importer.plan(photos)
    assert sorted(made.left_out) == [
        f"{photos / 'pages.tif'} cannot be read (it holds 2 pictures; save each as a file of its "
        "own)", f"{photos / 'raw.NEF'} cannot be read (.NEF files are not read; save it as PNG, "
        "TIFF or JPEG)",
        f"{photos / 'shift 0' / 'IMG_0000'} is a picture, and its name does not end as one's does"]


def test_archives_and_videos_among_the_photographs_are_said(photos, tmp_path):
    for name in ("night.ZIP", "line.mp4", "notes.txt"):
        (photos / name).write_bytes(b"PK\3\4" + bytes(64))
    assert sorted(importer.plan(photos).left_out) == [
        f"{photos / 'line.mp4'} is a video; save its frames as pictures",
        f"{photos / 'night.ZIP'} is an archive; unpack it first"]
    (tmp_path / "archive").mkdir()
    shutil.copy(photos / "night.ZIP", tmp_path / "archive")
    with pytest.raises(InputError, match=r"no good picture .*; night.ZIP is an archive; unpack"):
        importer.plan(tmp_path / "archive")


@pytest.mark.parametrize("name", ["NG", "不良品"])
def test_folders_of_bad_parts_are_known_in_the_studys_two_languages(photos, name):
    picture(photos / name / "1.png", 99)
    with pytest.raises(InputError, match=f"{name} lies in the folder of good pictures"):
        importer.plan(photos)


@pytest.mark.parametrize("name", ["OK", "良品"])
def test_folders_of_good_parts_are_known_in_them_too(photos, tmp_path, name):
    picture(tmp_path / "bad" / name / "1.png", 99)
    with pytest.raises(InputError, match=f"{name} calls pictures good that count as a defect"):
        importer.plan(photos, tmp_path / "bad")


def test_a_link_to_nothing_is_left_out_and_said(photos):
    (photos / "gone.png").symlink_to("nowhere.png")
    (photos / "self.png").symlink_to("self.png")
    made = importer.plan(photos)
    assert len(made.copies) == 12 and [reason.rpartition("/")[2] for reason in made.left_out] == [
        "gone.png cannot be read (No such file or directory)",
        "self.png cannot be read (Too many levels of symbolic links)"]


def test_a_reason_that_many_share_is_said_once(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02d}.dng").write_bytes(b"II*\0" + bytes([i] * 64))
    with pytest.raises(InputError, match=r"holds no good picture .*; 00.dng, 01.dng, .*, 11.dng "
                                         r"cannot be read \(.dng files are not read[^(]*\)$"):
        importer.plan(tmp_path)


def test_the_mask_of_a_picture_that_is_left_out_is_no_mistake(photos, tmp_path):
    picture(tmp_path / "bad" / "same.png", 0)
    picture(tmp_path / "bad" / "real.png", 99)
    picture(tmp_path / "masks" / "same_mask.png", 1)
    assert importer.plan(photos, tmp_path / "bad", tmp_path / "masks").count("ground_truth/") == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_copies_have_names_that_any_system_takes(photos):
    for number, name in enumerate(("12:30.png", "con.png", "a?b.png", "fine.png")):
        picture(photos / name, 50 + number)
    copies = {target.rpartition("/")[2] for target in importer.plan(photos).copies}
    assert {"_12_30.png", "_con.png", "_a_b.png", "fine.png"} < copies


def test_equal_names_get_numbers(photos, tmp_path):
    picture(photos / "a" / "b.png", 50)
    picture(photos / "a_b.png", 51)
    picture(photos / "a_b.jpg", 52)
    names = {target.rsplit("/", 1)[1] for target in importer.plan(photos).copies}
    assert len({name.rsplit(".", 1)[0] for name in names}) == len(names) == 15


@pytest.mark.parametrize(("spoil", "sentence"), [
    (lambda place: [path.write_bytes(b"") for path in (place / "good").rglob("*.png")],
     "holds no good picture that can be used; give at least one"),
    (lambda place: shutil.rmtree(place / "good"), "there is no folder .*good"),
    (lambda place: picture(place / "masks" / "other.png", 1),
     "1 masks belong to no bad picture: .*other.png"),
    (lambda place: picture(place / "masks" / "a.png", 1, size=33) or Image.new("L", (32, 20)).save(
        place / "masks" / "a.png"), "the mask .*a.png cannot be used .its 32x20 pixels"),
    (lambda place: picture(place / "bad" / "a_mask.png", 98), "a.png and a_mask.png are two"),
    (lambda place: picture(place / "bad" / "masks" / "a.png", 98), "bad/masks is a folder of masks"),
], ids=["few", "none", "a mask too many", "another shape", "masks beside", "masks below"])
def test_what_cannot_work_is_one_sentence(photos, tmp_path, spoil, sentence):
    picture(tmp_path / "bad" / "a.png", 99)
    (tmp_path / "masks").mkdir()
    spoil(tmp_path)
    with pytest.raises(InputError, match=sentence):
        importer.plan(photos, tmp_path / "bad", tmp_path / "masks")


def test_a_part_that_is_there_is_never_overwritten_and_half_a_part_never_left(
        photos, tmp_path, monkeypatch):
    made = importer.plan(photos)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    with pytest.raises(InputError, match="is there already, from other pictures"):
        importer.create(tmp_path / "data", "mine", made)
    for name in ("../mine", "con", "NUL.1", "mine.", "my part", "_x"):  # some are Windows' own
        with pytest.raises(InputError, match="cannot be a part's name"):
            importer.create(tmp_path / "data", name, made)
    importer.check_name("零件-1")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
            InputError,
            match=r"cannot write .*other \(No space left on device\); nothing was left there"):
        importer.create(tmp_path / "data", "other", made)
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


@pytest.mark.parametrize(("n", "tested", "more"), [(1, 0, 23), (9, 0, 15), (10, 2, 14), (12, 2, 12)])
def test_of_few_good_pictures_none_is_kept_for_testing_and_how_many_lack_is_told(
        photos, n, tested, more):
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    for path in paths[n:]:
        path.unlink()
    made = importer.plan(photos)
    assert (made.count("train/good/"), made.count("test/good/")) == (n - tested, tested)
    assert importer.missing(made, 19) == more
    assert importer.missing(made, n - tested) == 0


@pytest.fixture
def unprepared(monkeypatch):
    """No process imports what notebooks do."""
    monkeypatch.setattr(local.Local, "prepare", lambda engine, notebook: None)


def test_the_command_makes_the_part_and_runs_the_best_detector_on_it(
        photos, tmp_path, monkeypatch, capsys, unprepared):
    asked = []
    monkeypatch.setattr(cli, "run", lambda args, engine: asked.append(args) or 0)
    words = [
        "new", "my-part", "--good",
        str(photos), "--data",
        str(tmp_path / "data"), "--reports",
        str(tmp_path / "reports"), "--lang", "zh", "--weights", "none"
    ]
    assert cli.main(words) == 0 == cli.main(words)
    said = capsys.readouterr().out
    assert "my-part: 10 good pictures to learn from" in said and said.count(
        "going on with them") == 1
    assert {(Path(args.grid).name, args.only, args.data, args.lang, args.report)
            for args in asked} == {("fused.yaml", "category=my-part", str(
                tmp_path / "data"), "zh", True)}
    assert files.read_json(tmp_path / "data" / "my-part" / importer.NOTE)["pictures"]


@pytest.mark.parametrize("folder", ["here", "it's #1"])
def test_outside_the_project_the_configurations_are_those_installed(photos, tmp_path, monkeypatch,
                                                                    unprepared, folder):
    asked, here = [], tmp_path / folder
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(cli, "run", lambda args, engine: asked.append(args) or 0)
    assert cli.main(["new", "mine", "--good", str(photos), "--reports", str(here / "out"),
                     "--weights", "none"]) == 0
    assert (here / "data" / "mine" / "train" / "good").is_dir()
    assert Path(asked[0].grid).is_file() and asked[0].data == str(here / "data")


@pytest.mark.parametrize(("words", "said"), [
    (["--weights", "nowhere.pth"], "weights file nowhere.pth is missing"),
    (["--weights", "x.pth"], "x.pth cannot be read as a torch state dict"),
    (["--exclude", "nowhere.txt"], "exclude is 'nowhere.txt'"),
    (["--bad", "same"], "its pictures are among the good ones"),
    (["--bad", "none"], "it holds no picture"),
    (["--bad", "x.pth"], "x.pth is a file; give its folder")])
def test_what_would_stop_it_later_is_said_before_anything_is_copied(
        photos, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.setattr(local.Local, "prepare", lambda engine, notebook: None)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, tmp_path / "same")
    (tmp_path / "none").mkdir()
    (tmp_path / "x.pth").write_bytes(b"no weights")
    words = [str(tmp_path / word) if "/" not in word and (tmp_path / word).exists() else word
             for word in words]
    assert cli.main(["new", "mine", "--good", str(photos), "--data", "data", *words]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "data").exists()


def test_names_to_leave_out_that_are_another_parts_are_refused(photos, tmp_path, capsys):
    """All would be learned from, and nobody told."""
    words = ["new", "mine", "--good", str(photos), "--data", str(tmp_path / "data"), "--exclude"]
    assert cli.main([*words, "['other/train/good/000.png']"]) == 2
    assert "exclude names no picture that mine learns" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    made = importer.plan(photos, None, None)
    name = next(iter(made.copies))
    for own in (f"mine/{name}", f"mine/{name}".replace("/", "\\").upper(), Path(name).name):
        importer.check_excluded([own], "mine", made)


def test_names_to_leave_out_that_are_kept_for_testing_are_refused(photos, tmp_path, capsys):
    made = importer.plan(photos)
    tested, learned = (next(one for one in made.copies if one.startswith(f"{split}/good/"))
                       for split in ("test", "train"))
    for names in ([f"mine/{tested}"], [Path(tested).name], [f"mine/{learned}", f"mine/{tested}"]):
        assert cli.main(["new", "mine", "--good", str(photos), "--data", str(tmp_path / "data"),
                         "--exclude", str(names)]) == 2
        assert capsys.readouterr().err == (
            "adlib: exclude names 1 pictures of mine that are kept for testing and not learned "
            f"from ({names[-1]}); remove these names\n")
    assert not (tmp_path / "data").exists()


def test_a_name_that_cannot_be_one_is_refused_before_a_picture_is_read(tmp_path, capsys):
    assert cli.main(["new", "../evil", "--good", str(tmp_path / "nowhere")]) == 2
    assert "cannot be a part's name" in capsys.readouterr().err


def test_where_the_configuration_is_missing_nothing_is_copied(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("notebooks", "params"):  # a project of that shape, and not this one
        (tmp_path / name).mkdir()
    assert cli.main(["new", "mine", "--good", str(photos)]) == 2
    assert "fused.yaml" in capsys.readouterr().err and not (tmp_path / "data").exists()
