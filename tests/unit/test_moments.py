"""Moments as people and programs read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.moments import moment


@pytest.mark.parametrize(("at", "text"), [(0.0, "1970-01-01T00:00:00Z"), (1_800_000_000.9, "2027-01-15T08:00:00Z")])
def test_a_moment_is_told_in_utc_and_whole_seconds(at: float, text: str) -> None:
    assert moment(at) == text


@given(st.integers(0, 2**32))
def test_what_is_told_can_be_read_back(at: int) -> None:
    assert datetime.fromisoformat(moment(at)) == datetime.fromtimestamp(at, UTC)
