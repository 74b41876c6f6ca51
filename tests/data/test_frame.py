import numpy as np
import pytest
from PIL import Image

from adlib.config import Config, InputError
from adlib.data import frame, images, layout, masks, reading
from adlib.data.frame import Box, Frame
from adlib.data.part import open_part


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("fit", "size", "scale", "shape", "outer", "box"), [
    ("squeeze", 64, 1, (30, 90), (64, 64), Box(0, 0, 64, 64)),
    ("pad", 64, 1, (30, 90), (64, 64), Box(21, 0, 21, 64)),  # 64 * 30 / 90 = 21.3
    ("pad", 64, 1, (500, 20), (64, 64), Box(0, 30, 64, 3)),
    ("pad", 64, 1, (5000, 1), (64, 64), Box(0, 31, 64, 1)),
    ("tile", 64, 1, (100, 70), (104, 72), Box(2, 1, 100, 70)),  # to multiples of a cell
    ("tile", 64, 0.5, (100, 400), (64, 200), Box(7, 0, 50, 200)),  # at least a tile
])
def test_where_a_picture_lies(fit, size, scale, shape, outer, box):
    assert Frame(fit, size, scale).place(*shape) == (outer, box)


@pytest.mark.parametrize("shape", [(30, 90), (90, 30), (64, 64)])
def test_pad_keeps_the_shape_and_marks_what_it_adds(shape):
    one = picture(*shape)
    laid = Frame("pad", 64).lay(one)
    _, box = Frame("pad", 64).place(*shape)
    inside = np.zeros((64, 64), bool)
    inside[box.top:box.top + box.height, box.left:box.left + box.width] = True
    assert laid.shape == (4, 64, 64) and ((laid[3] == 255) == inside).all()
    expected = one.resize((box.width, shape[0]), Image.Resampling.BILINEAR).resize(
        (box.width, box.height), Image.Resampling.BILINEAR)
    # beyond the rim it is mirrored, as often as it takes
    rows, columns = (np.minimum(at % (2 * n), 2 * n - 1 - at % (2 * n)) for at, n in (
        (np.arange(64) - box.top, box.height), (np.arange(64) - box.left, box.width)))
    assert (laid[:3].transpose(1, 2, 0) == np.asarray(expected)[rows[:, None], columns]).all()


def test_squeeze_stays_as_it_was(tmp_path):
    picture(30, 90).save(tmp_path / "a.png")
    plain = reading.read(tmp_path / "a.png", 64)
    assert plain.shape == (3, 64, 64)
    assert (plain == reading.read(tmp_path / "a.png", Frame("squeeze", 64))).all()
    assert Frame("squeeze", 64).key == (64, )  # what is kept on disk is found again


@pytest.mark.parametrize("fit", ["squeeze", "pad", "tile"])
def test_what_is_ignored_reaches_no_pixel(fit):
    """Two pictures that differ in the ignored region alone are laid alike, to the bit."""
    hidden = np.zeros((40, 100), bool)
    hidden[8:30, 15:77] = True
    one, other = np.asarray(picture(80, 200)), np.asarray(picture(80, 200, seed=1))
    changed = np.where(frame.stretched(hidden, (80, 200))[..., None], other, one)
    laid = [Frame(fit, 64, looked_at=~hidden).lay(Image.fromarray(values))
            for values in (one, changed)]
    assert (one != changed).any() and (laid[0] == laid[1]).all()
    _, box = Frame(fit, 64).place(80, 200)
    outside = 1 - (laid[0][3] > 0).sum() / (box.height * box.width)
    assert outside == pytest.approx(hidden.mean(), abs=0.02)


