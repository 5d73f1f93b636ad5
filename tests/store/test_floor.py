"""The floor and what a key is: looked at for all keys at once, with the same verdict as for each by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.store import Absent, Delete, Put, TooLarge, require_floor, require_key

parts = st.text(alphabet="ab/ \n\x00é😀.:", max_size=6) | st.just("x" * 513)


def _verdict_of_each(keys: list[str]) -> int | type[Exception]:
    try:
        return sum(len(require_key(key)) for key in keys)
    except (TooLarge, ValueError) as error:
        return type(error)


@given(st.lists(parts, max_size=6, unique=True), st.booleans())
def test_all_keys_at_once_get_the_verdict_of_each(keys: list[str], written: bool) -> None:
    try:
        verdict: int | type[Exception] = require_floor(
            [] if written else [Absent(key) for key in keys], [Delete(key) for key in keys] if written else []
        )
    except (TooLarge, ValueError) as error:
        verdict = type(error)

    assert verdict == _verdict_of_each(keys)


def test_the_size_counts_keys_and_values_in_bytes() -> None:
    assert require_floor([Absent("é")], [Put("ab", b"123"), Delete("c")]) == 2 + 2 + 3 + 1


def test_the_key_that_is_written_twice_is_named() -> None:
    with pytest.raises(ValueError, match="b is written twice"):
        require_floor([], [Put("a", b""), Put("b", b""), Delete("b")])
