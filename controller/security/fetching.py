"""A small document over HTTPS, from where an operator said, off the loop and bounded. Follows nobody elsewhere."""

from __future__ import annotations

import asyncio
import urllib.request
from email.message import Message
from typing import IO

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


async def fetch(url: str) -> bytes:
    """
    Raises:
        OSError, ValueError: there is no such document, or it is too large.
        TimeoutError
    """
    async with asyncio.timeout(2 * TIMEOUT_S):
        return await asyncio.to_thread(_fetch, url)


def _fetch(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError("not an address of the web")
    asked = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "kvnet"})
    with urllib.request.build_opener(_Stay).open(asked, timeout=TIMEOUT_S) as answer:
        data: bytes = answer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return data
