import pytest

from adlib.data.lazy import Lazy


def test_items_are_made_when_they_are_looked_at_and_at_no_other_time():
    made = []
    squares = Lazy(3, lambda i: made.append(i) or i * i)
    assert len(squares) == 3 and not made
    assert squares[2] == 4 and made == [2]
    assert list(squares) == [0, 1, 4] and made == [2, 0, 1, 2]
    for i in (-1, 3):
        with pytest.raises(IndexError):
            squares[i]
    assert made == [2, 0, 1, 2]
