"""Counters, gauges and histograms, and the text format (0.0.4) that Prometheus reads.

By hand, for a worker must not load a client library; the tests read it with the real parser. A family has a bounded
number of series: what comes after `MOST_SERIES` is counted under `other`, so that no label can grow a scrape without
end. Pure, but for what it counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Generic, TypeVar, cast

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_SERIES = 256
OTHER = "other"
_IN_VALUE = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_IN_HELP = str.maketrans({"\\": r"\\", "\n": r"\n"})

Values = tuple[str, ...]
S = TypeVar("S")


@dataclass(slots=True)
class Number:
    """A counter's or a gauge's value for one set of labels."""

    value: float = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value


@dataclass(slots=True)
class Distribution:
    """How many observations were at most as large as each bound."""

    bounds: Sequence[float]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Family(Generic[S]):
    """All series of one name. `labels` names their labels, in the order that values are given in."""

    def __init__(self, kind: str, name: str, text: str, labels: Sequence[str], new: Callable[[], S]) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.labels = tuple(labels)
        self.series: dict[Values, S] = {}
        self._new = new

    def of(self, *values: str) -> S:
        """The series with these labels; made when it is first asked for."""
        found = self.series.get(values)
        if found is None:
            if len(values) != len(self.labels):
                raise ValueError(f"{self.name} has the labels {self.labels}, not {values}")
            if len(self.series) >= MOST_SERIES:
                values = (OTHER,) * len(values)
            found = self.series.setdefault(values, self._new())
        return found

    def replace(self, values: Mapping[Values, S]) -> None:
        """These series and no others: what is gone is not told any more."""
        self.series = dict(values)


Gauge = Family[Number]
Counter = Family[Number]
Histogram = Family[Distribution]


class Registry:
    """Families in the order in which they were made. `looks`: called before each scrape."""

    def __init__(self) -> None:
        self.looks: list[Callable[[], None]] = []
        self.families: list[Family[Number] | Family[Distribution]] = []

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return self._with(Family("counter", name, text, labels, Number))

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return self._with(Family("gauge", name, text, labels, Number))

    def histogram(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> Histogram:
        family = Family("histogram", name, text, labels, lambda: Distribution(tuple(bounds)))
        self._refuse_second(name)
        self.families.append(family)
        return family

    def _with(self, family: Family[Number]) -> Family[Number]:
        self._refuse_second(family.name)
        self.families.append(family)
        return family

    def _refuse_second(self, name: str) -> None:
        if any(family.name == name for family in self.families):
            raise ValueError(f"there is a metric {name} already")

    def render(self) -> str:
        for look in self.looks:
            look()
        return "".join(line for family in self.families for line in _lines(family))


def _lines(family: Family[Number] | Family[Distribution]) -> Iterator[str]:
    yield f"# HELP {family.name} {family.text.translate(_IN_HELP)}\n"
    yield f"# TYPE {family.name} {family.kind}\n"
    for values, one in list(family.series.items()):
        pairs = list(zip(family.labels, values, strict=True))
        if isinstance(one, Number):
            yield f"{family.name}{_labelled(pairs)} {_number(one.value)}\n"
        else:
            yield from _distribution(family.name, pairs, cast(Distribution, one))


def _distribution(name: str, pairs: list[tuple[str, str]], one: Distribution) -> Iterator[str]:
    so_far = 0
    for bound, count in zip((*one.bounds, inf), one.counts, strict=True):
        so_far += count
        yield f"{name}_bucket{_labelled([*pairs, ('le', _number(bound))])} {so_far}\n"
    yield f"{name}_sum{_labelled(pairs)} {_number(one.total)}\n"
    yield f"{name}_count{_labelled(pairs)} {so_far}\n"


def _labelled(pairs: Iterable[tuple[str, str]]) -> str:
    inner = ",".join(f'{name}="{value.translate(_IN_VALUE)}"' for name, value in pairs)
    return f"{{{inner}}}" if inner else ""


def _number(value: float) -> str:
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    if isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(float(value))
