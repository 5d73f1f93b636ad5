"""Runs one script: step by step, judged after each, then everything is mended and must come to rest.

One call is one run, from nothing; the same script is the same run, in any process on any machine.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from traceback import format_exception
from unittest.mock import patch

from kvnet import codec
from tests.simulation.broken import PLANTED
from tests.simulation.harm import Harm
from tests.simulation.loop import START_S as EPOCH_S
from tests.simulation.loop import SimulatedLoop
from tests.simulation.packets import misled
from tests.simulation.rest import unreached, unrest
from tests.simulation.shape import HARM, WAITS, WORK, Script
from tests.simulation.work import Work
from tests.simulation.world import World

WAITS_S = {"moment": 0.05, "second": 1.0, "while": 8.0, "long": 40.0}
BETWEEN_S = 0.02
COME_UP_S = 60.0
SETTLE_S = 900.0
LOOK_S = 15.0
QUIET_LOOKS = 2
STUCK_LOOKS = 14
DECODED = 4096


@dataclass(slots=True)
class Outcome:
    """`found`: what was wrong; empty if nothing. `digest` stands for everything that happened."""

    seed: int
    found: list[str]
    steps: int
    digest: str
    trace: list[str] = field(default_factory=list)
    cpu_s: float = 0.0
    virtual_s: float = 0.0

    @property
    def is_good(self) -> bool:
        return not self.found


def run(script: Script) -> Outcome:
    logging.disable(logging.CRITICAL)
    began = time.process_time()
    rng = random.Random(f"start {script.seed}")
    loop = SimulatedLoop(rng)
    with loop.entered(), _decoded_once():
        outcome = _run(script, World(script.shape, rng, loop, PLANTED[script.broken]))
    outcome.cpu_s = time.process_time() - began
    return outcome


@contextmanager
def _decoded_once() -> Iterator[None]:
    """Every process of the cluster reads the same stored values, and what they are decoded to never changes."""
    with patch.object(codec, "decode", lru_cache(DECODED)(codec.decode)):
        yield


def _run(script: Script, world: World) -> Outcome:
    work = Work(world)
    harm = Harm(world, work)
    rng, done = world.rng, 0
    try:
        _start(world)
        for step in script.steps:
            if world.found:
                break
            done += 1
            rng.seed(step.seed)
            _take(world, work, harm, step.action)
            _judge(world)
        if not world.found:
            rng.seed(script.seed)
            _come_to_rest(world, work, harm)
    except Exception as error:  # noqa: BLE001 - it is what was found
        world.fail("".join(format_exception(error)[-4:]))
    passed_s = world.loop.time() - EPOCH_S
    return Outcome(script.seed, world.found, done, world.digest.hexdigest(), world.trace, virtual_s=passed_s)


def _start(world: World) -> None:
    for replica in world.replicas:
        replica.start()
    for station in world.stations:
        station.start()
    is_up = world.loop.run_until(
        lambda: (
            all(r.cluster for r in world.replicas)
            and all(s.worker and s.worker.lifeline.is_open for s in world.stations)
        ),
        COME_UP_S,
    )
    if not is_up and not world.shape.weather.lost:
        world.fail("the cluster does not start")
    _crashes(world)


def _take(world: World, work: Work, harm: Harm, action: str) -> None:
    if action in HARM:
        harm.do(action)
    elif action in WORK:
        work.do(action)
    else:
        assert action in WAITS
        world.loop.run_for(world.rng.random() * WAITS_S[action])
    world.loop.run_for(world.rng.random() * BETWEEN_S)


def _judge(world: World) -> None:
    _crashes(world)
    for found in world.ledger.missing(world.server.state.entries):
        world.fail(found)
    for found in misled(world):
        world.fail(found)


def _crashes(world: World) -> None:
    for one in (*world.replicas, *world.stations):
        for error in one.crashes:
            world.fail(f"{one.name} dies: " + "".join(format_exception(error)[-6:]))
    for context in world.loop.errors:
        error = context.get("exception")
        told = "".join(format_exception(error)[-6:]) if error is not None else ""
        world.fail(f"the loop is told of {context.get('message')}: {told}")
    world.loop.errors.clear()


def _come_to_rest(world: World, work: Work, harm: Harm) -> None:
    """Quiet twice in a row, so that it is a state and not a moment."""
    harm.heal_everything()
    quiet = stuck = 0
    wrong: list[str] = []
    end = world.loop.time() + SETTLE_S
    while world.loop.time() < end:
        world.loop.run_for(LOOK_S)
        _judge(world)
        if world.found:
            return
        before, wrong = wrong, unrest(world, work)
        quiet = 0 if wrong else quiet + 1
        stuck = stuck + 1 if wrong == before else 0
        if quiet >= QUIET_LOOKS or (wrong and stuck >= STUCK_LOOKS):
            break
    for one in wrong:
        world.fail(f"never at rest: {one}")
    if not wrong:
        for one in unreached(world):
            world.fail(f"at rest, but {one}")
