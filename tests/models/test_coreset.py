"""The patches that a memory keeps."""
import itertools
from unittest import mock

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from adlib.models import coreset
from adlib.models.coreset import k_centre

points = st.integers(
    1, 3).flatmap(lambda d: st.lists(st.tuples(*[st.integers(-9, 9)] * d), min_size=1, max_size=14))


def greedy(x, count):
    """k-centre as Gonzalez (1985) has it, without any bookkeeping; the first of equally far points.
    """
    chosen = [0]
    while len(chosen) < count:
        chosen.append(int(cdist(x, x[chosen], "sqeuclidean").min(axis=1).argmax()))
    return chosen


@settings(max_examples=150, deadline=None)
@given(points, st.data())
def test_the_coreset_is_the_greedy_k_centre(values, data):
    x = np.array(values, float)  # whole numbers: float32 is exact, and ties are ties
    count = data.draw(st.integers(1, len(x)))
    with mock.patch.object(coreset, "AHEAD", data.draw(st.integers(1, 6))):
        found = k_centre(torch.from_numpy(x).float(), count)
    assert found.dtype == torch.long and found.tolist() == greedy(x, count)


@settings(max_examples=60, deadline=None)
@given(points.filter(lambda values: len(values) <= 9), st.integers(1, 3))
def test_the_coreset_covers_at_most_twice_as_far_as_the_best(values, count):
    x = np.array(values, float)
    count = min(count, len(x))
    distance = cdist(x, x)
    best = min(distance[:, list(some)].min(axis=1).max()
               for some in itertools.combinations(range(len(x)), count))
    assert distance[:, k_centre(torch.from_numpy(x).float(), count).tolist()].min(
        axis=1).max() <= 2 * best + 1e-9
