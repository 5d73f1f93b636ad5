"""Histories of a correct store, made up: any interleaving that the contract allows, for the tests of the checker.

Time is a counter. An operation is asked for, takes effect (or not) at one later moment, and is answered at a third, or
never. Readers are told old states, watches merge and repeat.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tests.torture.history import Commit, Demand, History, Listing, Outcome, Read, Seen, Stream, Told

State = dict[str, tuple[int, int]]  # key -> (writer, version)


@dataclass(slots=True)
class Simulation:
    rng: random.Random
    keys: tuple[str, ...] = ("a/1", "a/2", "b/1")
    clients: int = 4
    unknown: float = 0.15
    time: int = 0
    revision: int = 0
    number: int = 0
    state: State = field(default_factory=dict)
    past: list[tuple[int, State]] = field(default_factory=list)
    history: History = field(default_factory=History)
    _waiting: list[Commit] = field(default_factory=list)  # not yet in effect
    _answering: list[tuple[Commit, Outcome]] = field(default_factory=list)

    def run(self, steps: int) -> History:
        self.past.append((0, {}))
        streams = [Stream(self._next(), f"watcher{i}", prefix, 0) for i, prefix in enumerate(("", "a/"))]
        self.history.streams = streams
        for _ in range(steps):
            self.time += 1
            self.rng.choice((self._ask, self._take_effect, self._take_effect, self._answer, self._read, self._watch))()
        while self._waiting:
            self._take_effect()
        while self._answering:
            self._answer()
        for stream in streams:
            self._tell(stream, self.revision)
        self.history.listings.append(self._listing("", self.revision, is_final=True))
        return self.history

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _ask(self) -> None:
        if len(self._waiting) + len(self._answering) >= self.clients:
            return
        rng = self.rng
        keys = rng.sample(self.keys, rng.randint(1, min(2, len(self.keys))))
        demands = tuple(self._demand(key) for key in keys if rng.random() < 0.8)
        puts = tuple(key for key in keys if rng.random() < 0.7)
        deletes = tuple(key for key in keys if key not in puts and rng.random() < 0.7)
        commit = Commit(self._next(), f"c{rng.randrange(self.clients)}", self.time, demands, puts, deletes)
        self.history.commits.append(commit)
        self._waiting.append(commit)

    def _demand(self, key: str) -> Demand:
        _, state = self.past[-1] if self.rng.random() < 0.8 else self.rng.choice(self.past)
        if key not in state:
            return Demand("absent", key)
        self.history.reads.append(Read(self._next(), "reader", self.time, self.time, Seen(key, *state[key])))
        return Demand(self.rng.choice(("unchanged", "unchanged", "present")), key, state[key][1])

    def _take_effect(self) -> None:
        if not self._waiting:
            return
        commit = self._waiting.pop(self.rng.randrange(len(self._waiting)))
        self.time += 1
        is_lost = self.rng.random() < self.unknown
        if is_lost and self.rng.random() < 0.5:
            return  # the request never arrived
        failed = tuple(sorted(d.key for d in commit.demands if not self._holds(d)))
        if failed:
            if not is_lost:
                commit.conflict = failed
                self._answering.append((commit, Outcome.FAIL))
            return
        revision = self._apply(commit)
        if not is_lost:
            commit.revision = revision
            self._answering.append((commit, Outcome.OK))

    def _apply(self, commit: Commit) -> int:
        present = [key for key in commit.deletes if key in self.state]
        if not commit.puts and not present:
            return self.revision
        self.revision += self.rng.randint(1, 3)
        for key in present:
            del self.state[key]
        for key in commit.puts:
            self.state[key] = (commit.id, self.revision)
        self.past.append((self.revision, dict(self.state)))
        return self.revision

    def _answer(self) -> None:
        if self._answering:
            self.time += 1
            commit, outcome = self._answering.pop(self.rng.randrange(len(self._answering)))
            commit.outcome, commit.returned = outcome, self.time

    def _read(self) -> None:
        revision, state = self.past[-1] if self.rng.random() < 0.5 else self.rng.choice(self.past)
        if self.rng.random() < 0.5:
            key = self.rng.choice(self.keys)
            seen = Seen(key, *state.get(key, (0, 0)))
            self.history.reads.append(Read(self._next(), "reader", self.time, self.time, seen))
        else:
            self.history.listings.append(self._listing(self.rng.choice(("", "a/", "b/")), revision))

    def _listing(self, prefix: str, revision: int, *, is_final: bool = False) -> Listing:
        state = self._state_at(revision)
        seen = tuple(Seen(key, *state[key]) for key in sorted(state) if key.startswith(prefix))
        return Listing(self._next(), "reader", prefix, self.time, self.time, revision, seen, is_final)

    def _watch(self) -> None:
        stream = self.rng.choice(self.history.streams)
        covered = max([stream.after, *(told.revision for told in stream.told)])
        self._tell(stream, self.rng.choice([r for r, _ in self.past if r >= covered] or [covered]))

    def _tell(self, stream: Stream, revision: int) -> None:
        """The net difference; sometimes from further back than needed: a repeat."""
        covered = max([stream.after, *(told.revision for told in stream.told)])
        before, after = self._state_at(covered), self._state_at(revision)
        changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
        changed |= {key for key in after if self.rng.random() < 0.2}
        seen = tuple(Seen(key, *after.get(key, (0, 0))) for key in sorted(changed) if key.startswith(stream.prefix))
        stream.told.append(Told(self.time, revision, seen))

    def _state_at(self, revision: int) -> State:
        return next(state for r, state in reversed(self.past) if r <= revision)

    def _holds(self, demand: Demand) -> bool:
        found = self.state.get(demand.key)
        if demand.kind == "absent":
            return found is None
        return found is not None and (demand.kind == "present" or found[1] == demand.version)
