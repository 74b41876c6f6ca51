"""Features that are kept, a file a picture."""
import dataclasses
import os

import numpy as np
import pytest
import torch

from adlib.models import backbone as features
from tests.models.noise import CONFIG, cached, pictures, same
from tests.tolerances import of_features


@pytest.fixture
def forbidden(monkeypatch):
    """From its call on, nothing may be computed: what is wanted must be in the cache."""
    def compute(*_):
        raise AssertionError("computed, and not read from the cache")

    return lambda: monkeypatch.setattr(features, "_compute", compute)


def test_the_second_call_reads_the_same_bytes(weights, backbone, forbidden):
    first = features.extract(backbone, pictures(), CONFIG)
    assert len(cached()) == 3  # a picture each, and no temporary file beside them
    forbidden()
    assert same(first, features.extract(backbone, pictures(), CONFIG))
    # another process's backbone
    again, _ = features.load_backbone(dataclasses.replace(CONFIG, weights=str(weights)))
    assert same(
        first,
        features.extract(again, pictures(),
                         dataclasses.replace(CONFIG, model="pca", seed=5, layers="2")))
    with pytest.raises(AssertionError, match="and not read"):
        features.extract(backbone, pictures(seed=1), CONFIG)


def other_pixels(model, pictured, config):
    pictured[-1, -1, -1, -1] ^= 1
    return model, pictured, config


def other_weights(model, pictured, config):
    with torch.inference_mode():
        model.encoder.layer3[1].conv2.weight[0, 0, 0, 0] += 1
    return model, pictured, config


def other_statistics(model, pictured, config):
    with torch.inference_mode():
        model.encoder.layer1[0].bn1.running_var[0] += 1
    return model, pictured, config


def other_precision(model, pictured, config):
    return model, pictured, dataclasses.replace(config, precision="bf16")


@pytest.mark.parametrize("change", [
    other_pixels, other_weights, other_statistics, other_precision
])
def test_what_changes_a_number_has_a_file_of_its_own(backbone, change):
    features.extract(backbone, pictures(), CONFIG)
    model, pictured, config = change(backbone, pictures(), CONFIG)
    found = features.extract(model, pictured, config)
    assert len(cached()) == 3 + (1 if change is other_pixels else 3)
    for file in cached():
        file.unlink()
    assert same(found, features.extract(model, pictured, config))  # as without any cache


def test_equal_bytes_of_another_shape_are_other_pictures(backbone):
    features.extract(backbone, pictures(8, 32), CONFIG)
    features.extract(backbone, pictures(8, 32).view(2, 3, 64, 64), CONFIG)
    assert len(cached()) == 8 + 2


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_picture_that_is_known_looks_the_same_among_whatever_others(backbone, precision):
    """To the bit, as without any cache: else a run's numbers would depend on what ran before."""
    config = dataclasses.replace(CONFIG, precision=precision)
    pictured, some = pictures(11), [9, 1, 4]
    before = features.extract(backbone, pictured[some], config)
    whole = features.extract(backbone, pictured, config)  # three of them from the cache
    assert len(cached()) == 11
    assert same(before, [stage[some] for stage in whole])
    for file in cached():
        file.unlink()
    assert same(whole, features.extract(backbone, pictured, config))
    assert same([stage.flip(0) for stage in whole],
                features.extract(backbone, pictured.flip(0), config))


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def header_only(path):
    path.write_bytes(path.read_bytes()[:128])


def junk(path):
    path.write_bytes(b"these bytes are no array" * 100)


def pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def another_type(path):
    np.save(path, np.load(path).astype(np.float32))


def another_count(path):
    np.save(path, np.load(path)[:-1])


def folded(path):
    np.save(path, np.load(path)[None])


@pytest.mark.parametrize(
    "damage", [empty, truncated, header_only, junk, pickled, another_type, another_count, folded])
def test_a_damaged_file_is_computed_again(backbone, damage, forbidden):
    first = features.extract(backbone, pictures(), CONFIG)
    kept, (_, file, _) = cached(), cached()
    good = file.read_bytes()
    damage(file)
    assert file.read_bytes() != good
    assert same(first, features.extract(backbone, pictures(), CONFIG))
    assert cached() == kept and file.read_bytes() == good
    forbidden()
    assert same(first, features.extract(backbone, pictures(), CONFIG))


def test_nobody_changes_the_file_through_what_was_returned(backbone):
    first = [stage.clone() for stage in features.extract(backbone, pictures(), CONFIG)]
    good = [file.read_bytes() for file in cached()]
    for _ in range(2):
        for stage in features.extract(backbone, pictures(), CONFIG):
            stage.zero_()
        assert [file.read_bytes() for file in cached()] == good
    assert same(first, features.extract(backbone, pictures(), CONFIG))


def test_nobody_changes_the_file_through_what_was_computed(backbone):
    computed = features.extract(backbone, pictures(), CONFIG)
    first = [stage.clone() for stage in computed]
    for stage in computed:
        stage.zero_()
    assert same(first, features.extract(backbone, pictures(), CONFIG))


def test_what_was_used_last_is_forgotten_last(backbone, monkeypatch, forbidden):
    kept, dropped, new = (pictures(2, seed=seed) for seed in range(3))
    features.extract(backbone, kept, CONFIG)
    first = cached()
    features.extract(backbone, dropped, CONFIG)
    second = sorted(set(cached()) - set(first))
    for i, file in enumerate([*first, *second]):  # the first were written first ...
        os.utime(file, (1e9 + i, 1e9 + i))
    features.extract(backbone, kept, CONFIG)  # ... and read again
    monkeypatch.setattr(features, "KEPT_BYTES", 4 * first[0].stat().st_size)
    features.extract(backbone, new, CONFIG)
    assert len(cached()) == 4 and set(first) < set(cached()) and not set(second) & set(cached())
    forbidden()
    features.extract(backbone, new, CONFIG)


def test_features_above_the_limit_are_still_returned(backbone, monkeypatch):
    monkeypatch.setattr(features, "KEPT_BYTES", 0)
    first = features.extract(backbone, pictures(), CONFIG)
    assert len(cached()) == 1 and same(first, features.extract(backbone, pictures(), CONFIG))


def test_a_picture_on_its_own_is_not_kept_and_looks_the_same(backbone):
    alone = features.extract(backbone, pictures(3)[1:2], CONFIG)
    assert not cached()
    among = features.extract(backbone, pictures(3), CONFIG)
    assert all(
        torch.allclose(a.float(), b[1:2].float(), **of_features(b))
        for a, b in zip(alone, among, strict=True)) and len(cached()) == 3
