"""Pictures that do not show the part: each is what its kind says, and nothing else decides it."""
import numpy as np
import pytest
import torch

from adlib.data.synthetic import foreign_pictures

NONE = torch.zeros(0, 3, 32, 32, dtype=torch.uint8)


@pytest.fixture
def good():
    """A bright bar on the left, on grey 40: uint8 [6,3,32,32], grey."""
    rng = np.random.default_rng(0)
    made = np.full((6, 1, 32, 32), 40.0) + rng.normal(0, 2, (6, 1, 32, 32))
    made[:, :, 8:24, 4:12] += 160
    return torch.from_numpy(np.repeat(np.clip(made, 0, 255), 3, axis=1).astype(np.uint8))


def of(kind, good, others=NONE, n=40):
    images, kinds = foreign_pictures.make(good, others, n, seed=1)
    return images[[name == kind for name in kinds]]


def test_number_i_is_the_same_however_many_there_are(good):
    some, kinds = foreign_pictures.make(good, good, 20, seed=1)
    more, more_kinds = foreign_pictures.make(good, good, 60, seed=1)
    assert torch.equal(some, more[:20]) and kinds == more_kinds[:20]
    assert not torch.equal(some, foreign_pictures.make(good, good, 20, seed=2)[0])
    assert set(more_kinds) == set(foreign_pictures.KINDS)


def test_what_is_made_of_grey_pictures_is_grey(good):
    made, _ = foreign_pictures.make(good, NONE, 60, seed=0)
    assert (made == made[:, :1]).all()
    colourful = good.clone()
    colourful[0, 0, 0, 0] = 0
    assert (of("colour", colourful).float().mean(dim=(2, 3)).std(dim=1) > 1).any()


def test_black_is_black_and_what_is_absent_has_the_colours_of_the_border(good):
    assert of("black", good).float().mean() < 2 and of("white", good).float().mean() > 253
    for kind in ("absent", "background"):
        assert (of(kind, good).float().mean(dim=(1, 2, 3)) - 40).abs().max() < 6
        assert of(kind, good).max() < 80
    bright = (of("half", good) > 120).float().mean(dim=(1, 2, 3))
    assert (bright < 0.9 * (good > 120).float().mean()).all()


def test_the_mirrored_is_foreign_only_where_the_good_never_look_so(good):
    assert len(of("mirrored", good)) and len(of("turned", good))
    either = torch.cat([good[:3], good[3:].flip(-1)])
    left_right = foreign_pictures.make(either, NONE, 60, seed=0)[0]
    kinds = foreign_pictures.make(either, NONE, 60, seed=0)[1]
    assert "mirrored" not in kinds and len(left_right) == 60
    straight = good[:3].roll(8, dims=-1)  # a third of these looks the same mirrored
    assert not len(of("mirrored", torch.cat([good, straight])))


def test_other_parts_are_taken_as_they_are(good):
    other = torch.randint(0, 255, (2, 1, 32, 32), dtype=torch.uint8).expand(2, 3, 32, 32)
    made = of("other part", good, other)
    assert len(made) and all((image == other).flatten(1).all(dim=1).any() for image in made)
    assert "other part" not in foreign_pictures.make(good, NONE, 60, seed=0)[1]
