"""Controllers on one store, and clients with tokens: what the tests of security stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from tests.api.under_test import DEADLINE_S, Api, problem_of, running

ADMIN = {"name": "root", "role": "admin"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Guarded:
    """A controller whose cluster asks for tokens; `admin` is the first one's client."""

    def __init__(self, api: Api, token: str) -> None:
        self.api = api
        self.token = token
        self.made: dict[str, str] = {}

    def client(self, token: str | None) -> httpx2.AsyncClient:
        headers = {} if token is None else bearer(token)
        return httpx2.AsyncClient(base_url=self.api.url, headers=headers, timeout=DEADLINE_S)

    @property
    def admin(self) -> httpx2.AsyncClient:
        return self.api.http

    async def make(self, name: str, role: str, **more: Any) -> str:
        answer = await self.admin.post("/v1/tokens", json={"name": name, "role": role, **more})
        assert answer.status_code == 201, answer.text
        self.made[name] = answer.json()["id"]
        return str(answer.json()["token"])


@asynccontextmanager
async def guarded(url: str, token: str = "", **settings: Any) -> AsyncIterator[Guarded]:
    """`token`: of an admin, if the cluster has tokens already."""
    async with running(url, hosts=() if token else ("h0", "h1", "h2"), **settings) as api:
        if not token:
            made = await api.http.post("/v1/tokens", json=ADMIN)
            assert made.status_code == 201, made.text
            token = str(made.json()["token"])
        api.http.headers.update(bearer(token))
        yield Guarded(api, token)


__all__ = ["ADMIN", "Guarded", "bearer", "guarded", "problem_of"]
