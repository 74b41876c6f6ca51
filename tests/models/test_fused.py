"""The sum of the memory's and the classifier's map, on one scale."""
import dataclasses

import numpy as np
import pytest
import torch

from adlib.data import corruptions
from adlib.models import anomaly_maps, fused, registry
from adlib.models.detector import fit, fit_on
from tests.models.striped import (
    CONFIG,
    HELD,
    KEPT,
    SIDE,
    configured,
    equal_states,
    fitted_to,
    maps,
    pictures,
)

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("few, held", [(9, None), (11, HELD[:0]), (9, HELD)])
def test_of_few_held_out_all_good_ones_put_the_fused_maps_on_one_scale(few, held, monkeypatch):
    """Those that it was fitted on without their own patches; of few in all, disturbed copies."""
    monkeypatch.setattr(fused, "FEW", few)
    found, n = fitted_to("fused", held=held), 0 if held is None else len(held)
    known = pictures()[KEPT if held is None else torch.cat([KEPT, held])]
    own = torch.cat([torch.arange(len(KEPT)), torch.full((n, ), -1)])
    if len(known) < few:
        known, own = torch.cat([corruptions.apply(known, name, 1)
                                for name in ("shift", "rotation", "brighter", "darker")]), \
            own.repeat(4)
    features = found.features(known)
    head, one_by_one = found.head, []
    for i in range(len(known)):
        nearest = head.classifier.memory.nearest(features[[i]], own[[i]])[1]
        both = head.classifier.both(features[[i]], nearest)
        one_by_one.append(head.in_local_scale(nearest, *both))
    for whose, centre, spread in zip(zip(*one_by_one, strict=True), head.centre, head.spread,
                                     strict=True):
        values = torch.cat(whose).detach().numpy()
        tops = anomaly_maps.reduce(anomaly_maps.smooth(values), "top1")
        assert float(centre) == pytest.approx(tops.mean(), rel=1e-3, abs=1e-3)
        assert float(spread) == pytest.approx(tops.std(ddof=1), rel=1e-2)
    whole = found.head.whole
    distances = whole.distance(whole.pooled(features), own)
    assert torch.equal(whole.centre, distances.mean())
    assert torch.equal(whole.spread, distances.std())


def test_the_only_good_image_is_not_what_its_own_cells_are_compared_with():
    one = registry.build(dataclasses.replace(CONFIG, model="fused")).fit(pictures()[:1])
    memory = one.head.classifier.memory
    assert set(memory.image.tolist()) == {0, 1}  # 1: its views
    features = one.features(pictures()[:1])
    assert memory(features, memory.nearest(features, torch.tensor([0]))[1]).median() > 0


def test_the_fused_map_is_the_sum_of_its_halves_in_deviations_of_validation_scores(
        fitted, monkeypatch):
    monkeypatch.setattr(fused, "FEW", len(HELD))
    whole = fitted_to("fused")
    head, expected = whole.head, 0
    assert equal_states(fitted["classifier"].head, head.classifier)
    assert equal_states(fitted["memory"].head, head.classifier.memory)
    for half, name in enumerate(("memory", "classifier")):
        def of(images, name=name):
            found = torch.from_numpy(maps(fitted[name], images))
            if name == "memory":  # in units of how far apart good patches lie there
                found = found / head.local_scale[fitted[name].head.places(whole.features(images))]
            return found

        tops = anomaly_maps.reduce(anomaly_maps.smooth(of(pictures()[HELD]).numpy()), "top1")
        assert float(head.centre[half]) == pytest.approx(tops.mean(), rel=2**-20)
        assert float(head.spread[half]) == pytest.approx(np.std(tops, ddof=1), rel=2**-12)
        expected = expected + (of(pictures(3, seed=1)) - head.centre[half]) / head.spread[half]
    expected = head.whole(whole.features(pictures(3, seed=1)))[:, None, None] + expected
    assert np.array_equal(maps(whole, pictures(3, seed=1)), expected.numpy())


class Halves(torch.nn.Module):
    """Two maps: the image's channels in some units."""

    history = ()

    def __init__(self, *units):
        super().__init__()
        self.units, self.memory = units, self

    def places(self, x):
        return torch.zeros(len(x), *x.shape[2:], dtype=torch.int64)

    def both(self, x, nearest=None):
        return [factor * x[:, i] + shift for i, (factor, shift) in enumerate(self.units)]


def test_the_fused_map_does_not_depend_on_its_halves_units():
    held, x = (torch.randn(9, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
               for seed in (0, 1))

    def of(*units):
        head = fused.Fused(2)
        head.classifier, head.local_scale = Halves(*units), torch.ones(1)
        return head.scale(held)(x)

    found = [of((1, 0), units) for units in ((1, 0), (1024, -8), (2**-7, 4))]
    # A shift of 4 at a scale of 1/128: 512 times float32's rounding, in deviations of some 0.3.
    for other in found[1:]:
        assert torch.allclose(found[0], other, rtol=0, atol=2 * 512 / 0.3 * 2**-24 * 8)
    # A flat half divides by no zero.
    assert torch.isfinite(of((0, 1), (1, 0))).all()


def test_where_good_cells_lie_apart_a_distance_counts_for_less(fitted):
    detector = fitted["fused"]
    head, x = detector.head, detector.features(pictures(2, seed=3))
    assert torch.equal(head.local_scale, head.classifier.memory.local_scale())
    assert head.local_scale.std() > 0
    before, distances = head(x).detach(), head.classifier.memory(x)
    places = head.classifier.memory.places(x)
    head.local_scale = 2 * (local_scale := head.local_scale)
    try:
        lower = before - head(x)
    finally:
        head.local_scale = local_scale
    expected = distances / local_scale[places] / 2 / head.spread[0]
    assert torch.allclose(lower, expected, rtol=0, atol=float(before.abs().max()) * 2**-20)


def test_copies_and_places_of_tiles_explain_no_whole_picture():
    usual, varied = (fit(configured("fused", vary=vary), pictures()[KEPT], pictures()[HELD])
                     for vary in (False, True))
    tiles = registry.build(configured("fused"))
    fit_on(tiles, pictures()[KEPT], pictures()[HELD], of=torch.arange(len(KEPT)))
    assert [len(one.head.whole.basis) for one in (usual, varied, tiles)] == [len(KEPT), 0, 0]
