"""The plan of a soak: the same for the same seed, and one fault after the other in each lane."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnet.errors import Invalid
from tests.soak.plan import DELAY_S, KINDS, LOSS, NETWORK, PROCESSES, only, plan

PAUSE = (1.0, 6.0)
SERVERS = ["servers"]
seeds = st.integers(0, 1 << 31)


@given(seeds)
def test_the_same_seed_plans_the_same_faults(seed: int) -> None:
    assert plan(seed, 300.0, SERVERS, pause=PAUSE) == plan(seed, 300.0, SERVERS, pause=PAUSE)


@given(seeds)
def test_in_each_lane_a_fault_is_over_before_the_next_begins_and_the_last_before_the_end(seed: int) -> None:
    for lane in (PROCESSES, NETWORK):
        faults = [fault for fault in plan(seed, 300.0, SERVERS, pause=PAUSE) if fault.lane == lane]
        for one, after in pairwise(faults):
            assert one.at + one.seconds < after.at
        assert faults[-1].at + faults[-1].seconds <= 300.0


@given(seeds)
def test_a_long_soak_has_every_kind_of_fault_that_the_site_allows(seed: int) -> None:
    for abilities in (SERVERS, ["disk"]):
        names = {fault.kind for fault in plan(seed, 600.0, abilities, pause=PAUSE)}
        assert names == {kind.name for kind in KINDS if not kind.needs or kind.needs in abilities}


@given(seeds)
def test_bad_wires_lose_between_5_and_30_percent_or_delay_or_both(seed: int) -> None:
    wires = [fault.more for fault in plan(seed, 600.0, SERVERS, pause=PAUSE) if fault.kind.startswith("bad-wire")]
    assert wires
    for more in wires:
        assert more["loss"] == 0.0 or LOSS[0] <= more["loss"] <= LOSS[1]
        assert more["delay_s"] in (0.0, DELAY_S)
        assert more["loss"] or more["delay_s"]


def test_only_the_kinds_that_were_asked_for_are_planned() -> None:
    assert {fault.kind for fault in plan(1, 100.0, SERVERS, pause=PAUSE, kinds=["kill-worker"])} == {"kill-worker"}


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Invalid) as refusal:
        only(["kill-wroker"])
    assert "kill-worker" in refusal.value.fix
