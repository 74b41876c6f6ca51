"""A run's pictures: the right image under its own map, outlines where they belong, files that a page
finds, and a page that holds them itself."""
import base64
import io
import types
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image

from adlib.config import Config
from adlib.data import part
from adlib.data.frame import Frame
from adlib.runs import image_layers, overlays, run_folder

DECISION = types.SimpleNamespace(low=0.0, level=1.0)


class Darker:
    """Reconstructs everything a little darker."""

    def reconstruct(self, images):
        return (images.float() / 255 - 0.1).clamp(0, 1)


@pytest.fixture
def nut(mvtec_root):
    """The test images of a category with masks, and a map that is high where the mask is."""
    opened = part.open_part(Config(data_root=str(mvtec_root), image_size=32, held_out=0.2))
    return opened.test, 2.0 * opened.test.masks.numpy().astype(np.float32)


def folder(tmp_path):
    here = tmp_path / "reports" / "runs" / "nut" / "pca" / "seed-0"
    here.mkdir(parents=True)
    return here


def pixels(address, where=None):
    content = (where / address).read_bytes() if where else base64.b64decode(address.split(",")[1])
    return np.asarray(Image.open(io.BytesIO(content)))


def nearest(kept, originals):
    """The place of the original that a JPEG, whose colours are coarse, is of."""
    return int(np.abs(originals.mean(axis=-1) - kept.mean(axis=-1)).mean(axis=(1, 2)).argmin())


def places(path):
    """Every point of an outline: a path of a place and steps."""
    lines = [np.array(line.replace("l", " ").strip("Z ").split(), float).reshape(-1, 2)
             for line in path.split("M")[1:]]
    return np.concatenate([line.cumsum(axis=0) for line in lines])


def test_every_picture_is_kept_beside_the_page_and_is_that_of_its_image(nut, tmp_path):
    test, maps = nut
    here = folder(tmp_path)
    shots = image_layers.keep(here, test, maps, DECISION, Darker())
    assert list(image_layers.read(here, here)) == test.keys and list(
        image_layers.read(here, here).values()) == shots
    originals = test.tensor.permute(0, 2, 3, 1).numpy()
    for i, shot in enumerate(shots):
        kept = pixels(shot.input, here)
        assert kept.shape[:2] == (shot.height, shot.width)
        assert nearest(kept, originals) == i
        assert nearest(pixels(shot.reconstruction, here), originals.clip(26) - 25.5) == i
        hot = pixels(shot.heat, here)[..., 3] > 150
        assert bool(hot.any()) == bool((maps[i] > 1).any()) == bool(shot.ticks) == bool(shot.level)
    assert {path.name for path in (tmp_path / "reports" / "pictures" / "nut").iterdir()} >= {
        shot.input.rsplit("/", 1)[1] for shot in shots}


def test_a_second_run_decodes_nothing_again_and_an_earlier_attempts_pictures_are_gone(
        nut, tmp_path, monkeypatch):
    test, maps = nut
    here = folder(tmp_path)
    image_layers.keep(here, test, maps, DECISION, object())
    (here / "pictures" / "9999-map.webp").write_bytes(b"of an earlier attempt")
    monkeypatch.setattr(image_layers.reading, "upright", lambda *_: pytest.fail("decoded again"))
    image_layers.keep(here, test, maps, DECISION, object())
    assert not (here / "pictures" / "9999-map.webp").exists()
    assert all(shot.reconstruction == "" for shot in image_layers.read(here, here).values())


def test_inputs_keep_their_shape_and_no_metadata_and_large_ones_are_made_smaller(tmp_path):
    source = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by a quarter
    Image.new("RGB", (2000, 500), "red").save(source, exif=exif)
    (large, small), size = image_layers._input(source, tmp_path / "kept" / "abc", None)
    assert size == (256, 1024) == Image.open(large).size and Image.open(small).size == (64, 256)
    assert not Image.open(large).getexif()
    Image.new("RGB", (200, 100)).save(source)
    (large, small), size = image_layers._input(source, tmp_path / "kept" / "abd", None)
    assert small == large and size == (200, 100)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "abc-small.webp", "abc.webp", "abd.webp"]


def test_a_large_picture_keeps_its_own_pixels_around_the_maximum(tmp_path):
    """At the rim, too; of one that is kept as it is nothing is kept twice."""
    rng, place = np.random.default_rng(0), tmp_path / "data" / "strip"
    large = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).resize((1500, 900))
    for path, picture in (("train/good/0.png", large), ("test/good/0.png", large),
                          ("test/good/1.png", large.resize((300, 180)))):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(place / path)
    test = part.open_part(Config(data_root=str(tmp_path / "data"), image_size=32, held_out=0)).test
    maps = np.zeros((2, 32, 32), np.float32)
    maps[:, 20, 0] = 1  # the middle of that cell: 23.4 across, 576.6 down
    here = folder(tmp_path)
    one, other = image_layers.keep(here, test, maps, DECISION, object())
    assert (other.detail, other.box) == ("", "")
    assert one.box == f"left:0.0000%;top:{100 * 449 / 900:.4f}%;width:{100 * 256 / 1500:.4f}%;" \
                      f"height:{100 * 256 / 900:.4f}%"
    kept, expected = pixels(one.detail, here), np.asarray(large)[449:705, :256]
    assert kept.shape == (256, 256, 3)
    assert np.abs(kept.mean(axis=2) - expected.mean(axis=2)).mean() < 8  # as WebP keeps it
    assert image_layers.read(here, here)[test.keys[0]] == one
    assert image_layers.read(here)[test.keys[0]].detail.startswith("data:image/webp")


