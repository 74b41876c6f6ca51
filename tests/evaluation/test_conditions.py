"""A changed camera is noticed soon and named; what stays as it was, hardly ever warns."""
import json

import numpy as np
import pytest
import torch
from scipy import signal

from adlib.data import corruptions
from adlib.evaluation import conditions
from adlib.evaluation.conditions import MEASURED, SCORE, Conditions, ConditionsTest


def of(random, **shift):
    """Normal numbers of one picture."""
    return {name: random.normal() + shift.get(name, 0.0) for name in (*MEASURED, SCORE)}


def start(seed, n=60, **options):
    random = np.random.default_rng([1, seed])
    calibration = {name: random.normal(size=n) for name in (*MEASURED, SCORE)}
    return random, ConditionsTest(calibration, seed=seed, **options)


def test_the_evidence_has_the_expectation_that_bounds_false_warnings():
    """Shiryaev-Roberts of uniform p-values: E = n after n pictures, so at most n / arl warnings."""
    random = np.random.default_rng(0)
    ends = []
    for _ in range(4000):
        bet = conditions._Bet()
        for _ in range(8):
            bet.add(random.random())
        ends.append(bet.total)
    assert np.mean(ends) == pytest.approx(8, abs=5 * np.std(ends) / 4000**0.5)


def test_a_stake_gains_or_loses_with_all_that_is_there():
    bet = conditions._Bet()
    for u, total in ((1.0, 1.95), (0.5, 2.95), (0.0, 3.95 * 0.05)):
        bet.add(u)
        assert bet.total == pytest.approx(total)


def test_p_values_are_uniform_whatever_the_ties():
    random, test = start(0, n=40)
    found = [test._p_value([0.0] * 30 + [1.0] * 10, float(random.random() < 0.25))
             for _ in range(4000)]
    assert np.histogram(found, bins=4, range=(0, 1))[0] / 4000 == pytest.approx([0.25] * 4, abs=0.03)


def test_good_streams_do_not_warn_and_one_of_twenty_anomalous_neither():
    for seed in range(20):
        random, test = start(seed)
        assert not any(test.add(of(random, score=9.0 * (i % 20 == 19))) for i in range(500))


@pytest.mark.parametrize(("shift", "cause"), [
    ({"brightness": 3}, "brighter"), ({"brightness": -3}, "darker"), ({"sharpness": -3}, "blurrier"),
    ({"noise": 4, "sharpness": 2}, "noisier"), ({"contrast": -3}, "less_contrast"),
    ({"alignment": -3}, "moved"), ({"score": 3}, "more_anomalous")])
def test_a_change_is_found_within_twenty_pictures_and_named(shift, cause):
    late = []
    for seed in range(15):
        random, test = start(seed)
        for _ in range(100):
            test.add(of(random))
        change = next(found for _ in range(100) if (found := test.add(of(random, **shift))))
        assert change.cause == cause and 1.6 < change.by < 6 and 95 <= change.since <= 106
        assert test.change == change and test.add(of(random)) is None
        late.append(change.noticed - 100)
    assert np.median(late) <= 20


def test_a_small_change_is_no_news():
    for seed in range(5):
        random, test = start(seed, n=200)
        assert not any(test.add(of(random, brightness=0.6)) for _ in range(500))


def test_kinds_of_good_pictures_that_come_one_after_the_other_are_no_change():
    """Left-hand parts in the morning, right-hand ones in the afternoon; training saw both."""
    for seed in range(10):
        random = np.random.default_rng(seed)
        kinds = random.choice([-4.0, 4.0], 120)
        calibration = {name: kinds + random.normal(size=120) for name in MEASURED}
        test = ConditionsTest(calibration, seed=seed)
        stream = [dict.fromkeys(MEASURED, kind + random.normal()) for kind in
                  np.repeat([-4.0, 4.0, -4.0], 150)]
        assert not any(map(test.add, stream))
        brighter = [one | {"brightness": one["brightness"] + 20} for one in stream[:40]]
        assert [one.cause for one in map(test.add, brighter) if one] == ["brighter"]


@pytest.mark.parametrize(("shift", "cause"), [
    ({"brightness": 0.6}, None), ({"noise": 0.015, "sharpness": -0.02}, None),
    ({"brightness": 6, "noise": 0.02}, "brighter"),
    ({"colour": 0.008, "contrast": -1, "noise": -0.9, "sharpness": -0.3}, "blurrier")])
def test_what_no_camera_could_tell_is_no_change_of_a_part_that_hardly_varies(shift, cause):
    """A stamped plate in a fixture: its deviations are those of the sensor's noise in a mean."""
    random = np.random.default_rng(0)
    deviations = {"brightness": 0.02, "contrast": 0.1, "colour": 0.0005, "noise": 0.005,
                  "sharpness": 0.01, "alignment": 0.001}
    test = ConditionsTest({name: random.normal(0, some, 60) for name, some in deviations.items()})
    taken = [{name: random.normal(shift.get(name, 0.0) * (i >= 50), some)
              for name, some in deviations.items()} for i in range(150)]
    found = [change.cause for change in map(test.add, taken) if change]
    assert found == ([cause] if cause else [])


def test_good_pictures_that_are_more_usual_than_those_of_the_calibration_are_no_change():
    random, test = start(0)
    assert not any(test.add(of(random, score=-6)) for _ in range(300))


