"""Objects of ours are removed and changed all the time, under traffic: each is repaired soon, and nothing goes astray.

KVNET_CHAOS_SECONDS makes it longer (60 in the issue's own words), KVNET_CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.figures import busy_cpu_seconds, percentile
from lab.lab import Lab, open_lab, until
from tests.lab.chaos.breaking import Damage, break_something
from tests.lab.chaos.facts import Eye, Fact, opened_eyes
from tests.lab.chaos.ways import Ears, Flow, Heard

pytestmark = [pytest.mark.anyio, pytest.mark.kernel, pytest.mark.slow]

SECONDS = float(os.environ.get("KVNET_CHAOS_SECONDS", "15"))
SEED = int(os.environ.get("KVNET_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
EVERY_S = 0.2
LOOK_EVERY_S = 0.02
REPAIRED_WITHIN_S = 1.0
# Where something else takes this share of the machine, a repair waits for its turn like everybody.
BUSY_SHARE, BUSY_REPAIRED_WITHIN_S = 0.3, 5.0
GIVE_UP_S = 10.0
QUIET_S = 6.0
IDLE_SHARE = 0.02  # the target is 0.01; a slow machine needs more for the same
# The rules themselves are what keeps networks apart; when somebody throws them away, they are apart again this soon.
RULES_BACK_S = 5.0
NETWORKS: dict[str, dict[str, Any]] = {
    "red": {"driver": "overlay"},
    "blue": {"driver": "overlay"},
    "sealed": {"driver": "overlay", "internal": True},
    "local": {"driver": "bridge"},
    "paths": {"driver": "routed"},
}
WORKLOADS = {"r1": ("red", "h1"), "r2": ("red", "h2"), "b1": ("blue", "h1"), "b2": ("blue", "h2")}
WORKLOADS |= {"p1": ("paths", "h1"), "p2": ("paths", "h2")}
WORKLOADS |= {"s1": ("sealed", "h1"), "s2": ("sealed", "h2"), "l1": ("local", "h1"), "l2": ("local", "h1")}
TOGETHER = (("r1", "r2"), ("b1", "b2"), ("s1", "s2"), ("l1", "l2"), ("p1", "p2"))
APART = (
    ("r1", "b1"),
    ("r1", "b2"),
    ("b1", "r1"),
    ("r2", "s1"),
    ("s1", "r1"),
    ("s1", "b2"),
    ("l1", "r1"),
    ("b1", "l2"),
    ("p1", "r2"),
    ("r1", "p2"),
)


@dataclass
class Repairs:
    """`took`: seconds until what was broken was whole again, by what was done. `lost`: what never came back."""

    took: list[tuple[float, str]] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    lost: frozenset[Fact] = frozenset()
    open_times: list[tuple[float, float]] = field(default_factory=list)
    vain: int = 0


@dataclass(frozen=True)
class Others:
    """How much of the machine is used by who has nothing to do with this test."""

    pids: tuple[int, ...]
    at: float
    busy_s: float
    ours_s: float

    @classmethod
    def now(cls, lab: Lab) -> Others:
        processes = [lab.controller, *(host.worker for host in lab.hosts.values())]
        pids = (os.getpid(), *(process.pid for process in processes if process is not None))
        return cls(pids, time.monotonic(), busy_cpu_seconds(), sum(map(_cpu_seconds, pids)))

    def share(self) -> float:
        ours = sum(map(_cpu_seconds, self.pids)) - self.ours_s
        wall = (time.monotonic() - self.at) * len(os.sched_getaffinity(0))
        share = (busy_cpu_seconds() - self.busy_s - ours) / wall
        print(f"others took {share:.0%} of the machine")
        return share


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, hosts=2, outside=True) as made:
        await made.start_controller()
        for name in made.hosts:
            await made.start_worker(name)
        for name in made.hosts:
            await made.until_ready(name)
        for name, options in NETWORKS.items():
            await made.client.create_network({"name": name, **options})
        for workload, (network, host) in WORKLOADS.items():
            await made.add_workload(workload, host)
            await made.attach(network, workload)
        yield made


async def test_whatever_is_broken_under_traffic_is_repaired_within_a_second_and_nothing_goes_astray(lab: Lab) -> None:
    print(f"KVNET_CHAOS_SEED={SEED}")
    rng = random.Random(SEED)
    with opened_eyes(lab.hosts) as eyes:
        for name, eye in eyes.items():
            await eye.open(lab.hosts[name].netns)
        await until_everything_flows(lab)
        sound = {name: await until_quiet(eye) for name, eye in eyes.items()}
        async with flowing(lab) as heard:
            repairs = [Repairs() for _ in eyes]
            others = Others.now(lab)
            async with asyncio.TaskGroup() as group:
                for (name, eye), kept in zip(eyes.items(), repairs, strict=True):
                    pace = EVERY_S * len(eyes)
                    group.create_task(break_and_watch(eye, sound[name], kept, random.Random(rng.random()), pace))
        require_quick_repairs(repairs, REPAIRED_WITHIN_S if others.share() < BUSY_SHARE else BUSY_REPAIRED_WITHIN_S)
        require_right_ways(heard, repairs)
        await until_everything_flows(lab)
        for name, eye in eyes.items():
            await until_equal(eye, sound[name])
        await require_little_work(lab)
    for host in lab.hosts.values():
        assert (await host.local.plan())["operations"] == []
    assert (await lab.client.check())["ok"]


async def break_and_watch(eye: Eye, sound: frozenset[Fact], kept: Repairs, rng: random.Random, pace_s: float) -> None:
    """Break something at that pace, and note when all of it is back."""
    began = time.monotonic()
    waiting: list[tuple[float, Damage, set[Fact]]] = []
    breaks = 0
    while time.monotonic() < began + SECONDS or waiting:
        if began + breaks * pace_s <= time.monotonic() < began + SECONDS:
            breaks += 1
            outstanding = kept.lost.union(*(missing for _, _, missing in waiting))
            at = time.monotonic()
            damage = await eye.do(partial(break_something, eye, sound, outstanding, rng))
            if damage is None or not damage.missing:
                kept.vain += 1
                if damage is not None and damage.way.opens:
                    kept.open_times.append((at, time.monotonic()))
            else:
                waiting.append((at, damage, set(damage.missing)))
        if waiting:
            there = await eye.facts({fact[0] for _, _, missing in waiting for fact in missing})
            waiting = [one for one in waiting if not _is_over(*one, there, kept)]
        await asyncio.sleep(LOOK_EVERY_S)


def _is_over(at: float, damage: Damage, missing: set[Fact], there: frozenset[Fact], kept: Repairs) -> bool:
    missing -= there
    took = time.monotonic() - at
    if missing and took >= GIVE_UP_S:
        kept.never.append(f"{damage.what}; still missing: {sorted(missing, key=repr)[:3]}")
        kept.lost |= missing
        return True
    if missing:
        return False
    kept.took.append((took, damage.what))
    if damage.way.opens:
        kept.open_times.append((at, at + took))
    return True


def require_quick_repairs(repairs: list[Repairs], within_s: float) -> None:
    took = sorted((one for kept in repairs for one in kept.took), reverse=True)
    never = [what for kept in repairs for what in kept.never]
    seconds = [one for one, _ in took]
    vain = sum(kept.vain for kept in repairs)
    p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
    slowest = "\n".join(f"{one:.2f} s  {what}" for one, what in took[:8])
    told = f"{len(took)} repairs ({vain} in vain), p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms\n{slowest}"
    print(told)
    assert not never, "not repaired at all:\n" + "\n".join(never)
    assert len(took) >= SECONDS / EVERY_S / 2, told
    assert p99 <= within_s, told


def require_right_ways(heard: Heard, repairs: list[Repairs]) -> None:
    print(f"arrived: {heard.arrived}")
    opened = [times for kept in repairs for times in kept.open_times]
    wrong = [(at, what) for at, what in heard.wrong if not any(a <= at <= b for a, b in opened)]
    told = Counter(what for _, what in heard.wrong)
    print(f"{len(heard.wrong) - len(wrong)} took a wrong way while there were no rules: {told}")
    assert not wrong, Counter(what for _, what in wrong)
    assert all(b - a <= RULES_BACK_S for a, b in opened)


@asynccontextmanager
async def flowing(lab: Lab) -> AsyncIterator[Heard]:
    """Datagrams between workloads that may talk, and between those that may not, and to the outside."""
    vnis = {n["name"]: n.get("vni") or 0 async for n in lab.client.networks()}
    flows = [flow for a, b in TOGETHER for flow in _both_families(lab, a, b, vnis[WORKLOADS[a][0]], may_arrive=True)]
    flows += [flow for a, b in APART for flow in _both_families(lab, a, b, 0, may_arrive=False)]
    outside = str(lab.around["outside"].address)
    flows += [Flow("r1", "outside", outside), Flow("s1", "outside", outside, may_arrive=False)]
    places = {name: workload.netns for name, workload in lab.workloads.items()}
    places["outside"] = lab.around["outside"].netns
    homes = {name: network for name, (network, _) in WORKLOADS.items()}
    ears = Ears(flows, places, {name: host.netns for name, host in lab.hosts.items()}, homes)
    with ears.listening():
        sending = asyncio.create_task(ears.send())
        try:
            yield ears.heard
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def _both_families(lab: Lab, source: str, target: str, vni: int, *, may_arrive: bool) -> Iterator[Flow]:
    network = WORKLOADS[target][0]
    for family in ("address", "address6"):
        address = lab.workloads[target].endpoints[network].get(family)
        if address:
            yield Flow(source, target, str(address), vni, may_arrive, is_bare=network == "paths")


async def until_everything_flows(lab: Lab) -> None:
    for source, target in TOGETHER:

        async def is_reached(source: str = source, target: str = target) -> bool:
            address = lab.workloads[target].endpoints[WORKLOADS[target][0]]["address"]
            return (await lab.ping(source, str(address), timeout_s=0.3)).ok

        await until(is_reached, f"{source} reaches {target}", seconds=5.0)


async def until_quiet(eye: Eye) -> frozenset[Fact]:
    """What is there once nothing has changed for a moment."""
    last: list[frozenset[Fact]] = [frozenset()]

    async def is_quiet() -> bool:
        before, last[0] = last[0], await eye.facts()
        await asyncio.sleep(0.3)
        return bool(last[0]) and before == last[0]

    await until(is_quiet, "the host is quiet", seconds=10.0)
    return last[0]


async def until_equal(eye: Eye, sound: frozenset[Fact]) -> None:
    different: list[frozenset[Fact]] = []

    async def is_equal() -> bool:
        different[:] = [await eye.facts() ^ sound]
        return not different[0]

    try:
        await until(is_equal, "the host is as it was", seconds=5.0)
    except Exception as error:
        raise AssertionError(f"different: {sorted(different[0], key=repr)[:6]}") from error


async def require_little_work(lab: Lab) -> None:
    """The workers' share of a processor when nothing happens."""
    pids = {name: host.worker.pid for name, host in lab.hosts.items() if host.worker is not None}
    await asyncio.sleep(2.0)  # what follows is about quiet
    before = {name: _cpu_seconds(pid) for name, pid in pids.items()}
    await asyncio.sleep(QUIET_S)
    shares = {name: (_cpu_seconds(pid) - before[name]) / QUIET_S for name, pid in pids.items()}
    print(f"idle: {shares}")
    assert max(shares.values()) < IDLE_SHARE, shares


def _cpu_seconds(pid: int) -> float:
    """Of all its threads, to the nanosecond; the ticks in /proc/PID/stat are too coarse for one per cent."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9
