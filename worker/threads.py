"""Threads of one purpose's own: what hangs in the kernel there keeps nobody else waiting for a thread.

A thread cannot be ended from outside, so a question that was given up may keep its thread for as long as the kernel
likes; in the loop's own pool a few of these would stop attaches and the worker's own files. Knows nothing of its work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Inside(Protocol):
    """Runs a function in a thread; `asyncio.to_thread` is one."""

    def __call__(self, function: Callable[..., T], /, *arguments: Any) -> Awaitable[T]: ...


class Threads:
    """At most `most` at once; who comes later waits, and leaves nothing behind when it gives up before its turn."""

    def __init__(self, most: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)

    async def run(self, function: Callable[..., T], /, *arguments: Any) -> T:
        bound = partial(copy_context().run, function, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, bound)
