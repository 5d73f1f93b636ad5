"""Errors that are kept, without the frames they came through.

A frame keeps all that its function had: connections with their buffers, tasks, futures. Where one of these keeps the
error in turn, they are a ring, which only the garbage collector opens; and that is rarely asked in processes that are
tuned for short pauses. So who keeps an error, or raises another in its place, lets go of its frames. Never changes what
an error says.
"""

from __future__ import annotations

from typing import TypeVar

E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """The same error. Those that it came of have none any more, either; what it only came across keeps its own."""
    todo: list[BaseException] = [error]
    while todo:
        one = todo.pop()
        one.__traceback__ = None
        if one.__cause__ is not None:
            todo.append(one.__cause__)
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions
    return error
