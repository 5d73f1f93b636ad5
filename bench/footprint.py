"""What is there all the time: a worker's memory and idleness, and the check of a token in every request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from statistics import median
from typing import Any

from backends.memory import MemoryStore
from backends.store import Put
from bench import inside
from bench.figures import Figure
from bench.sizes import pick
from controller.security.authentication import Authenticator, Credentials
from controller.tables import Table
from kvnet import codec, keys, sentinel
from kvnet.security import Role, Token, hash_of
from kvnet.sentinel import Meta

TOKENS = 1_000
ROUNDS = 7
SECRET = "s" * 43
READY_S = 10.0


def figures(*, quick: bool = False) -> Iterator[Figure]:
    yield from asyncio.run(_tokens(pick(quick, 50, 5_000)))
    yield from inside.run_inside("bench.worker")


async def _tokens(times: int) -> list[Figure]:
    """From a header's text to the principal, among a thousand tokens: one that is good, and one that nobody knows."""
    async with MemoryStore() as store:
        names = [f"{number:012x}" for number in range(TOKENS)]
        for name in names:
            await store.commit([], [Put(keys.TOKENS + name, codec.encode(_token(name)))])
        tokens: Table[Token] = Table(store, keys.TOKENS, partial(codec.decode, Token), time.monotonic, Random(1))
        meta: Table[Meta] = Table(store, keys.META, sentinel.decode, time.monotonic, Random(1))
        tables: list[Table[Any]] = [tokens, meta]
        following = [asyncio.create_task(table.mirror.run()) for table in tables]
        for table in tables:
            await table.mirror.until_in_step(READY_S)
        known = Credentials(tokens, meta)
        authenticator = Authenticator(lambda: known, time.time)
        good, unknown = (f"kvnet_{name}_{SECRET}" for name in (names[TOKENS // 2], "f" * 12))
        scope: dict[str, Any] = {"client": ("192.0.2.1", 1)}
        assert authenticator.bearer(good, scope) is not None
        figures = [
            Figure("token_check", _cost_us(lambda: authenticator.bearer(good, scope), times), "us", at_most=50),
            Figure("token_check_unknown", _cost_us(lambda: authenticator.bearer(unknown, scope), times), "us"),
        ]
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        return figures


def _token(name: str) -> Token:
    return Token(name, f"token-{name}", Role.OPERATOR, 0.0, "bench", hash=hash_of(SECRET))


def _cost_us(work: Callable[[], object], times: int) -> float:
    """Of the processor's time: whoever else is busy does not count."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - began) / times * 1e6)
    return median(rounds)
