"""Tiles that are compared with what lies around their own place, where places go together."""
import dataclasses

import numpy as np
import pytest
import torch

from adlib.config import Config
from adlib.models import detectors, positions, registry, tiles
from adlib.models.detector import load_state

CONFIG = Config(model="memory", fit="tile", tile_size=64, overlap=0, weights="none",
                precision="float32", device="cpu")


def two_zones(seed, *, swapped=False):
    """uint8 [4,64,256]: stripes on the left half and dots on the right one, in other greys each
    time; swapped: the stripes go on to the end."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((64, 256))
    stripes, dots = (rows // 4) % 2, ((rows // 8) % 2) * ((columns // 8) % 2)
    left = columns < (256 if swapped else 128)
    grey = rng.integers(60, 80) + 100 * np.where(left, stripes, dots)
    picture = np.clip(grey + rng.normal(0, 6, grey.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(np.stack([picture] * 3 + [np.full_like(picture, 255)]))


def shifted(seed):
    """The same, lying anywhere."""
    turn = int(np.random.default_rng(seed).integers(256))
    return two_zones(seed).roll(turn, dims=2)


@pytest.fixture(scope="module")
def fitted():
    return registry.build(CONFIG).fit([two_zones(seed) for seed in range(12)])


def in_tiles(count, seed=0):
    """Cells of `count` images, their positions and their images: features that their place decides,
    and those that it doesn't."""
    rng = torch.Generator().manual_seed(seed)
    at = torch.rand(count * 200, 2, generator=rng) * 3
    image = torch.arange(len(at)) % count
    bound = torch.cat([at, at.square(), torch.randn(len(at), 4, generator=rng) * 0.02], dim=1)
    return bound, torch.randn(len(at), 8, generator=rng), at, image


def test_places_count_where_features_are_bound_to_them():
    bound, free, at, image = in_tiles(5)
    found = positions.compare(bound, at, image)
    assert found.unit > 0 and found.gain > positions.GAIN * found.cost
    found = positions.compare(free, at, image)
    assert found.unit is None and found.cost > 0 and abs(found.gain) < found.cost
    assert positions.compare(bound, at, torch.zeros_like(image)) == (None, 0, 0)  # one image alone
    # of pictures that are alike everywhere nothing is told
    assert positions.compare(torch.ones_like(bound), at, image).unit is None


