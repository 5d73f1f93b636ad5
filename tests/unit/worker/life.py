"""How long a worker of the tests lives, and what is out of order around it meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

NET = "0123456789ab"
NET2 = "ba9876543210"
EPOCH = 1_800_000_000.0


class Killed(BaseException):
    """kill -9: whatever is called on a port from now on does not happen."""


class Life:
    """Counts the calls that a worker makes to the outside; dies at the `fatal`-th, and is dead from then on."""

    def __init__(self) -> None:
        self.calls = 0
        self.fatal: int | None = None
        self.is_dead = False

    def step(self) -> None:
        if self.is_dead:
            raise Killed
        self.calls += 1
        if self.fatal is not None and self.calls >= self.fatal:
            self.is_dead = True
            raise Killed

    def arm(self, after: int) -> None:
        self.calls, self.fatal = 0, after


@dataclass(slots=True)
class Outages:
    """What does not work at the moment."""

    store: bool = False
    controller: bool = False
    answers_lost: bool = False