def test_masks_are_joined_and_stretched(tmp_path):
    left, top = np.zeros((4, 8), bool), np.zeros((2, 4), bool)
    left[:, :4], top[0] = True, True
    paths = [tmp_path / name for name in ("left.png", "top.png")]
    for path, mask in zip(paths, (left, top), strict=True):
        Image.fromarray(mask).save(path)
    seen = frame.looked_at(paths[:1], paths[1:], masks.region)
    expected = left.copy()
    expected[:2] = False
    assert (seen == expected).all()
    assert frame.looked_at((), (), masks.region) is None
    assert (frame.looked_at((), paths[:1], masks.region) == ~left).all()
    with pytest.raises(InputError, match="leave nothing to be looked at"):
        frame.looked_at(paths[:1], paths[:1], masks.region)
    paths[0].write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"left.png cannot be read"):
        frame.looked_at(paths[:1], (), masks.region)


def test_a_picture_of_which_nothing_is_left_is_named(mvtec_root):
    mask = np.zeros((320, 320), bool)
    mask[0, 0] = True  # too small for any pixel of 32
    Image.fromarray(mask).save(mvtec_root / "nut" / "roi.png")
    part = open_part(Config(data_root=str(mvtec_root), image_size=32, held_out=0, roi="roi.png"))
    with pytest.raises(InputError, match="6 of 6 images cannot be read.*000.png.*nothing is left"):
        part.train.framed  # noqa: B018


def test_folders_and_parameters_name_masks(mvtec_root):
    place = mvtec_root / "nut"
    for name, rows in (("roi/part.png", slice(0, 24)), ("ignore/number.png", slice(0, 8)),
                       ("plate.png", slice(20, 24))):
        mask = np.zeros((32, 32), bool)
        mask[rows] = True
        (place / name).parent.mkdir(exist_ok=True)
        Image.fromarray(mask).save(place / name)
    config = Config(data_root=str(mvtec_root), image_size=32, held_out=0)
    part = open_part(config)
    assert part.category.unread == (place / "plate.png", )
    assert part.looked_at.any(axis=1).tolist() == [False] * 8 + [True] * 16 + [False] * 8
    assert (part.train.area.numpy() == part.looked_at).all() and part.train.tensor.shape[1] == 3
    before = layout.fingerprint(part.category)
    asked = open_part(Config(data_root=str(mvtec_root), image_size=32, held_out=0,
                             ignore="plate.png"))
    assert asked.looked_at.any(axis=1).sum() == 12
    assert layout.fingerprint(asked.category) != before
    with pytest.raises(InputError, match="ignore is 'gone.png', and there is no such file"):
        open_part(Config(data_root=str(mvtec_root), held_out=0, ignore="gone.png"))


def test_pictures_of_any_size_are_decoded_once(tmp_path, monkeypatch):
    paths = []
    for i, shape in enumerate([(70, 200), (64, 90)]):
        paths.append(tmp_path / f"{i}.png")
        picture(*shape, seed=i).save(paths[-1])
    tiled = Frame("tile", 64)
    images.load(paths, 32, None, tiled)
    monkeypatch.setattr(reading, "laid", lambda *args: pytest.fail("decoded again"))
    kept = images.Pictures(paths, tiled, None)
    assert [tuple(one.shape) for one in kept] == [(4, 72, 200), (4, 64, 96)]
    with Image.open(paths[0]) as original:
        assert (kept[0][:3, 1:71].numpy().transpose(1, 2, 0) == np.asarray(original)).all()
    assert kept[0][3, 1:71].all() and not kept[0][3, 0].any() and not kept[0][3, 71].any()


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_map_goes_back_to_the_pictures_own_pixels(scale):
    """A ramp over the frame's cells is the same ramp over the picture, cut to where it lies."""
    tiled = Frame("tile", 64, scale)
    (height, width), box = tiled.place(70, 201)
    ramp = np.tile(np.arange(width // 8) * 8 + 3.5, (height // 8, 1))  # the frame's columns
    found = frame.unlaid(ramp, tiled, (70, 201))
    columns = box.left + (np.arange(201) + 0.5) * box.width / 201 - 0.5
    assert found.shape == (70, 201)
    assert found[35, 10:-10] == pytest.approx(columns[10:-10], abs=1e-3)
