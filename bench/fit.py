"""How a cost grows: the exponent of a power law, by least squares on two logarithmic axes. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.figures import Figure

# A cost that grows as what is carried has 1; what a cache or a table costs on its way to a larger size is forgiven.
LINEAR = 1.1


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope; 0 where there are not two different sizes."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in logs}) < 2:
        return 0.0
    mean_x, mean_y = (sum(axis) / len(logs) for axis in zip(*logs, strict=True))
    covered = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return covered / sum((x - mean_x) ** 2 for x, _ in logs)


def curve(name: str, unit: str, points: Sequence[tuple[float, float]], *, at_most: float | None = LINEAR) -> Figure:
    """A figure whose value is the exponent; `points` are told with it."""
    told = [[x, float(f"{y:.4g}")] for x, y in points]
    details = {"points": told, "unit": unit}
    return Figure(name, exponent(points), "exponent", at_most=at_most, details=details)
