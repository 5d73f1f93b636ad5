"""The exponent of a cost is found, whatever its factor, and plots put points where they belong."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import svg
from bench.fit import LINEAR, curve, exponent

SIZES = (10, 100, 1_000, 10_000)


@given(power=st.floats(-1.0, 3.0), factor=st.floats(1e-6, 1e6))
def test_a_power_law_has_its_exponent(power: float, factor: float) -> None:
    assert exponent([(x, factor * x**power) for x in SIZES]) == pytest.approx(power, abs=1e-6)


def test_one_size_says_nothing() -> None:
    assert exponent([(10, 1.0), (10, 2.0)]) == 0.0


def test_what_is_quadratic_is_not_met_and_what_is_linear_is() -> None:
    assert curve("linear", "ms", [(x, 3.0 * x) for x in SIZES]).is_met
    assert not curve("quadratic", "ms", [(x, 3.0 * x * x) for x in SIZES]).is_met
    assert LINEAR < 2


def test_a_straight_line_on_logarithmic_axes_is_drawn_straight() -> None:
    text = svg.curves("costs", "how many", "ms", {"linear": [(x, 2.0 * x) for x in SIZES]})
    line = text[text.index('points="') + 8 :].split('"')[0]
    places = [tuple(map(float, place.split(","))) for place in line.split()]
    steps = {(round(b[0] - a[0]), round(b[1] - a[1])) for a, b in itertools.pairwise(places)}

    assert len(steps) == 1
    assert next(iter(steps))[1] < 0, "up is more"


def test_words_of_a_plot_cannot_break_it() -> None:
    assert "&lt;b&gt; &amp;" in svg.bars("<b> &", "ms", {"a<": {"b>": 1.0}})


@pytest.mark.parametrize(("value", "told"), [(0.5, "0.5"), (999, "999"), (1500, "1.5k"), (2e6, "2M")])
def test_numbers_are_short(value: float, told: str) -> None:
    assert svg.short(value) == told
