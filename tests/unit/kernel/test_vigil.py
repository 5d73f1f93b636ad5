"""How often is looked at what gives no event."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.kernel.vigil import period_for


@given(st.floats(0, 10))
def test_looks_never_cost_more_than_one_per_cent(cost: float) -> None:
    assert cost <= period_for(cost) / 100 * 1.001


@given(st.floats(0, 0.007))
def test_a_change_is_seen_in_time_for_a_repair_within_a_second(cost: float) -> None:
    assert 0.6 <= period_for(cost) <= 0.71


def test_a_cheap_look_costs_next_to_nothing() -> None:
    assert period_for(0.001) == 0.6
