import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adlib.config import KINDS, InputError
from adlib.data.synthetic import anomalies


def parts(n=3, size=32, grey=False, seed=0):
    """Smooth blobs on a dark ground: pictures with structure."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    found = []
    for _ in range(n):
        y, x, width = rng.uniform(0.35, 0.65, 2).tolist() + [rng.uniform(0.02, 0.05)]
        blob = np.exp(-((rows - y)**2 +
                        (columns - x)**2) / width)[..., None] * rng.uniform(120, 220, 3)
        found.append(np.clip(20 + blob + rng.normal(0, 6, (size, size, 3)), 0, 255))
    pictures = np.stack(found).astype(np.uint8)
    return torch.from_numpy((pictures[..., :1].repeat(3, axis=-1) if grey else pictures).transpose(
        0, 3, 1, 2).copy())


def visible(changed, pictures, n):
    base = pictures[torch.arange(n) % len(pictures)]
    return (changed.int() - base.int()).abs().amax(dim=1) >= 6


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 9), st.sampled_from([32, 64]), st.integers(0, 2**31))
def test_shapes_types_and_masks_of_what_was_visibly_changed(pictures, n, size, seed):
    good = parts(pictures, size)
    before = good.clone()
    changed, masks, kinds = anomalies.insert(good, n, seed=seed)
    assert changed.shape == (n, 3, size, size) and changed.dtype == torch.uint8
    assert masks.shape == (n, size, size) and masks.dtype == torch.bool
    assert kinds == [KINDS[i % len(KINDS)] for i in range(n)]
    assert torch.equal(masks, visible(changed, good, n)) and masks.flatten(1).any(dim=1).all()
    assert torch.equal(good, before)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 11), st.integers(0, 2**31))
def test_an_image_depends_on_the_seed_its_number_and_the_pictures_only(n, seed):
    good = parts()
    many, many_masks, many_kinds = anomalies.insert(good, 12, seed=seed)
    torch.manual_seed(n)
    np.random.seed(n)  # the global generators are not asked
    few, few_masks, few_kinds = anomalies.insert(good, n, seed=seed)
    assert torch.equal(few, many[:n]) and torch.equal(
        few_masks, many_masks[:n]) and few_kinds == many_kinds[:n]


def test_another_seed_and_another_number_give_another_image():
    good = parts(1)
    first, other = (anomalies.insert(good, 8, seed=seed)[0] for seed in (0, 1))
    assert all(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({image.numpy().tobytes() for image in first}) == 8


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_a_part_of_the_picture_and_leaves_the_rest(kind):
    good = parts(4, 64)
    changed, masks, kinds = anomalies.insert(good, 20, seed=3, kinds=[kind])
    assert set(kinds) == {kind}
    shares = masks.float().mean(dim=(1, 2))
    assert (shares >= 4 / 64**2).all() and (shares < 0.4).all() and 0.001 < shares.mean() < 0.15
    outside = (changed.int() - good[torch.arange(20) % 4].int()).abs().amax(dim=1)[~masks]
    assert outside.max() < 6 and (outside == 0).float().mean() > 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [32, 64])
def test_a_grey_parts_anomalies_are_grey(kind, size):
    changed, _, _ = anomalies.insert(parts(grey=True, size=size), 24, seed=1, kinds=[kind])
    assert (changed[:, :1] == changed).all()


def test_a_coloured_parts_anomalies_may_be_coloured():
    changed, masks, _ = anomalies.insert(parts(1), 24, seed=1, kinds=["perlin"])
    colours = changed.permute(0, 2, 3, 1)[masks].int()
    assert (colours.amax(dim=1) - colours.amin(dim=1)).max() > 60


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0, 5, 126, 127, 128, 255])
def test_uniform_pictures_get_a_visible_anomaly_too(kind, level):
    good = torch.full((2, 3, 32, 32), level, dtype=torch.uint8)
    changed, masks, _ = anomalies.insert(good, 4, seed=0, kinds=[kind])
    assert torch.equal(masks, visible(changed, good, 4)) and (masks.flatten(1).sum(dim=1)
                                                              >= 4).all()
    assert (changed[:, :1] == changed).all()


def test_anomalies_sit_where_there_is_structure():
    good = torch.full((1, 3, 64, 64), 10, dtype=torch.uint8)
    good[:, :, 32:, :32] = parts(1, 32)[0]
    masks = torch.cat([anomalies.insert(good, 40, seed=seed)[1] for seed in range(2)])
    assert masks[:, 32:, :32].sum() > 0.6 * masks.sum()  # by chance: a quarter


def test_pictures_take_turns():
    good = torch.stack([torch.full((3, 32, 32), level, dtype=torch.uint8) for level in (40, 200)])
    changed, masks, _ = anomalies.insert(good, 6, seed=0)
    assert [int(changed[i][:, ~masks[i]].median()) for i in range(6)] == [40, 200] * 3


def test_a_region_that_all_squares_of_a_large_picture_miss_gets_its_anomalies_too():
    large = torch.zeros(4, 400, 500, dtype=torch.uint8)
    large[:3] = parts(1, 500)[0][:, :400]
    for corner in ((10, 480), (390, 0), (200, 200)):
        picture = large.clone()
        picture[(3, *(slice(at, at + 8) for at in corner))] = 255
        changed = anomalies.Changed([picture], 8, side=32, seed=0)
        for i in range(8):
            image, mask = changed.with_mask(i)
            assert mask.any() and (picture[3][mask] == 255).all()
            assert torch.equal(image[:, picture[3] == 0], picture[:, picture[3] == 0])
    with pytest.raises(InputError, match="no pixel of a picture counts"):
        anomalies.Changed([large], 1, side=32, seed=0).with_mask(0)


def test_errors():
    with pytest.raises(ValueError, match=r"unknown kinds \['scrach'\]"):
        anomalies.insert(parts(), 1, seed=0, kinds=["scrach", "perlin"])
    with pytest.raises(ValueError, match="at least one picture and one kind"):
        anomalies.insert(parts()[:0], 1, seed=0)
    with pytest.raises(ValueError, match="at least one picture and one kind"):
        anomalies.insert(parts(), 1, seed=0, kinds=[])


def test_an_anomaly_is_made_of_its_two_sources_and_nothing_else():
    good = parts(4)
    made_of = anomalies.sources(12, len(good), seed=5)
    assert made_of.shape == (12, 2) and (made_of[:, 0] == np.arange(12) % len(good)).all()
    changed, _, _ = anomalies.insert(good, 12, seed=5)
    for gone in range(len(good)):
        other = good.clone()
        other[gone] = 255 - other[gone]
        again, _, _ = anomalies.insert(other, 12, seed=5)
        without = ~(made_of == gone).any(axis=1)
        assert torch.equal(again[torch.from_numpy(without)], changed[torch.from_numpy(without)])


dropped = {
    "kind": st.sampled_from(KINDS), "y": st.floats(0.3, 0.7), "x": st.floats(0.3, 0.7),
    "seed": st.integers(0, 2**31)
}


def drop(kind, y, x, seed, **options):
    base, other = parts(2, 64)
    return base, *anomalies.drop(base, other, kind, centre=(y, x), seed=seed, **options)


@settings(max_examples=40, deadline=None)
@given(**dropped, size=st.floats(0.25, 2), contrast=st.floats(0, 1))
def test_a_dropped_anomaly_is_masked_where_it_can_be_seen_and_leaves_its_sources_alone(
        kind, y, x, seed, size, contrast):
    base, changed, mask = drop(kind, y, x, seed, size=size, contrast=contrast)
    assert changed.dtype == torch.uint8 and changed.shape == base.shape and torch.equal(
        base,
        parts(2, 64)[0])
    assert mask.dtype == torch.bool and torch.equal(
        mask, (changed.int() - base.int()).abs().amax(dim=0) >= 6)
    again = drop(kind, y, x, seed, size=size, contrast=contrast)
    assert torch.equal(changed, again[1])


@settings(max_examples=20, deadline=None)
@given(**dropped)
def test_contrast_goes_from_nothing_to_the_whole_anomaly(kind, y, x, seed):
    base, nothing, mask = drop(kind, y, x, seed, contrast=0)
    assert torch.equal(nothing, base) and not mask.any()
    changes = [(drop(kind, y, x, seed, contrast=contrast)[1].int() - base.int()).abs()
               for contrast in (0.25, 0.5, 1)]
    assert all((a <= b).all() for a, b in zip(changes, changes[1:], strict=False))


@settings(max_examples=20, deadline=None)
@given(**dropped)
def test_a_dropped_anomaly_lies_where_it_was_dropped(kind, y, x, seed):
    _, _, mask = drop(kind, y, x, seed, size=0.25)
    places = mask.nonzero().float()
    assert not len(places) or (places - torch.tensor([y, x]) * 64).norm(dim=1).max() < 64 / 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_anomaly_changes_more(kind):
    def area(size):
        return sum(drop(kind, 0.5, 0.5, seed, size=size)[2].sum() for seed in range(12))

    assert area(0.5) < area(1) < area(2)


def test_a_place_on_the_rim_is_one_too():
    for kind in KINDS:
        for centre in ((0.0, 0.0), (1.0, 1.0)):
            drop(kind, *centre, seed=1)
