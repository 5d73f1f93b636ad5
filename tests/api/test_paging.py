"""Pages as a pure function: nothing twice, nothing lost, whatever happens between two pages."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.paging import MAX_LIMIT, Cursor, Key, PageAsked, page
from kvnet.errors import Invalid

names = st.sets(st.text(max_size=6), max_size=40)


def key(name: str) -> Key:
    return (name,)


def shown(name: str) -> dict[str, str]:
    return {"name": name}


def pages(before: set[str], after: set[str], limit: int) -> list[str]:
    """All names told, page by page; what there is changes from `before` to `after` behind the first page."""
    told: list[str] = []
    cursor, there = None, before
    while True:
        asked = PageAsked.parse(limit, cursor, {"driver": "overlay"})
        answer = page(sorted(there), key, asked, 7, shown)
        told += [item["name"] for item in answer["items"]]
        cursor, there = answer["next_cursor"], after
        if cursor is None:
            return told


@given(names, st.integers(1, MAX_LIMIT))
def test_a_list_that_stands_still_is_told_whole_and_in_order(there: set[str], limit: int) -> None:
    assert pages(there, there, limit) == sorted(there)


@given(names, names, st.integers(1, 5))
def test_what_stays_is_told_exactly_once_while_other_things_come_and_go(
    before: set[str], after: set[str], limit: int
) -> None:
    told = pages(before, after, limit)

    assert len(told) == len(set(told))
    assert told == sorted(told)
    assert before & after <= set(told)
    assert set(told) <= before | after


@given(st.text(max_size=80))
def test_a_made_up_cursor_is_refused_and_nothing_worse(text: str) -> None:
    with pytest.raises(Invalid) as raised:
        PageAsked.parse(10, text, {})

    assert raised.value.errors[0].pointer == "/query/cursor"


@pytest.mark.parametrize("plain", ["[]", '["a", 1, 2]', '[["a"], "1", 2]', "[[1], 1, 2]", "[[[[", "1" * 5000])
def test_a_cursor_with_other_contents_is_refused(plain: str) -> None:
    with pytest.raises(Invalid):
        PageAsked.parse(10, base64.urlsafe_b64encode(plain.encode()).decode(), {})


def test_a_cursor_does_not_fit_a_list_with_other_filters() -> None:
    asked = PageAsked.parse(1, None, {"driver": "overlay", "name": None})
    cursor = page(["a", "b"], key, asked, 1, shown)["next_cursor"]

    assert PageAsked.parse(1, cursor, {"name": None, "driver": "overlay"}).after == ("a",)
    with pytest.raises(Invalid, match="other filters"):
        PageAsked.parse(1, cursor, {"driver": "bridge"})


def test_a_cursor_keeps_the_revision_of_its_first_page() -> None:
    first = page(["a", "b", "c"], key, PageAsked.parse(1, None, {}), 5, shown)
    second = page(["a", "b", "c"], key, PageAsked.parse(1, first["next_cursor"], {}), 9, shown)

    assert PageAsked.parse(1, second["next_cursor"], {}).revision == 5
    assert second["revision"] == 9


def test_a_cursor_is_safe_in_a_query() -> None:
    text = Cursor(("ö?&=/", "x"), 1, 2).text()

    assert text.replace("-", "").replace("_", "").isalnum()
