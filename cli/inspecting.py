"""What every `inspect` does: each of the things that were named, whole, as one array.

One that is not there is told, and the others are shown all the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from cli import output
from cli.failures import Failures
from cli.session import current
from kvnet.errors import KvnetError

T = TypeVar("T")


async def inspected(names: Iterable[T], get: Callable[[T], Awaitable[object]]) -> None:
    session = current()
    failures, found = Failures(session), []
    for name in names:
        try:
            found.append(await get(name))
        except KvnetError as error:
            failures.add(error)
    output.show_data(found, session.output)
    failures.exit_if_any()
