"""Who may come in: tokens, whether they are asked for, and who asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvnet.client.connection import Connection
from kvnet.client.places import segment


class Access(Connection):
    async def create_token(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """With its text, which nobody can find out again. Not repeated: a second one would be another token."""
        return await self.request("POST", "/v1/tokens", body=dict(body))

    async def tokens(self) -> list[dict[str, Any]]:
        """All of them: they come in one page."""
        return list((await self.request("GET", "/v1/tokens"))["items"])

    async def get_token(self, token: str) -> dict[str, Any]:
        return await self.request("GET", f"/v1/tokens/{segment(token)}")

    async def rotate_token(self, token: str, *, grace_s: float = 0.0) -> dict[str, Any]:
        return await self.request("POST", f"/v1/tokens/{segment(token)}/rotate", body={"grace_s": grace_s})

    async def delete_token(self, token: str) -> None:
        await self.request("DELETE", f"/v1/tokens/{segment(token)}")

    async def whoami(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/whoami")

    async def authentication(self) -> dict[str, Any]:
        return await self.request("GET", "/v1/authentication")

    async def require_authentication(self, *, required: bool) -> dict[str, Any]:
        return await self.request("PUT", "/v1/authentication", body={"required": required}, repeatable=True)

    async def authority(self) -> dict[str, Any]:
        """The CA's certificate, which proves nothing by itself. Raises: NotFound: it has none."""
        return await self.request("GET", "/v1/ca")
