"""Ids that kvnet gives: unlike each other, valid, and neighbours within one request."""

from __future__ import annotations

import random
from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from controller.claims import fresh_ids
from kvnet.rules import IDENTIFIER

MAX_BULK = 500


class AtTheEnd(random.Random):
    """Draws the highest number there is."""

    def getrandbits(self, k: int) -> int:
        return (1 << k) - 1


@given(st.integers())
def test_the_ids_of_a_request_are_valid_consecutive_and_all_different(seed: int) -> None:
    ids = list(islice(fresh_ids(random.Random(seed)), MAX_BULK))

    assert all(IDENTIFIER.match(one) and len(one) == 16 for one in ids)
    assert len(set(ids)) == MAX_BULK
    steps = {(int(after, 16) - int(before, 16)) % (1 << 64) for before, after in pairwise(ids)}
    assert steps == {1}


def test_after_the_last_number_comes_the_first() -> None:
    assert list(islice(fresh_ids(AtTheEnd()), 2)) == ["f" * 16, "0" * 16]


def test_two_requests_do_not_continue_each_other() -> None:
    rng = random.Random(7)
    first, second = fresh_ids(rng), fresh_ids(rng)

    assert abs(int(next(first), 16) - int(next(second), 16)) > MAX_BULK
