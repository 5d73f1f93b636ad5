"""Who is behind what: exactly the living hosts that have applied less, never those that are down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.rolls import Roll

hosts = st.dictionaries(st.sampled_from([f"h{n}" for n in range(6)]), st.integers(0, 6))


@given(hosts, st.integers(0, 7), st.lists(st.sampled_from(["down1", "down2"]), unique=True))
def test_a_change_is_converged_when_no_living_host_has_less(
    living: dict[str, int], wanted: int, away: list[str]
) -> None:
    told = Roll(living, tuple(away)).told(wanted)

    behind = sorted(host for host, applied in living.items() if applied < wanted)
    assert list(told.waiting_for) == behind
    assert told.converged is (not behind)
    assert list(told.away) == away
