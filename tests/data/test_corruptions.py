import numpy as np
import pytest
import torch
from skimage import filters, transform

from adlib.data import corruptions

EVERY = [(name, strength) for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]


def part(seed, size=128):
    """A soft coloured blob with some texture, on a dark ground."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size - 0.5
    blob = 1 / (1 + np.exp(((x - rng.uniform(-0.1, 0.1))**2 + 2 * y**2 - 0.06) * 200))
    texture = 12 * np.sin(2 * np.pi * 9 * (x + 0.3 * y))
    return np.stack([70 + blob * (level + texture) for level in (110, 70, 40)]).round().astype(
        np.uint8)


@pytest.fixture(scope="module")
def pictures():
    return torch.from_numpy(np.stack([part(seed) for seed in range(5)]))


def test_the_names_and_strengths():
    assert corruptions.CORRUPTIONS == ("noise", "blur", "brighter", "darker", "contrast", "jpeg",
                                       "rotation", "shift")
    assert corruptions.STRENGTHS == (1, 2, 3, 4, 5)
    assert corruptions.amount("noise", 3) == 4 and corruptions.amount("jpeg", 1) == 90


@pytest.mark.parametrize(("name", "strength"), EVERY)
def test_the_same_every_time_and_the_input_untouched(pictures, name, strength):
    before = pictures.clone()
    once, again = (corruptions.apply(pictures, name, strength, seed=3) for _ in range(2))
    assert once.dtype == torch.uint8 and once.shape == pictures.shape
    assert torch.equal(once, again) and torch.equal(pictures, before)
    assert once.data_ptr() != pictures.data_ptr() and not torch.equal(once, pictures)


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_stronger_is_further_from_the_original(pictures, name):
    distances = torch.stack([(corruptions.apply(pictures, name, strength).float() -
                              pictures.float()).square().mean(dim=(1, 2, 3))
                             for strength in corruptions.STRENGTHS])
    assert (distances.diff(dim=0) >= 0).all() and (distances.mean(dim=1).diff() > 0).all()


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_an_image_depends_on_itself_and_its_place_only(pictures, name):
    whole = corruptions.apply(pictures, name, 3)
    assert torch.equal(corruptions.apply(pictures[:2], name, 3), whole[:2])
    other_company = pictures.clone()
    other_company[[0, 1, 3, 4]] = 255 - pictures[[4, 3, 1, 0]]
    assert torch.equal(corruptions.apply(other_company, name, 3)[2], whole[2])
    if name not in ("noise", "rotation", "shift"):  # the others depend on the place
        assert torch.equal(corruptions.apply(pictures.flip(0), name, 3).flip(0), whole)


def test_noise_is_white_and_of_the_stated_size():
    grey = torch.full((3, 3, 64, 64), 128, dtype=torch.uint8)
    tinted = grey.clone()
    tinted[:, 0] += 1
    for strength, share in zip(corruptions.STRENGTHS, (0.01, 0.02, 0.04, 0.07, 0.12), strict=True):
        noise = corruptions.apply(tinted, "noise", strength).double() - tinted
        assert noise.std().item() == pytest.approx(share * 255, rel=0.03) and abs(
            noise.mean().item()) < 0.1 * share * 255
    flat = noise.flatten(1)
    assert torch.corrcoef(flat).fill_diagonal_(0).abs().max() < 0.05  # each image its own
    # and each channel
    assert torch.corrcoef(noise[0].flatten(1)).fill_diagonal_(0).abs().max() < 0.05
    assert not torch.equal(corruptions.apply(tinted, "noise", 5, seed=1),
                           corruptions.apply(tinted, "noise", 5, seed=0))
    alike = corruptions.apply(grey, "noise", 5)
    # a grey camera has no colour noise
    assert torch.equal(alike[:, :1].expand(-1, 3, -1, -1), alike)


def test_blur_equals_scikit_image():
    picture = part(0, 256)
    expected = filters.gaussian(picture.astype(float), 0.012 * 256, mode="nearest", channel_axis=0,
                                preserve_range=True)
    assert np.abs(
        corruptions.apply(torch.from_numpy(picture)[None], "blur", 5)[0].numpy() -
        expected).max() <= 1


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0])
def test_blur_has_the_deviation_it_says_however_small(sigma):
    point = np.zeros((1, 41, 41))
    point[0, 20, 20] = 1
    spread, place = corruptions._blur(point, sigma)[0], np.arange(41) - 20
    assert spread.sum() == pytest.approx(1) and spread.min() >= 0
    assert (spread.sum(axis=0) * place**2).sum() == pytest.approx(sigma**2, rel=1e-3)
    assert np.allclose(spread, spread.T)


def test_light_by_hand():
    picture = torch.tensor([0, 100, 200, 250], dtype=torch.uint8).repeat(1, 3, 4, 1)
    # 4 % of 255 is 10.2
    assert corruptions.apply(picture, "brighter", 2)[0, 0, 0].tolist() == [10, 110, 210, 255]
    assert corruptions.apply(picture, "darker", 2)[0, 0, 0].tolist() == [0, 90, 190, 240]
    # halfway to the mean of 137.5, .5 to even
    assert corruptions.apply(picture, "contrast", 4)[0, 0, 0].tolist() == [69, 119, 169, 194]


def test_rotation_equals_scikit_image_and_takes_turns(pictures):
    found = corruptions.apply(pictures, "rotation", 5).numpy()
    for i, turn in enumerate((10, -10, 10)):
        expected = transform.rotate(pictures[i].permute(1, 2, 0).numpy().astype(float), turn,
                                    order=3, mode="edge", preserve_range=True)
        off = np.abs(found[i].transpose(1, 2, 0) - expected)
        # theirs is another cubic; turned the other way it is off by far more
        assert off.max() < 3 and off.mean() < 0.3
        assert np.abs(found[i].transpose(1, 2, 0) -
                      pictures[i].permute(1, 2, 0).numpy().astype(float)).max() > 20


def test_shift_by_hand():
    size = 100
    ramp = torch.arange(size, dtype=torch.uint8)
    # brighter to the right and downwards, so that every direction shows
    pictures = (ramp[:, None] + ramp).expand(5, 3, -1, -1)
    changed = corruptions.apply(pictures, "shift", 5).int() - pictures.int()
    # right, down, left, up, right
    assert (changed[:, :, 5:-5, 5:-5] == torch.tensor([-5, -5, 5, 5, -5])[:, None, None,
                                                                          None]).all()
    # the first column, the first row repeated
    assert (changed[0, :, 50, 0] == 0).all() and (changed[1, :, 0, 50] == 0).all()
    assert (changed[2, :, 50, -1] == 0).all() and (changed[3, :, -1, 50] == 0).all()
    small = torch.arange(8, dtype=torch.uint8).expand(1, 3, 8, 8)
    # at least one pixel
    assert corruptions.apply(small, "shift", 1)[0, 0, 0].tolist() == [0, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["rotation", "shift"])
def test_no_black_corners(name):
    grey = torch.full((4, 3, 40, 40), 180, dtype=torch.uint8)
    assert torch.equal(corruptions.apply(grey, name, 5), grey)


def test_bad_input(pictures):
    for call in (lambda: corruptions.apply(pictures, "fog", 1),
                 lambda: corruptions.amount("fog", 1)):
        with pytest.raises(
                ValueError,
                match="'fog'.*noise, blur, brighter, darker, contrast, jpeg, rotation, shift"):
            call()
    with pytest.raises(ValueError, match="strength 0"):
        corruptions.apply(pictures, "blur", 0)
    with pytest.raises(ValueError, match="strength 6"):
        corruptions.amount("blur", 6)
    for bad in (pictures.float(), pictures[0], pictures[:, :1]):
        with pytest.raises(ValueError, match="uint8 .N,3,H,W."):
            corruptions.apply(bad, "blur", 1)


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_a_long_picture_is_disturbed_as_much_as_the_square_around_it(name):
    """A flat strip stays as it is but for the disturbance, and keeps its shape."""
    strip = torch.full((2, 3, 24, 96), 100, dtype=torch.uint8)
    square = torch.full((2, 3, 96, 96), 100, dtype=torch.uint8)
    found, whole = (corruptions.apply(one, name, 3) for one in (strip, square))
    assert found.shape == strip.shape
    assert found.float().mean() == pytest.approx(float(whole.float().mean()), abs=1)
    assert found.float().std() == pytest.approx(float(whole.float().std()), abs=2)


def test_no_pictures(pictures):
    assert corruptions.apply(pictures[:0], "jpeg", 2).shape == (0, 3, 128, 128)


def test_varied_copies_depend_on_their_own_image_and_number(pictures):
    marked = torch.cat([pictures, torch.full((5, 1, 128, 128), 7, dtype=torch.uint8)], dim=1)
    copies = corruptions.varied(marked, seed=1)
    assert torch.equal(copies[:, 3], marked[:, 3]) and torch.equal(
        copies[:2], corruptions.varied(marked[:2], seed=1))
    assert (copies[:, :3] != pictures).flatten(1).any(dim=1).all()
    assert not torch.equal(copies, corruptions.varied(marked, seed=2))


def test_every_corruption_follows_the_images(pictures):
    marked = torch.cat([pictures[:2], torch.full((2, 1, 128, 128), 7, dtype=torch.uint8)], dim=1)
    found = corruptions.every(marked).unflatten(0, (9, 2))
    assert torch.equal(found[0], marked) and (found[:, :, 3] == 7).all()
    for i, name in enumerate(corruptions.CORRUPTIONS, 1):
        own, tested = (corruptions.apply(pictures[:2], name, 3, seed=seed)
                       for seed in (corruptions.CALIBRATING_SEED, 0))
        assert torch.equal(found[i, :, :3], own)
        assert torch.equal(own, tested) == (name != "noise")  # which is another than is tested on