@pytest.mark.parametrize("n", [40, 200])
def test_kinds_of_parts_are_aligned_in_use_as_in_the_calibration(n):
    """Left and right hands with hardly any noise: a mean without a picture has one less of its
    kind, which was much beside the noise."""
    random = np.random.default_rng(0)
    hands = random.integers(0, 256, (2, 3, 8, 8)).repeat(4, 2).repeat(4, 3)
    images = torch.from_numpy((hands[random.integers(0, 2, n + 400)] * 0.9 + random.integers(
        0, 5, (n + 400, 3, 32, 32))).astype(np.uint8))
    usual = Conditions.of(images[:n])
    assert len(usual.calibration["alignment"]) == n // 2
    assert conditions.compare(usual.calibration, usual.measure(images[n:])) is None


def test_what_a_camera_does_is_measured_in_its_direction():
    random = np.random.default_rng(0)
    blocks = random.random((1, 3, 16, 16)) + 0.1 * random.random((12, 3, 16, 16))
    blocks = blocks.repeat(4, 2).repeat(4, 3)
    images = torch.from_numpy((blocks * 100 + 60).astype(np.uint8))
    usual = Conditions.of(images)
    assert set(usual.calibration) == set(MEASURED)

    def change(name):
        now = usual.measure(corruptions.apply(images, name, 4))
        return {key: now[key].mean() - usual.calibration[key].mean() for key in MEASURED}

    assert change("brighter")["brightness"] == pytest.approx(0.11 * 255, abs=1)
    assert change("darker")["brightness"] == pytest.approx(-0.11 * 255, abs=1)
    assert change("contrast")["contrast"] < -5 and change("blur")["sharpness"] < -0.05
    assert change("noise")["noise"] > 0.3 and change("shift")["alignment"] < -0.01
    again = Conditions.from_dict(json.loads(json.dumps(usual.as_dict())))
    for name in MEASURED:
        assert again.calibration[name].tolist() == usual.calibration[name].tolist()
        assert again.measure(images)[name].tolist() == usual.measure(images)[name].tolist()


def test_what_is_measured_is_its_definition():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (4, 3, 64, 64), np.uint8)
    usual = Conditions.of(torch.from_numpy(images))
    rgb = images.astype(float)
    small = rgb.mean(axis=1).reshape(4, 32, 2, 32, 2).mean(axis=(2, 4))
    small = (small - small.mean(axis=(1, 2), keepdims=True)) / small.std(
        axis=(1, 2), keepdims=True, ddof=1)
    found = usual.measure(torch.from_numpy(images))
    for i, (red, _, blue) in enumerate(rgb):
        grey = rgb[i].mean(axis=0)
        halved = grey.reshape(32, 2, 32, 2).mean(axis=(1, 3))
        noise, laplace = (
            np.abs(signal.convolve2d(some, kernel, "valid")).mean() for some, kernel in (
                (grey, [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]),
                (halved, [[0, 1, 0], [1, -4, 1], [0, 1, 0]])))
        expected = {
            "brightness": grey.mean(), "contrast": grey.std(ddof=1),
            "colour": (red - blue).mean() / (grey.std(ddof=1) + 0.1),
            "noise": np.log((noise + 0.1) / (grey.std(ddof=1) + 0.1)),
            "sharpness": np.log((laplace + 0.1) / (halved.std(ddof=1) + 0.1)),
            "alignment": np.corrcoef(small[i].ravel(), (small[0] + small[2]).ravel())[0, 1]}
        assert {name: values[i] for name, values in found.items()} == pytest.approx(
            expected, rel=2e-3, abs=2e-4)
    assert usual.calibration["alignment"].tolist() == found["alignment"][1::2].tolist()


def test_of_many_pictures_every_so_many_are_measured(monkeypatch):
    monkeypatch.setattr(conditions, "MOST", 5)
    images = torch.randint(0, 256, (14, 3, 32, 32), dtype=torch.uint8)
    for n, measured in ((9, 9), (10, 5), (14, 7)):
        assert len(Conditions.of(images[:n]).calibration["brightness"]) == measured


def test_pictures_are_compared_in_no_order_of_theirs():
    """Sorted by their light they are none the brighter, though the last ones look so."""
    random = np.random.default_rng(0)
    calibration, values = ({name: random.normal(size=n) for name in MEASURED} for n in (60, 200))
    values["brightness"].sort()
    assert conditions.compare(calibration, values) is None
    test = ConditionsTest(calibration)
    assert any(test.add({name: some[i] for name, some in values.items()}) for i in range(200))
    brighter = values | {"brightness": values["brightness"] + 3}
    assert conditions.compare(calibration, brighter).cause == "brighter"


def test_a_calibration_picture_is_aligned_with_the_others_as_a_new_one_is():
    """With its own noise in the mean it would look better aligned than any new picture."""
    noise = torch.randint(0, 256, (40, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    usual = Conditions.of(noise[:20].to(torch.uint8))
    new = usual.measure(noise[20:].to(torch.uint8))["alignment"]
    old = usual.calibration["alignment"]
    assert abs(new.mean() - old.mean()) < 3 * np.hypot(new.std(), old.std()) / 20**0.5


def test_a_constant_picture_and_a_single_one_give_numbers():
    usual = Conditions.of(torch.full((1, 3, 32, 32), 7, dtype=torch.uint8))
    assert all(np.isfinite(values).all() for values in usual.calibration.values())
