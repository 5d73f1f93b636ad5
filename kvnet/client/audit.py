"""The audit journal: who did what, whether it is as it was written, and all of it to take away."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from kvnet.client.connection import Connection
from kvnet.client.places import address, given
from kvnet.errors import ControllerUnreachable, UnexpectedAnswer
from kvnet.http import Lost, NotSent

SILENCE_S = 60.0
VERIFY_S = 120.0


class Audit(Connection):
    async def changes(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """The newest first, of what the query names: actor, source, kind, network, request_id, since, until, limit."""
        return await self.request("GET", "/v1/journal", query=given(query))

    async def verify_journal(self, head: str = "") -> dict[str, Any]:
        return await self.request("GET", "/v1/audit/verify", query=given({"head": head}), wait_s=VERIFY_S)

    async def export_journal(self, query: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Changes and seals, the oldest first, as they come; the last one is of the type `end`.

        Raises:
            ControllerUnreachable: it broke off; what was told is not all.
        """
        is_whole = False
        try:
            async with self.opened(address("/v1/audit/export", given(query)), SILENCE_S) as lines:
                async for line in lines:
                    told = _object(line)
                    is_whole = told.get("type") == "end"
                    yield told
        except (NotSent, Lost) as error:
            raise self.unreachable(error) from error
        if not is_whole:
            raise ControllerUnreachable(f"{self.url} broke the export off", fix="repeat it: what came is not all")


def _object(line: bytes) -> dict[str, Any]:
    try:
        told = json.loads(line)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise UnexpectedAnswer("a line of the export cannot be read", fix="repeat it")
    return told
