"""What a check of a history has to say: violations with the operations they rest on, and how much was judged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_KEPT = 50


@dataclass(frozen=True, slots=True)
class Violation:
    """`rule`: which promise was broken; stable, tests match on it. `operations`: numbers in the history."""

    rule: str
    detail: str
    operations: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" (operations {', '.join(map(str, self.operations))})" if self.operations else ""
        return f"{self.rule}: {self.detail}{where}"


@dataclass(slots=True)
class Findings:
    """Counts every violation, keeps the first of them."""

    violations: list[Violation] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)

    def blame(self, rule: str, detail: str, *operations: int) -> None:
        self.rules[rule] += 1
        if len(self.violations) < MAX_KEPT:
            self.violations.append(Violation(rule, detail, operations))

    def add(self, other: Findings) -> None:
        self.violations += other.violations[: MAX_KEPT - len(self.violations)]
        self.rules += other.rules
        self.judged += other.judged
