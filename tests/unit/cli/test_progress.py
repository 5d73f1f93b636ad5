"""Progress: only for who looks at a terminal, and gone when it is over."""

from __future__ import annotations

import threading
from io import StringIO

from hypothesis import given
from hypothesis import strategies as st

from cli.progress import EMPTY, ERASE, FULL, Progress, bar


class Terminal(StringIO):
    """Tells when something was written for the second time."""

    encoding = "utf-8"  # type: ignore[misc]

    def __init__(self) -> None:
        super().__init__()
        self.is_drawn = threading.Event()

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        if "2/5" in self.getvalue():
            self.is_drawn.set()


@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(3, 40))
def test_only_nothing_is_shown_as_empty_and_only_all_as_full(done: int, total: int, width: int) -> None:
    done = min(done, total)
    shown = bar(done, total, width)

    assert len(shown) == width
    assert (EMPTY not in shown) == (done == total)
    assert (FULL not in shown) == (done == 0)


def test_on_a_terminal_it_is_drawn_and_wiped() -> None:
    terminal = Terminal()

    with Progress("removing", terminal) as progress:
        progress.step(2, 5)
        assert terminal.is_drawn.wait(10)

    assert "removing" in terminal.getvalue()
    assert terminal.getvalue().endswith(ERASE)


def test_elsewhere_nothing_is_written() -> None:
    pipe = StringIO()

    with Progress("removing", pipe) as progress:
        progress.step(1, 2)

    assert pipe.getvalue() == ""


def test_what_others_named_cannot_speak_to_the_terminal() -> None:
    assert "\x1b" not in Progress("testing \x1b]0;mine\x07", Terminal()).line("|")
