"""The text that a worker's metrics are: read back by Prometheus' own client, whatever goes in."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from worker.metrics.text import MOST_SERIES, OTHER, Registry

values = st.text(max_size=20)
numbers = st.one_of(st.floats(allow_nan=False), st.integers(-(2**60), 2**60))


def read(registry: Registry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(registry.render())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


@given(st.dictionaries(st.tuples(values, values), numbers, max_size=8), st.text(max_size=30))
def test_whatever_the_labels_and_the_help_are_the_same_comes_out(known: dict[Any, float], text: str) -> None:
    registry = Registry()
    gauge = registry.gauge("kvnet_g", text, "one", "two")
    for labels, value in known.items():
        gauge.of(*labels).set(value)

    expected = {("kvnet_g", (("one", one), ("two", two))): float(value) for (one, two), value in known.items()}
    assert read(registry) == expected


@given(st.lists(st.floats(0, 20), max_size=30))
def test_a_histogram_counts_each_observation_once(seen: list[float]) -> None:
    registry = Registry()
    histogram = registry.histogram("kvnet_h_seconds", "h", (0.1, 1.0, 10.0), "kind").of("x")
    for value in seen:
        histogram.observe(value)

    found = read(registry)
    for bound in (0.1, 1.0, 10.0, math.inf):
        le = "+Inf" if bound == math.inf else f"{bound:g}".replace("1", "1", 1)
        matching = [
            v for (n, labels), v in found.items() if n.endswith("_bucket") and float(dict(labels)["le"]) == bound
        ]
        assert matching == [sum(value <= bound for value in seen)], le
    assert found["kvnet_h_seconds_count", (("kind", "x"),)] == len(seen)
    assert found["kvnet_h_seconds_sum", (("kind", "x"),)] == pytest.approx(sum(seen))


def test_counters_and_numbers_that_are_none_are_written_as_prometheus_reads_them() -> None:
    registry = Registry()
    registry.counter("kvnet_c_total", "c").of().add(2)
    gauge = registry.gauge("kvnet_g", "g", "of")
    for name, value in (("inf", math.inf), ("minus", -math.inf), ("nan", math.nan), ("half", 0.5)):
        gauge.of(name).set(value)

    text = registry.render()
    assert "# TYPE kvnet_c_total counter\nkvnet_c_total 2\n" in text
    assert 'kvnet_g{of="inf"} +Inf' in text
    assert 'kvnet_g{of="minus"} -Inf' in text
    assert 'kvnet_g{of="nan"} NaN' in text
    assert 'kvnet_g{of="half"} 0.5' in text


def test_a_family_does_not_grow_without_end() -> None:
    registry = Registry()
    counter = registry.counter("kvnet_c_total", "c", "of")
    for number in range(10 * MOST_SERIES):
        counter.of(str(number)).add()

    found = read(registry)
    assert len(found) == MOST_SERIES + 1
    assert found["kvnet_c_total", (("of", OTHER),)] == 9 * MOST_SERIES


def test_a_name_is_given_once_and_labels_are_given_in_full() -> None:
    registry = Registry()
    gauge = registry.gauge("kvnet_g", "g", "of")
    with pytest.raises(ValueError, match="already"):
        registry.counter("kvnet_g", "again")
    with pytest.raises(ValueError, match="labels"):
        gauge.of()