def test_cost_and_gain_are_what_loops_find():
    bound, free, at, image = in_tiles(3, seed=1)
    cells, at, image = torch.cat([bound, free], dim=1)[:60], at[:60], image[:60]

    def nearest(a, here, own, unit):
        others = [(float((a - b).norm()), float((here - place).norm()))
                  for b, place, other in zip(cells, at, image, strict=True) if other != own]
        return min(others, key=lambda one: one[0]**2 + (unit * one[1])**2)[0]

    free = [nearest(*one, 0) for one in zip(cells, at, image, strict=True)]
    unit = positions.WEIGHT * sorted(free)[(len(free) - 1) // 2]  # torch's median
    home, elsewhere = (np.mean([nearest(*one, unit) for one in zip(
        cells, where, image, strict=True)]) for where in (at, at.roll(1, dims=0)))
    found = positions.compare(cells, at, image)
    assert found.cost == pytest.approx(home / np.mean(free) - 1, rel=1e-4, abs=1e-5)
    assert found.gain == pytest.approx(elsewhere / home - 1, rel=1e-4, abs=1e-5)


def test_positions_are_the_middles_of_cells():
    features = torch.zeros(2, 3, 4, 8)
    found = positions.with_positions(features, torch.tensor([[0.0, 0.0], [1.5, 2.0]]))
    assert found.shape == (2, 5, 4, 8) and torch.equal(found[:, :3], features)
    assert found[0, 3:, 0, 0].tolist() == [1 / 8, 1 / 16]
    assert found[1, 3:, 3, 7].tolist() == [1.5 + 7 / 8, 2 + 15 / 16]


def test_the_nearest_is_looked_for_around_a_place_and_the_distance_is_one_of_features():
    memory = detectors.Memory(width=8)
    bound, _, at, _ = in_tiles(4)
    features = torch.cat([bound, at], dim=1).view(4, 200, 10).permute(0, 2, 1)[..., None]
    memory.fit(features)
    assert memory.unit is not None and memory.bank.shape[1] == 10
    asked = features.clone()[:2]
    asked[:, :8] = asked[:, :8].flip(2)  # other places' features
    bank, cells = memory.bank.double(), asked[..., 0].permute(0, 2, 1).reshape(-1, 10).double()
    joint = torch.cdist(torch.cat([cells[:, :8], cells[:, 8:] * memory.unit], dim=1), bank)
    expected = (cells[:, :8] - bank[joint.argmin(dim=1), :8]).norm(dim=1)
    assert memory(asked).flatten() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert expected.mean() > 1.5 * torch.cdist(cells[:, :8], bank[:, :8]).amin(dim=1).mean()


def test_what_belongs_elsewhere_is_found_where_places_go_together(fitted, monkeypatch):
    assert fitted.compares_positions
    good, bad = two_zones(90), two_zones(90, swapped=True)
    monkeypatch.setattr(positions, "LEAST", np.inf)  # never
    shared = registry.build(CONFIG).fit([two_zones(seed) for seed in range(12)])
    assert not shared.compares_positions

    def contrast(detector):
        before, after = (detector.anomaly_maps(one[None, :3])["distance"][0, :, 24:]
                         for one in (good, bad))
        return float(after.mean() / before.mean())

    assert contrast(fitted) > 1.5 * contrast(shared)


def test_a_part_that_lies_anywhere_has_one_memory():
    tiled = registry.build(CONFIG).fit([shifted(seed) for seed in range(12)])
    assert not tiled.compares_positions and tiled.detector.head.unit is None
    assert tiled.detector.head.by_place.cost > 0


def test_whole_pictures_and_closed_forms_know_no_places(fitted):
    pictures = [two_zones(seed) for seed in range(4)]
    assert not registry.build(dataclasses.replace(CONFIG, model="pca")).fit(
        pictures).compares_positions
    whole = registry.build(dataclasses.replace(CONFIG, fit="squeeze")).fit(
        torch.stack([one[:3, :, :64] for one in pictures]))
    assert not whole.compares_positions and whole.head.by_place is None


@pytest.mark.parametrize("model", ["memory", "classifier", "fused"])
def test_it_is_part_of_the_state(tmp_path, model):
    config = dataclasses.replace(CONFIG, model=model)
    tiled = registry.build(config).fit([two_zones(seed) for seed in range(12)],
                                       [two_zones(seed) for seed in range(20, 24)])
    assert tiled.compares_positions
    torch.save(tiled.state_dict(), tmp_path / "model.pt")
    again = registry.build(config)
    load_state(again, torch.load(tmp_path / "model.pt", weights_only=True))
    image = two_zones(9, swapped=True)[None, :3]
    assert again.compares_positions and torch.equal(
        tiled.anomaly_maps(image)["distance"], again.eval().anomaly_maps(image)["distance"])


def test_one_tile_has_other_maps_at_other_places(fitted):
    left = two_zones(3)[None, :3, :, :64]
    image = torch.cat([left] * 4, dim=3)
    fitted._known.clear()
    first, *others = fitted.anomaly_maps(image)["distance"][0].split(8, dim=1)
    assert len(fitted._known) == 4  # each of them kept as its own
    assert others[-1].mean() > first.mean()


def test_folds_compare_by_position_too(fitted):
    pictures = [two_zones(seed) for seed in range(12)]
    folds = [(np.arange(3, 12), np.arange(3))]
    left_out, *_ = fitted.cross_fitted_maps(pictures, torch.arange(12), folds)
    own = fitted.anomaly_maps(pictures[0][None, :3])["distance"]
    assert torch.equal(left_out["own distance"], own)
    assert (left_out["distance"] >= own - 1e-5).all() and left_out["distance"].mean() > own.mean()
