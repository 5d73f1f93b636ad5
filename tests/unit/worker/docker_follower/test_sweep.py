"""What Docker has forgotten is released, and nothing else: not what is being made, not while Docker cannot be asked."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from worker.attachments import Phase, Record
from worker.runtimes.docker.ledger import Want
from worker.runtimes.docker.sweep import AGAIN_S, GRACE_S, WANT_S, Findings, Look, judge

NOW = 1_800_000_000.0
PHASES = st.sampled_from([Phase.CLAIMED, Phase.ATTACHED, Phase.DETACHING, Phase.ATTACHING])
AGE = st.floats(0, 3 * GRACE_S)


def record(number: int, *, age: float = 1000.0, phase: Phase = Phase.ATTACHED, runtime: str = "docker") -> Record:
    external = f"x{number}" if runtime == "docker" else ""
    return Record(f"e{number}", "web", "c", "/ns", "kt", phase, NOW - age, runtime=runtime, external=external)


def twice(*records: Record, known: Mapping[str, str] = {}, later: Mapping[str, str] | None = None) -> Findings:
    first = judge(Look(NOW, records, known))
    assert first.release == ()
    return judge(Look(NOW + AGAIN_S, records, known if later is None else later, suspects=first.suspects))


def test_what_docker_does_not_list_in_two_looks_is_released() -> None:
    assert twice(record(1), record(2, phase=Phase.CLAIMED)).release == ("e1", "e2")
    assert twice(record(1), known={"x1": "c"}).release == ()
    assert twice(record(1), later={"x1": "c"}).release == ()


def test_a_claim_that_never_became_an_endpoint_is_released() -> None:
    claim = Record("e1", "web", "c", "", "", Phase.CLAIMED, NOW - 1000, runtime="docker", external="")
    assert twice(claim).release == ("e1",)


def test_what_is_being_made_or_is_another_runtimes_is_left_alone() -> None:
    young, other, going = record(1, age=1), record(2, runtime="cni"), record(3, phase=Phase.DETACHING)
    assert twice(young, other, going) == Findings()


def test_an_endpoint_that_docker_has_and_nobody_knows_is_told_of() -> None:
    assert twice(known={"x9": "c9"}).strangers == ("x9",)
    assert twice(record(9), known={"x9": "c9"}).strangers == ()


def test_pools_that_became_no_network_are_dropped() -> None:
    wants = [Want("10.1.0.0/24", "h1", NOW - WANT_S), Want("10.2.0.0/24", "h2", NOW - WANT_S + 1)]
    assert judge(Look(NOW, (), {}, wants)).drop == (wants[0],)


@given(
    st.lists(st.tuples(AGE, PHASES, st.booleans(), st.sampled_from(["docker", "docker", "netns"])), max_size=12),
    st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=6),
    st.lists(st.floats(0, 2 * AGAIN_S), min_size=6, max_size=6),
)
def test_nothing_is_released_that_docker_listed_of_late_or_that_is_young(
    made: list[tuple[float, Phase, bool, str]], lists: list[set[int]], pauses: list[float]
) -> None:
    records = [record(n, age=age, phase=phase, runtime=runtime) for n, (age, phase, _, runtime) in enumerate(made)]
    suspects: Mapping[str, float] = {}
    now, last_listed = NOW, {r.endpoint: -1.0 for r in records}
    for listed, pause in zip(lists, pauses, strict=False):
        now += pause
        known = {f"x{n}": "c" for n in listed}
        last_listed |= {r.endpoint: now for r in records if r.external in known}
        found = judge(Look(now, records, known, suspects=suspects))
        suspects = found.suspects
        for r in records:
            if r.endpoint not in found.release:
                continue
            assert r.runtime == "docker"
            assert r.phase in (Phase.CLAIMED, Phase.ATTACHED)
            assert now - r.since >= GRACE_S
            assert now - last_listed[r.endpoint] >= AGAIN_S or last_listed[r.endpoint] < 0
