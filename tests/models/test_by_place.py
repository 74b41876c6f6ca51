"""Tiles that are compared with what lies around their own place, where places go together."""
import dataclasses

import numpy as np
import pytest
import torch

from adlib.config import Config
from adlib.models import by_place, detectors, fused, registry
from adlib.models.detector import load_state

CONFIG = Config(model="memory", fit="tile", tile_size=64, overlap=0, weights="none",
                precision="float32", device="cpu")


def two_zones(seed, *, swapped=False):
    """uint8 [4,64,384]: a part with other things on its left than on its right half, a little
    noisier each time; swapped: the left half's things on both."""
    rng, drawn = np.random.default_rng(seed), np.random.default_rng(7)
    halves = [np.kron(drawn.integers(40, 200, (8, 24)), np.ones((8, 8))) for _ in range(2)]
    grey = np.concatenate([halves[0], halves[0 if swapped else 1]], axis=1)
    picture = np.clip(grey + rng.normal(0, 4, grey.shape), 0, 255).astype(np.uint8)
    return torch.from_numpy(np.stack([picture] * 3 + [np.full_like(picture, 255)]))


def shifted(seed):
    """The same, lying anywhere."""
    turn = int(np.random.default_rng(seed).integers(384))
    return two_zones(seed).roll(turn, dims=2)


@pytest.fixture(scope="module")
def fitted():
    return registry.build(CONFIG).fit([two_zones(seed) for seed in range(12)])


