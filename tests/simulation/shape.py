"""What a run is made of: the cluster's shape, drawn from the seed, and the steps, each with a seed of its own.

A step resolves what it acts on when its turn comes (the third network there is by then ...), so a list of steps stays
a run when some of them are taken out: that is what shrinking rests on. Plain data, to and from JSON.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from tests.simulation.network import Weather

# Actions and how often they come; `harsh` is the share of those that break something.
WORK = {
    "create_network": 5,
    "delete_network": 3,
    "change_network": 4,
    "peer": 3,
    "attach": 14,
    "detach": 7,
    "end_workload": 4,
    "create_endpoint": 6,
    "create_many": 2,
    "delete_endpoint": 7,
    "change_endpoint": 5,
    "reserve": 2,
    "release_reservation": 1,
    "hold": 1,
    "remove_host": 1,
    "check": 1,
}
HARM = {
    "kill_controller": 3,
    "kill_worker": 4,
    "power_cut": 2,
    "start_dead": 12,
    "stop_process": 3,
    "continue_process": 5,
    "cut_store": 4,
    "refuse_store": 3,
    "slow_store": 2,
    "cut_controller": 3,
    "heal": 12,
    "store_away": 1,
    "compact": 3,
    "end_session": 3,
    "extend_sessions": 1,
    "set_clock": 3,
    "kernel_fails": 3,
    "meddle": 6,
    "lose_events": 2,
    "fill_disk": 1,
}
WAITS = {"moment": 20, "second": 14, "while": 5, "long": 1}


@dataclass(frozen=True, slots=True)
class Shape:
    """`store`: what its watches are like. `harm`: the share of steps that break something."""

    controllers: int = 2
    hosts: int = 3
    store: str = "watches"
    harm: float = 0.2
    weather: Weather = field(default_factory=Weather)
    ttl_s: float = 15.0
    cool_down_s: float = 20.0

    @classmethod
    def draw(cls, rng: random.Random) -> Self:
        weather = Weather(
            lost=rng.choice((0.0, 0.0, 0.002, 0.01, 0.03)),
            slow=rng.choice((0.0, 0.01, 0.05)),
            late=rng.choice((0.0, 0.5)),
            lag=rng.choice((0.0, 0.02, 0.1, 0.3)),
        )
        return cls(
            controllers=rng.choice((1, 2, 2, 3)),
            hosts=rng.choice((1, 2, 3, 3, 4)),
            store=rng.choice(("watches", "follower")),
            harm=rng.choice((0.0, 0.1, 0.2, 0.3)),
            weather=weather,
            ttl_s=rng.choice((10.0, 15.0)),
        )


@dataclass(frozen=True, slots=True)
class Step:
    action: str
    seed: int


@dataclass(frozen=True, slots=True)
class Script:
    """`broken`: the planted bug that it runs with, "" for the product as it is."""

    shape: Shape
    steps: tuple[Step, ...]
    seed: int = 0
    broken: str = ""

    @classmethod
    def draw(cls, seed: int, steps: int, broken: str = "") -> Self:
        rng = random.Random(f"script {seed}")
        shape = Shape.draw(rng)
        return cls(shape, tuple(_drawn(rng, shape.harm) for _ in range(steps)), seed, broken)

    def only(self, steps: tuple[Step, ...]) -> Self:
        return replace(self, steps=steps)

    def to_json(self) -> str:
        plain = {"seed": self.seed, "broken": self.broken, "shape": asdict(self.shape)}
        steps = ",\n".join(f'  ["{step.action}", {step.seed}]' for step in self.steps)
        return json.dumps(plain, indent=1)[:-2] + f',\n "steps": [\n{steps}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Self:
        plain: dict[str, Any] = json.loads(text)
        shape = plain["shape"]
        weather = Weather(**shape.pop("weather"))
        steps = tuple(Step(action, seed) for action, seed in plain["steps"])
        return cls(Shape(**shape, weather=weather), steps, plain["seed"], plain.get("broken", ""))


def _drawn(rng: random.Random, harm: float) -> Step:
    kinds = (HARM, WAITS, WORK)
    share = rng.random()
    kind = kinds[0] if share < harm else kinds[1] if share < harm + 0.35 else kinds[2]
    [action] = rng.choices(list(kind), list(kind.values()))
    return Step(action, rng.getrandbits(32))
