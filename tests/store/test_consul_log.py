"""The change log's protocol against a model of Consul: nothing lost, order kept, every gap noticed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.consul_log import SLOTS, SWEPT, Log, Slot, Slots, Sweeper, parse_log, record_value, swept_value
from backends.store import Broken, Compacted, Delete, Entry, Put, Write

ACTIONS = ("begin", "apply", "apply", "apply", "lose", "refuse", "poll", "poll", "sweep", "wait", "backup", "restore")


@dataclass
class Commit:
    client: int
    slot: Slot
    shed: list[Slot]
    value: bytes
    keys: tuple[str, ...]


@dataclass
class Follower:
    sweeper: Sweeper
    told: int = 0
    is_of_lost_history: bool = False


@dataclass
class Model:
    """What Consul does with the log: one index for all, compare-and-swap, deletions without a trace."""

    rng: random.Random
    now: float = 0.0
    index: int = 1
    pairs: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    done: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    saved: tuple[dict[str, tuple[int, bytes]], int] | None = None

    def __post_init__(self) -> None:
        self.clients = [Slots(self.rng) for _ in range(3)]
        self.followers = [Follower(Sweeper(self.rng, 0.0)) for _ in range(3)]
        self.under_way: list[Commit] = []

    def read(self) -> Log:
        return parse_log(Entry(key, value, version) for key, (version, value) in self.pairs.items())

    def set(self, name: str, version: int, value: bytes) -> bool:
        self.index += self.rng.randint(1, 3)  # others write too
        if self.pairs.get(name, (0, b""))[0] != version:
            return False
        self.pairs[name] = (self.index, value)
        return True

    def begin(self) -> None:
        client = self.rng.randrange(3)
        slot = self.clients[client].take(self.now)
        shed = self.clients[client].shed(self.now, self.rng.choice([0, 2, 8]))
        keys = tuple(f"k/{self.rng.randrange(20)}" for _ in range(self.rng.randint(1, 2)))
        writes: list[Write] = [Put(key, b"") if self.rng.random() < 0.7 else Delete(key) for key in dict.fromkeys(keys)]
        names = tuple(sorted({write.key for write in writes}))
        before = max(one.version for one in (slot, *shed))
        self.under_way.append(Commit(client, slot, shed, record_value(before, writes), names))

    def apply(self, is_answered: bool = True) -> None:
        """Any commit under way, also one that was stuck for long; the client may never hear of it."""
        if not self.under_way:
            return self.begin()
        one = self.under_way.pop(self.rng.randrange(len(self.under_way)))
        is_whole = all(self.pairs.get(old.name, (old.version, b""))[0] == old.version for old in one.shed)
        if is_whole and self.set(one.slot.name, one.slot.version, one.value):
            for old in one.shed:
                self.pairs.pop(old.name, None)
            self.done.append((self.index, one.keys))
            if is_answered:
                self.clients[one.client].written(one.slot, self.index, len(one.value), self.now)
        return None

    def lose(self) -> None:
        self.apply(is_answered=False)

    def refuse(self) -> None:
        if self.under_way:
            one = self.under_way.pop()
            self.clients[one.client].not_written((one.slot, *one.shed))

    def wait(self) -> None:
        self.now += self.rng.choice([0.01, 0.5, 5, 70, 700])

    def poll(self) -> None:
        follower = self.rng.choice(self.followers)
        log = self.read()
        try:
            records = log.since(follower.told)
        except Compacted:
            follower.is_of_lost_history = False
        else:
            assert not follower.is_of_lost_history, "a store that went back was not noticed"
            told = [(one.revision, tuple(sorted((*one.put, *one.gone)))) for one in records]
            assert told == [one for one in self.done if follower.told < one[0] <= log.revision]
        follower.told = log.revision

    def sweep(self) -> None:
        log = self.read()
        due = self.rng.choice(self.followers).sweeper.due(log, self.now)
        if self.rng.random() < 0.3:
            self.apply()  # somebody is faster
        gone = [self.pairs.get(one.name, (one.revision, b""))[0] == one.revision for one in due]
        if due and all(gone) and self.set(SWEPT, log.swept, swept_value(log, due)):
            for one in due:
                self.pairs.pop(one.name, None)

    def backup(self) -> None:
        self.saved = dict(self.pairs), len(self.done)

    def restore(self) -> None:
        if self.saved is None or self.rng.random() < 0.5:
            return
        pairs, commits = self.saved
        self.pairs = dict(pairs)
        self.done = self.done[:commits]
        revision = self.read().revision
        for follower in self.followers:
            follower.is_of_lost_history = follower.is_of_lost_history or follower.told > revision


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(ACTIONS), min_size=20, max_size=120), st.integers(0, 2**32))
def test_a_follower_misses_nothing_or_knows_that_it_did(actions: list[str], seed: int) -> None:
    model = Model(random.Random(seed))
    for action in actions:
        getattr(model, action)()
    for _ in range(10):
        model.poll()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_a_follower_that_keeps_up_is_never_sent_to_list_again(seed: int) -> None:
    model = Model(random.Random(seed))
    told = 0
    for _ in range(300):
        getattr(model, model.rng.choice(["begin", "apply", "refuse", "lose", "wait", "sweep"]))()
        log = model.read()
        log.since(told)
        told = log.revision


def test_a_slot_that_was_overwritten_twice_since_is_a_gap() -> None:
    log = parse_log([Entry(f"{SLOTS}a-1", b'{"before":30,"put":["x"]}', 40)])

    assert [one.revision for one in log.since(30)] == [40]
    with pytest.raises(Compacted, match="not kept"):
        log.since(20)


def test_a_burst_keeps_a_bounded_history_and_a_quiet_client_a_short_one() -> None:
    slots = Slots(random.Random(1))
    names = set()
    now = 0.0
    for number in range(5000):
        slot = slots.take(now)
        names.add(slot.name)
        slots.written(slot, number + 1, 60, now)
        now += 0.001
    assert 500 < len(names) < 800

    quiet = Slots(random.Random(2))
    for number in range(200):
        now += 1.0
        slot = quiet.take(now)
        quiet.written(slot, number + 1, 60, now)
        names.add(slot.name)
    assert len([name for name in names if quiet.take(now).name.partition("-")[0] in name]) <= 25


def test_private_keys_are_not_told() -> None:
    value = record_value(7, [Put("a", b"1"), Put(".kvnet/held/x", b"2"), Delete("b")])

    [record] = parse_log([Entry(f"{SLOTS}a-1", value, 8)]).records
    assert (record.put, record.gone, record.before) == (("a",), ("b",), 7)


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b'{"before":"x"}', b"\xff"])
def test_a_log_that_is_not_ours_is_broken_not_empty(value: bytes) -> None:
    with pytest.raises(Broken, match="change log"):
        parse_log([Entry(f"{SLOTS}a-1", value, 8)])