def in_tiles(count, seed=0):
    """Cells of tiles of `count` pictures with 3 x 4 tiles each: features that their tile decides,
    and those that it doesn't; where the tiles begin; the cells' pictures."""
    rng = torch.Generator().manual_seed(seed)
    origins = torch.randint(0, 12, (count * 100, ), generator=rng)
    origins = torch.stack([origins // 4, origins % 4], dim=1) * 0.875
    image = torch.arange(len(origins)) % count
    noise = torch.randn(len(origins), 8, generator=rng)
    return torch.cat([origins, noise * 1e-2], dim=1), noise, origins, image


def test_places_count_where_features_are_bound_to_them():
    bound, free, origins, image = in_tiles(5)
    found = by_place.compare(bound, origins, image)
    assert found.chosen and found.gain > by_place.TIMES * found.cost
    found = by_place.compare(free, origins, image)
    assert not found.chosen and found.cost > 0
    assert by_place.compare(bound, origins, torch.zeros_like(image)) is None  # one image alone
    assert by_place.compare(bound, origins * 0.3, image) is None  # all around each other
    alone = (origins[:, 0] * 100 + origins[:, 1]).unique(return_inverse=True)[1]
    assert by_place.compare(bound, origins * 3, alone) is None  # each place is one image's
    # of pictures that are alike everywhere nothing is told
    assert not by_place.compare(torch.ones_like(bound), origins, image).chosen


@pytest.mark.parametrize("name", ["LEAST", "TIMES"])
def test_both_bounds_decide(monkeypatch, name):
    bound, free, origins, image = in_tiles(4)
    cells = torch.cat([bound, free], dim=1)
    monkeypatch.setattr(by_place, "LEAST", 0.0)
    monkeypatch.setattr(by_place, "TIMES", 0.0)
    _, cost, gain = by_place.compare(cells, origins, image)
    assert cost > 0 and gain > 0
    bound = gain if name == "LEAST" else gain / cost
    for factor, chosen in ((0.99, True), (1.01, False)):
        monkeypatch.setattr(by_place, name, factor * bound)
        assert by_place.compare(cells, origins, image).chosen is chosen


def test_cost_and_gain_are_what_loops_find():
    bound, free, origins, image = in_tiles(3, seed=1)
    cells, origins, image = torch.cat([bound, free], dim=1)[:150], origins[:150], image[:150]

    def nearest(a, begins, own, reach):
        return min(float((a - b).norm()) for b, there, other in zip(
            cells, origins, image, strict=True)
            if other != own and (begins - there).abs().max() <= reach)

    anywhere, home, abroad = (np.mean([nearest(*one, reach) for one in zip(
        cells, where, image, strict=True)]) for where, reach in (
            (origins, np.inf), (origins, 1.001), (origins.roll(1, dims=0), 1.001)))
    found = by_place.compare(cells, origins, image)
    assert found.cost == pytest.approx(home / anywhere - 1, rel=1e-4, abs=1e-5)
    assert found.gain == pytest.approx(abroad / home - 1, rel=1e-4, abs=1e-5)


def test_tiles_around_one_are_those_that_begin_within_a_side():
    of = torch.tensor([[0.0, 0.0], [0.0, 0.875], [0.875, 1.75], [2.6, 0.0]])
    asked = torch.tensor([[0.0, 0.0], [0.875, 0.875], [9.0, 9.0]])
    assert by_place.elsewhere(asked, of).tolist() == [
        [False, False, True, True], [False, False, False, True],
        [False] * 4]  # around the last one there are none: compared with all


def test_the_nearest_is_looked_for_around_a_tile(monkeypatch):
    monkeypatch.setattr(detectors, "BANK", 60)
    memory = detectors.Memory(width=10)
    bound, _, origins, _ = in_tiles(4)
    features = torch.cat([bound, origins], dim=1).view(4, 100, 12).permute(0, 2, 1)[..., None]
    memory.fit(features)
    assert memory.by_place.chosen and memory.bank.shape == (60, 10)
    asked = features.clone()[:2]
    asked[:, 10:] = asked[:, 10:].flip(2)  # put to another one's place
    cells = asked[..., 0].permute(0, 2, 1).reshape(-1, 12)
    around = ~by_place.elsewhere(cells[:1, 10:], memory.origins)[0]
    assert around.any() and not around.all()
    for barred in (None, memory.image == 2, around):  # of the last one there is nobody left around
        distances = torch.cdist(cells[:, :10].double(), memory.bank.double())
        far = by_place.elsewhere(cells[:, 10:], memory.origins)
        left = far if barred is None else far | barred
        left[left.all(dim=1)] = torch.zeros(60, dtype=torch.bool) if barred is None else barred
        distances.masked_fill_(left, torch.inf)
        found = memory.find(cells, memory.search(), barred)
        assert distances.gather(1, found[:, None])[:, 0] == pytest.approx(
            distances.amin(dim=1), rel=1e-3)
    away = (cells[:, :10] - memory.bank[memory.find(cells, memory.search())]).norm(dim=1)
    assert memory(asked).flatten() == pytest.approx(away, rel=1e-5)
    assert away.mean() > 2 * memory(features).mean()


def test_what_belongs_elsewhere_is_found_where_places_go_together(fitted, monkeypatch):
    assert fitted.asks_origins
    good, bad = two_zones(90), two_zones(90, swapped=True)
    monkeypatch.setattr(by_place, "LEAST", np.inf)  # never
    shared = registry.build(CONFIG).fit([two_zones(seed) for seed in range(12)])
    assert not shared.asks_origins

    def contrast(detector):
        before, after = (detector.anomaly_maps(one[None, :3])["distance"][0, :, 32:]
                         for one in (good, bad))
        return float(after.mean() / before.mean())

    assert contrast(fitted) > 1.5 * contrast(shared)


def test_a_part_that_lies_anywhere_has_one_memory():
    tiled = registry.build(CONFIG).fit([shifted(seed) for seed in range(12)])
    assert not tiled.asks_origins and not tiled.detector.by_place.chosen


def test_whole_pictures_and_closed_forms_know_no_places(fitted):
    pictures = [two_zones(seed) for seed in range(4)]
    assert not registry.build(dataclasses.replace(CONFIG, model="pca")).fit(
        pictures).asks_origins
    whole = registry.build(dataclasses.replace(CONFIG, fit="squeeze")).fit(
        torch.stack([one[:3, :, :64] for one in pictures]))
    assert not whole.asks_origins and whole.head.by_place is None


@pytest.mark.parametrize("model", ["memory", "classifier", "fused"])
def test_it_is_part_of_the_state(tmp_path, model):
    config = dataclasses.replace(CONFIG, model=model)
    tiled = registry.build(config).fit([two_zones(seed) for seed in range(12)],
                                       [two_zones(seed) for seed in range(20, 24)])
    assert tiled.asks_origins
    torch.save(tiled.state_dict(), tmp_path / "model.pt")
    again = registry.build(config)
    load_state(again, torch.load(tmp_path / "model.pt", weights_only=True))
    image = two_zones(9, swapped=True)[None, :3]
    assert again.asks_origins and torch.equal(
        tiled.anomaly_maps(image)["distance"], again.eval().anomaly_maps(image)["distance"])


def test_every_tile_says_where_it_begins(monkeypatch):
    """Views, synthetic anomalies and held-out tiles, too: known by what they show."""
    asked, grids = [], fused.FeatureDetector.grids

    def spy(self, images, origins=None):
        asked.append((images, origins))
        return grids(self, images, origins)

    monkeypatch.setattr(fused.FeatureDetector, "grids", spy)
    monkeypatch.setattr(fused, "SYNTHETIC", 24)
    good, held = ([two_zones(seed) for seed in some] for some in (range(8), range(20, 24)))
    registry.build(dataclasses.replace(CONFIG, model="fused")).fit(good, held)
    plain = torch.stack(good).float().mean(dim=0)[0].split(64, dim=1)
    views = torch.stack([fused.turned(one, turn) for one in plain for turn in range(8)])
    known = [(images, origins) for images, origins in asked if origins is not None]
    for images, origins in known:
        away = (images[:, None, 0].float() - views).abs().flatten(2).median(dim=2).values
        assert (away.argmin(dim=1) // 8).tolist() == origins[:, 1].tolist()
        assert not origins[:, 0].any()
    assert sum(len(images) for images, _ in known) > 8 * 6 + 24 + 4 * 6 and len(known) < len(asked)


def test_one_tile_has_other_maps_at_other_places(fitted):
    left = two_zones(3)[None, :3, :, :64]
    image = torch.cat([left] * 6, dim=3)
    fitted._known.clear()
    first, *others = fitted.anomaly_maps(image)["distance"][0].split(8, dim=1)
    assert len(fitted._known) == 6  # each of them kept as its own
    assert others[-1].mean() > first.mean()


def test_folds_compare_by_position_too(fitted):
    pictures = [two_zones(seed) for seed in range(12)]
    folds = [(np.arange(3, 12), np.arange(3))]
    left_out, *_ = fitted.cross_fitted_maps(pictures, torch.arange(12), folds)
    own = fitted.anomaly_maps(pictures[0][None, :3])["distance"]
    assert torch.equal(left_out["own distance"], own)
    assert (left_out["distance"] >= own - 1e-5).all() and left_out["distance"].mean() > own.mean()