def test_what_a_detector_is_given_is_shown_in_the_shape_of_its_file():
    """Not in the square that it is squeezed into, nor with the rim of one that it is laid into."""
    images, maps = torch.full((1, 3, 32, 32), 200, dtype=torch.uint8), np.zeros((1, 32, 32))
    for frame, kept in ((Frame("squeeze", 32), (32, 32)), (Frame("pad", 32), (16, 32))):
        (shot, ) = image_layers.shots(images, maps, DECISION, Darker(), frame=frame,
                                      sizes=[(50, 100)])
        assert (shot.width, shot.height) == (100, 50)
        assert pixels(shot.input).shape[:2] == pixels(shot.reconstruction).shape[:2] == kept


def test_an_attempt_beside_standing_numbers_shows_its_pictures_inside_a_notebook(nut, tmp_path):
    test, maps = nut
    here = folder(tmp_path) / run_folder.AGAIN
    here.mkdir()
    image_layers.keep(here, test, maps, DECISION, Darker())
    inside = image_layers.read(here, None, test.keys)
    assert list(inside) == test.keys
    assert all(shot.input.startswith("data:") for shot in inside.values())


def test_outlines_and_corners_lie_where_the_region_is():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 16:32, 32:48] = True
    (shot, ) = image_layers.shots(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 3.0 * mask.numpy(),
                           DECISION, object(), mask)
    for path, margin in ((shot.truth, 3), (shot.level, 6)):
        low, high = places(path).min(axis=0), places(path).max(axis=0)
        assert np.abs(low - (100, 50)).max() <= margin and np.abs(high - (150, 100)).max() <= margin
    assert shot.ticks.count("M") == 4 and shot.input == shot.thumb  # inside the page
    assert pixels(shot.map)[-1, 0].tolist() == pytest.approx(
        overlays.heat(np.zeros((1, 1)), 0, 1)[0, 0].tolist(), abs=12)


def test_many_specks_have_few_corners_and_an_empty_mask_has_none():
    masks = torch.zeros(2, 128, 128, dtype=torch.bool)
    masks[0, ::16, ::16] = True
    images = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    one, other = image_layers.shots(images, np.zeros((2, 8, 8)),
                             DECISION, object(), masks)
    assert one.ticks.count("M") == 4 * image_layers.REGIONS
    assert (other.ticks, other.truth, other.level) == ("", "", "")


def test_a_page_holds_its_pictures_smaller_the_more_they_are(nut, tmp_path, monkeypatch):
    test, maps = nut
    here = folder(tmp_path)
    shots = image_layers.keep(here, test, maps, DECISION, object())
    whole = image_layers.inlined(shots, here)
    assert all(shot.thumb.startswith("data:image/webp") and shot.heat.startswith("data:image/webp")
               for shot in whole) and [shot.input for shot in whole] == [
                   shot.input for shot in shots]
    most = sum(len(shot.thumb) + len(shot.heat) + image_layers.TILE for shot in whole)
    monkeypatch.setattr(image_layers, "PAGE", most - 1)
    monkeypatch.setattr(image_layers, "SIDES", (256, 24))
    assert max(pixels(shot.thumb).shape[0] for shot in image_layers.inlined(shots, here)) == 24


def test_another_page_addresses_the_same_files_whatever_the_category_is_called(mvtec_root, tmp_path):
    (mvtec_root / "nut").rename(mvtec_root / "a nut #1 ü")
    opened = part.open_part(Config(data_root=str(mvtec_root), image_size=32, held_out=0.2))
    here = tmp_path / "reports" / "runs" / "a nut #1 ü" / "pca" / "seed-0"
    maps = np.zeros((len(opened.test), 8, 8), np.float32)
    image_layers.keep(here, opened.test, maps, DECISION, object())
    page = tmp_path / "reports" / "compare" / "a nut #1 ü"
    for shot in image_layers.read(here, page).values():
        assert "#" not in shot.input and " " not in shot.input
        assert (page / unquote(shot.input)).resolve().is_file()
        assert (page / unquote(shot.heat)).resolve().is_file()
    inside = image_layers.read(here)
    assert all(shot.input.startswith("data:") for shot in inside.values())
    assert list(image_layers.read(here, page, opened.test.keys[:2])) == opened.test.keys[:2]
    assert image_layers.read(tmp_path) == {}


def test_pictures_of_16_bits_are_shown_by_the_range_of_their_run(tmp_path):
    for i in range(4):
        path = tmp_path / "data" / "nut" / ("test" if i else "train/good") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 40), 2048, np.uint16)).save(path)
    here, shown = folder(tmp_path), []
    for grey_range in ("0,4095", "0,65535"):
        test = part.open_part(Config(data_root=str(tmp_path / "data"), image_size=32,
                                     grey_range=grey_range)).test
        shots = image_layers.keep(here, test, np.zeros((3, 32, 32)), DECISION, object())
        shown.append(pixels(shots[0].input, here).mean())
    assert shown == pytest.approx([128, 8], abs=2)
