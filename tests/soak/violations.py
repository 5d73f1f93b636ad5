"""What a soak must not see, each with the moment and what is known of it. Any one of them fails the soak."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_KEPT = 25


@dataclass(slots=True)
class Violations:
    """`rule`: stable, tests match on it. Every one is counted, the first of each rule are kept."""

    say: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    kept: list[dict[str, Any]] = field(default_factory=list)

    def blame(self, rule: str, detail: str) -> None:
        self.counts[rule] += 1
        if self.counts[rule] <= MOST_KEPT:
            at = round(self.clock() - self.began, 2)
            self.kept.append({"at_s": at, "rule": rule, "detail": detail})
            self.say(f"VIOLATION {rule}: {detail}")
