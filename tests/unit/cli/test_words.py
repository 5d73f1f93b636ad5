"""Words, tables and escapes: pure functions of the command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.safe import safe, safe_lines
from cli.table import render, shortened, width
from cli.words import age, amount, few, natural, pairs, seconds_since, share, use_of


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, ""), (-3, "0s"), (0.4, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (400_000, "4d")],
)
def test_an_age_has_two_figures_or_so(seconds: float | None, shown: str) -> None:
    assert age(seconds) == shown


def test_a_moment_that_cannot_be_read_has_no_age() -> None:
    assert seconds_since("1970-01-01T00:01:40Z", 130.0) == 30.0
    assert seconds_since("yesterday", 130.0) is None
    assert seconds_since(None, 130.0) is None


@pytest.mark.parametrize(
    ("used", "size", "shown"),
    [
        (0, 253, "0/253 (0%)"),
        (1, 253, "1/253 (<1%)"),
        (3, 253, "3/253 (1%)"),
        (252, 253, "252/253 (>99%)"),
        (253, 253, "253/253 (100%)"),
        (2, 2**64 - 2, "2/2^64 (<1%)"),
        (0, 0, "0/0"),
    ],
)
def test_a_share_is_zero_or_full_only_if_it_is(used: int, size: int, shown: str) -> None:
    assert share(used, size) == shown


def test_huge_amounts_are_powers_of_two() -> None:
    assert amount(65_533) == "65533"
    assert amount(2**64) == amount(2**64 - 2) == amount(2**64 - 70_000) == "2^64"


def test_use_counts_the_scarce_family() -> None:
    four = {"cidr": "10.1.0.0/24", "used": 3, "size": 253}
    six = {"cidr": "fd00::/64", "used": 2, "size": 2**64 - 2}

    assert use_of([four, six]) == (3, 253)
    assert use_of([six]) == (2, 2**64 - 2)


def test_few_names_are_shown_and_the_rest_is_counted() -> None:
    assert few([]) == ""
    assert few(["h1", "h2", "h3"]) == "h1,h2,h3"
    assert few(["h1", "h2", "h3", "h4", "h5"]) == "h1,h2,h3,+2"


def test_labels_are_sorted_pairs() -> None:
    assert pairs({"b": "2", "a": ""}) == "a,b=2"


def test_numbers_inside_texts_sort_by_value() -> None:
    assert sorted(["h10", "h2", "10.1.0.10", "10.1.0.9"], key=natural) == ["10.1.0.9", "10.1.0.10", "h2", "h10"]


@given(st.lists(st.text()))
def test_any_texts_can_be_sorted(texts: list[str]) -> None:
    assert sorted(sorted(texts, key=natural)) == sorted(texts)


def test_escape_sequences_are_shown_and_never_sent() -> None:
    assert safe("\x1b[31mred\x07") == "\\x1b[31mred\\x07"
    assert safe("a\u202eb\x9bc\nd") == "a\\u202eb\\x9bc\\nd"
    assert safe_lines("one\ntw\x1bo") == "one\ntw\\x1bo"
    assert safe("Grüße, 世界") == "Grüße, 世界"


@given(st.text(st.characters()))
def test_nothing_unprintable_is_left_of_any_text(text: str) -> None:
    assert safe(text).isprintable()


def test_a_table_is_aligned_text_without_trailing_spaces() -> None:
    lines = render(["NAME", "COUNT", "LAST"], [["a", "5", "x"], ["long-name", "12", ""]], right=[1])

    assert lines == ["NAME        COUNT   LAST", "a               5   x", "long-name      12   -"]


@given(st.lists(st.tuples(st.text(st.characters(categories=["L", "N"])), st.just("x")), max_size=8))
def test_the_second_column_starts_at_the_same_place_in_every_row(rows: list[tuple[str, str]]) -> None:
    starts = {width(line[: line.rindex("x")]) for line in render(["A", "x"], rows)}

    assert len(starts) == 1


def test_a_long_cell_is_cut_with_a_mark() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
