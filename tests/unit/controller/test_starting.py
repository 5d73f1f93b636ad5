"""A controller that starts while the store is not all there says so, in one sentence."""

from __future__ import annotations

import pytest

from backends.memory import MemoryStore
from backends.store import Snapshot, Unavailable
from kvnet.errors import StoreUnavailable
from tests.unit.controller.kit import FailingStore, opened

pytestmark = pytest.mark.anyio


class Listless(FailingStore):
    async def list(self, prefix: str) -> Snapshot:
        raise Unavailable("no answer")


async def test_a_store_that_answers_but_cannot_list_ends_the_start_with_its_reason() -> None:
    store = MemoryStore()
    async with opened(store):
        pass

    with pytest.raises(StoreUnavailable, match="did not answer within"):
        async with opened(Listless(store), start_timeout_s=0.2):
            pass
