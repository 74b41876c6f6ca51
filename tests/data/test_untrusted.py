"""Names that no table can hold, and links: read inside the data folder, refused out of it; folders
that cannot be read."""
import os
import shutil

import pytest

from adlib.config import InputError
from adlib.data import importer, layout, untrusted
from tests.conftest import picture


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [("", "=1+1", "folder name '=1.1' begins like a formula"), ("", "@x", "begins like a formula"),
     ("", "a\nb", r"the name 'a\\nb' holds control characters"),
     ("test/spot", "+x", "folder name '.x' begins like a formula"),
     ("test/spot", "-x", "begins like a formula"),
     ("test/spot", "a\x1b[2J", r"'nut/test/a\\x1b\[2J/000.png' holds control characters"),
     ("test/spot/000.png", "a\tb.png", "holds control characters"),
     ("train/good/000.png", "\udcb5.png", "bytes that are no UTF-8"),
     ("train/good/000.png", "\u202egnp.png", "control characters")])
def test_a_name_that_cannot_be_had_is_one_sentence(mvtec_root, old, new, sentence):
    path = mvtec_root / "nut" / old
    try:
        path.rename(path.with_name(new))
    except OSError:
        pytest.skip("this file system does not have such names")
    with pytest.raises(InputError, match=sentence) as caught:
        layout.open_category(mvtec_root)
    assert not untrusted.UNFIT.search(str(caught.value))


def moved_out(path, where):
    """What was at a path lies elsewhere, with a link to it in its place."""
    where.mkdir()
    shutil.move(path, where)
    path.symlink_to(where / path.name)


@pytest.mark.parametrize("what",
                         ["train/good/000.png", "test/spot/001.png", "test/spot", "train/good"])
def test_a_link_out_of_the_data_folder_is_refused(mvtec_root, tmp_path, what):
    moved_out(mvtec_root / "nut" / what, tmp_path / "elsewhere")
    with pytest.raises(InputError,
                       match="is a link that leads out of the data folder, to .*elsewhere"):
        layout.open_category(mvtec_root)


@pytest.mark.parametrize("what", ["ground_truth/spot/001_mask.png", "ground_truth/spot",
                                  "ground_truth", "test/spot/a/b", "image_anomaly_labels.json",
                                  "synthetic.json"])
def test_so_is_a_mask_a_folder_at_any_depth_or_a_file_of_labels(mvtec_root, tmp_path, what):
    deep = mvtec_root / "nut" / "test" / "spot" / "a" / "b"
    picture(deep / "9.png", 9)
    for name in ("image_anomaly_labels.json", "synthetic.json"):
        (mvtec_root / name).write_text("{}")
    moved_out(mvtec_root / what if what.endswith(".json") else mvtec_root / "nut" / what,
              tmp_path / "elsewhere")
    with pytest.raises(InputError,
                       match="is a link that leads out of the data folder, to .*elsewhere"):
        layout.open_category(mvtec_root)


def test_a_link_to_the_whole_disk_is_refused_before_it_is_walked(mvtec_root, monkeypatch):
    (mvtec_root / "nut" / "test" / "spot" / "x").symlink_to("/")
    walked = []
    visible = layout._visible
    monkeypatch.setattr(layout, "_visible", lambda path: walked.append(path) or visible(path))
    with pytest.raises(InputError, match="spot/x is a link .* out of the data folder, to /"):
        layout.open_category(mvtec_root)
    assert all(path.name != "x" for path in walked)


@pytest.mark.parametrize("what", ["nut/test/spot/000.png", "nut/ground_truth/spot/001_mask.png",
                                  "image_anomaly_labels.json"])
def test_a_link_to_nothing_is_named(mvtec_root, what):
    (mvtec_root / what).unlink(missing_ok=True)
    (mvtec_root / what).symlink_to(mvtec_root / "gone")
    with pytest.raises(InputError, match=f"{what} is a link to .*gone, which is not there"):
        layout.open_category(mvtec_root)


def test_links_inside_the_data_are_read_and_circles_end(mvtec_root):
    nut = mvtec_root / "nut"
    picture(nut.parent / "pool" / "7.png", 7)
    (nut / "test" / "spot" / "batch").symlink_to(nut.parent / "pool")
    (nut / "test" / "spot" / "up").symlink_to(nut / "test")
    assert "nut/test/spot/batch/7.png" in map(
        (category := layout.open_category(mvtec_root)).key, category.test)
    assert len(category.test) == 7
    (nut.parent / "pool" / "again").symlink_to(nut / "train")
    with pytest.raises(InputError, match="spot/batch/again is a link in a linked folder; link to "):
        layout.open_category(mvtec_root)


def test_a_whole_category_may_lie_on_another_disk_and_share_pictures_with_its_neighbour(
        mvtec_root, tmp_path):
    moved_out(mvtec_root / "nut", tmp_path / "disk")
    (mvtec_root / "pin" / "train").mkdir(parents=True)
    (mvtec_root / "pin" / "train" / "good").symlink_to(mvtec_root / "own")
    shutil.copytree(mvtec_root / "nut" / "train" / "good", mvtec_root / "own")
    (tmp_path / "root").symlink_to(mvtec_root)
    for name in ("nut", "pin"):
        assert layout.fingerprint(layout.open_category(tmp_path / "root", name))


def test_links_in_a_folder_given_by_hand_become_copies(mvtec_root, tmp_path):
    """Who gives `adlib new` a folder of links says by hand what is to be copied; the category that
    it becomes leads nowhere."""
    (tmp_path / "photos").mkdir()
    for i in range(12):
        picture(tmp_path / "disk" / f"{i}.png", i)
        (tmp_path / "photos" / f"{i}\x1b.png").symlink_to(tmp_path / "disk" / f"{i}.png")
    (tmp_path / "photos" / "passwd.png").symlink_to("/etc/passwd")
    made = importer.plan(tmp_path / "photos")
    assert len(made.copies) == 12 and "passwd.png cannot be read" in made.left_out[0]
    importer.create(tmp_path / "data", "mine", made)
    assert not any(path.is_symlink() for path in (tmp_path / "data").rglob("*"))
    assert len(layout.open_category(tmp_path / "data", "mine").train) == 10


def test_a_folder_beside_the_categories_that_cannot_be_read_is_left_out_and_said(
        mvtec_root, monkeypatch, caplog):
    (mvtec_root / "lost+found").mkdir()
    ask = os.stat

    def locked(path, **how):
        if "lost+found/" in str(path):
            raise PermissionError(13, "Permission denied")
        return ask(path, **how)

    monkeypatch.setattr(os, "stat", locked)
    assert layout.categories(mvtec_root) == ["nut"]
    assert "lost+found: Permission denied; it is left out" in caplog.text
