"""Which numbers of a row are missing."""

import itertools
import random

import pytest

from ecommerce_worker.ledger import gaps


@pytest.mark.parametrize('came, highest, missing', [
    ([], 0, []), ([1, 2, 3], 3, []), ([3], 3, [[1, 2]]), ([1, 4, 8], 8, [[2, 3], [5, 7]]),
    ([8, 1, 4, 4], 8, [[2, 3], [5, 7]]), ([1, 9, 5], 9, [[2, 4], [6, 8]])])
def test_gaps_are_between_the_numbers_that_came(came, highest, missing):
    assert gaps.after(0, [], came) == (highest, missing)
    assert gaps.count(missing) == sum(last - first + 1 for first, last in missing)


def test_the_gaps_are_the_same_in_whatever_order_and_however_often_numbers_come():
    chance = random.Random(7)
    for _ in range(200):
        came = [chance.randint(1, 40) for _ in range(chance.randint(1, 60))]
        highest, found = 0, list[list[int]]()
        for begin in range(0, len(came), 7):
            highest, found = gaps.after(highest, found, came[begin:begin + 7])
        absent = sorted(set(range(1, max(came))) - set(came))
        assert highest == max(came)
        assert [number for first, last in found for number in range(first, last + 1)] == absent
        assert all(one[1] + 1 < next_[0] for one, next_ in itertools.pairwise(found))


def test_gaps_without_number_are_told_apart_up_to_a_bound():
    highest, found = gaps.after(0, [], range(2, 2_002, 2))
    assert highest == 2_000
    assert len(found) == gaps.MOST
    assert found[-1] == [1_999, 1_999]
    assert found[0][0] == 1
