"""The checker accepts whatever a correct store may do, and rejects each way of breaking the contract."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.torture.history import Commit, Demand, History, Outcome, Seen, Told
from tests.torture.linearizable import check
from tests.torture.simulated import Simulation
from tests.torture.wgl import is_linearizable, steps_of

Rng = st.builds(random.Random, st.integers(0, 1 << 32))  # drawing each choice from hypothesis takes minutes
thoroughly = settings(max_examples=150, deadline=None)


def rules(history: History) -> set[str]:
    return set(check(history)[0].rules)


def certain(rng: random.Random, steps: int = 60) -> History:
    """Without unknown outcomes, which could excuse a mutation."""
    return Simulation(rng, unknown=0.0).run(steps)


def acknowledged(history: History, is_wanted: Callable[[Commit], bool] = lambda commit: bool(commit.puts)) -> Commit:
    found = [c for c in history.commits if c.outcome is Outcome.OK and is_wanted(c)]
    assume(found)
    return found[len(found) // 2]


@given(Rng, st.integers(5, 120))
@thoroughly
def test_a_correct_store_is_never_accused(rng: random.Random, steps: int) -> None:
    findings, _ = check(Simulation(rng, unknown=rng.choice((0.0, 0.2, 0.6))).run(steps))

    assert findings.violations == []


@given(Rng)
@example(random.Random(14052668))  # two that only delete are told one revision, and only one can have deleted anything
@thoroughly
def test_a_correct_store_is_not_accused_over_several_rounds_either(rng: random.Random) -> None:
    simulation = Simulation(rng, unknown=0.3)
    findings, carry = check(simulation.run(40))
    assert findings.violations == []
    simulation.history = History()
    simulation.past = [(simulation.revision, dict(simulation.state))]
    late = list(carry.unresolved)

    simulation._waiting = list(late)  # what was asked for in the first round takes effect in the second
    for _ in range(40):
        simulation.time += 1
        rng.choice((simulation._ask, simulation._take_effect, simulation._answer))()
    while simulation._waiting:
        simulation._take_effect()
    while simulation._answering:
        simulation._answer()
    for commit in late:
        commit.outcome, commit.returned, commit.revision, commit.conflict = Outcome.INFO, None, 0, ()
    simulation.history.listings.append(simulation._listing("", simulation.revision, is_final=True))

    assert check(simulation.history, carry)[0].violations == []


@given(Rng)
@thoroughly
def test_an_acknowledged_write_that_is_not_there_in_the_end_is_lost(rng: random.Random) -> None:
    history = certain(rng)
    final = history.listings[-1]
    assume(final.seen)
    final.seen = final.seen[1:]

    assert "lost-write" in rules(history)


@given(Rng)
@example(random.Random(462))  # its only one without puts stands anywhere within its call, also where the check held
@thoroughly
def test_a_commit_on_a_version_that_was_not_the_last_is_rejected(rng: random.Random) -> None:
    """One with puts: its revision says at which moment its checks had to hold."""
    history = certain(rng)
    commit = acknowledged(history, lambda c: bool(c.puts) and any(d.kind == "unchanged" for d in c.demands))
    commit.demands = tuple(
        Demand("unchanged", d.key, d.version - 1) if d.kind == "unchanged" else d for d in commit.demands
    )

    assert "check-did-not-hold" in rules(history)


@given(Rng)
@thoroughly
def test_a_deleted_value_never_comes_back(rng: random.Random) -> None:
    simulation = Simulation(rng, unknown=0.0)
    history = simulation.run(80)
    final = history.listings[-1]
    gone = [
        Seen(key, *simulation.past[i][1][key])
        for i in range(len(simulation.past))
        for key in simulation.past[i][1]
        if key not in simulation.state
    ]
    assume(gone)
    final.seen = (*final.seen, gone[-1])

    assert "resurrected-value" in rules(history)


@given(Rng)
@thoroughly
def test_a_revision_belongs_to_one_commit(rng: random.Random) -> None:
    history = certain(rng)
    writers = [c for c in history.commits if c.outcome is Outcome.OK and c.puts]
    assume(len(writers) > 1)
    writers[0].revision = writers[-1].revision

    assert {"revision-reused", "wrong-version"} & rules(history)


@given(Rng)
@thoroughly
def test_revisions_agree_with_real_time(rng: random.Random) -> None:
    history = Simulation(rng, unknown=0.0, clients=2).run(100)
    history.reads, history.listings, history.streams = [], [], []
    writers = [c for c in history.commits if c.outcome is Outcome.OK and c.puts]
    pair = next(((a, b) for a in writers for b in writers if a.returned is not None and a.returned < b.called), None)
    assume(pair is not None)
    assert pair is not None
    pair[0].revision, pair[1].revision = pair[1].revision, pair[0].revision

    assert "real-time-order" in rules(history)


@given(Rng)
@thoroughly
def test_what_was_refused_is_never_seen(rng: random.Random) -> None:
    history = certain(rng)
    there = {seen.writer for seen in history.listings[-1].seen}
    commit = acknowledged(history, lambda c: c.id in there)
    commit.outcome, commit.revision = Outcome.FAIL, 0

    assert "refused-but-written" in rules(history)


@given(Rng)
@thoroughly
def test_a_value_that_nobody_wrote_is_invented(rng: random.Random) -> None:
    history = certain(rng)
    there = {seen.writer for seen in history.listings[-1].seen}
    commit = acknowledged(history, lambda c: c.id in there)
    history.commits.remove(commit)

    assert "invented-value" in rules(history)


@given(Rng)
@thoroughly
def test_a_reader_is_told_nothing_of_the_future(rng: random.Random) -> None:
    history = certain(rng)
    assume(history.reads and any(r.seen.writer for r in history.reads))
    read = next(r for r in history.reads if r.seen.writer)
    read.returned = -1

    assert "told-before-written" in rules(history)


@given(Rng)
@thoroughly
def test_a_listing_is_of_one_revision(rng: random.Random) -> None:
    simulation = Simulation(rng, unknown=0.0)
    history = simulation.run(80)
    listing = next((x for x in history.listings if not x.is_final and len(x.seen) > 1), None)
    assume(listing is not None)
    assert listing is not None
    listing.seen = listing.seen[:-1]

    assert "list-not-a-snapshot" in rules(history)


@given(Rng)
@thoroughly
def test_a_watch_that_leaves_out_a_final_state_is_found_out(rng: random.Random) -> None:
    history = certain(rng)
    stream = history.streams[0]
    final = history.listings[-1]
    assume(final.seen)
    key = final.seen[0].key
    stream.told = [Told(t.time, t.revision, tuple(s for s in t.seen if s.key != key)) for t in stream.told]

    assert "watch-lost-event" in rules(history)


@given(Rng)
@thoroughly
def test_a_watch_never_goes_back_in_time(rng: random.Random) -> None:
    history = certain(rng)
    stream = history.streams[0]
    told = [(i, s) for i, t in enumerate(stream.told) for s in t.seen if s.version]
    older = next(((s, t) for i, s in told for j, t in told if j > i and s.key == t.key and s.version < t.version), None)
    assume(older is not None)
    assert older is not None
    stream.told.append(Told(stream.told[-1].time, stream.told[-1].revision, (older[0],)))

    assert "watch-went-back" in rules(history)


@given(Rng)
@thoroughly
def test_a_refusal_needs_a_reason(rng: random.Random) -> None:
    history = Simulation(rng, unknown=0.0, clients=1).run(60)
    commit = acknowledged(history, lambda c: c.id == max(x.id for x in history.commits) and bool(c.demands))
    commit.outcome, commit.revision, commit.conflict = Outcome.FAIL, 0, (commit.demands[0].key,)
    history.reads, history.listings, history.streams = [], [], []

    assert "conflict-without-reason" in rules(history)


@given(Rng, st.integers(5, 60))
@thoroughly
def test_the_second_opinion_accepts_a_correct_store_too(rng: random.Random, steps: int) -> None:
    history = Simulation(rng, keys=("a/1", "a/2"), unknown=0.2).run(steps)
    check(history)  # learns the versions of unknown commits

    for steps_of_key in steps_of(history).values():
        assert is_linearizable(steps_of_key) is not False


@given(Rng)
@settings(max_examples=400, deadline=None)
def test_whatever_the_second_opinion_rejects_the_checker_rejects(rng: random.Random) -> None:
    """Damage at random: revisions, checks and outcomes. The checker may see more, never less.

    Without unknown outcomes: there the search is stronger, see docs/torture.md.
    """
    history = Simulation(rng, keys=("a/1",), unknown=0.0).run(50)
    history.reads, history.listings, history.streams = [], [], []
    writers = [c for c in history.commits if c.outcome is Outcome.OK]
    assume(len(writers) > 2)
    for _ in range(rng.randint(1, 2)):
        one, other = rng.sample(writers, 2)
        match rng.randrange(4):
            case 0:
                one.revision, other.revision = other.revision, one.revision
            case 1:
                one.demands, other.demands = other.demands, one.demands
            case 2:
                history.commits.remove(one)
                writers.remove(one)
            case _:
                one.outcome, one.revision, one.conflict = Outcome.FAIL, 0, tuple(d.key for d in one.demands[:1])
                writers.remove(one)
        assume(len(writers) > 2)

    rejected = any(is_linearizable(steps) is False for steps in steps_of(history).values())

    if rejected:
        assert rules(history)
