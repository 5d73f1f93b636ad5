"""What a credential looks like, and what stands in its place wherever text goes where others read: `***`.

The id of a token stays, so that an operator sees whose it was. A last line of defence, behind code that never puts a
secret into a text; so it may cover too much, and never fails. Pure.
"""

from __future__ import annotations

import re

COVERED = "***"
# A token of kvnet's: its id is public. An issuer's token (JWT): all of it goes.
_TOKEN = re.compile(
    r"(?P<id>kvnet_[0-9a-f]{12})_[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"
)
_COOKIE = re.compile(r"(?P<name>\bkvnet_session=)[^\s;,\"']+")


def has_token(text: str) -> bool:
    return ("kvnet_" in text or "eyJ" in text) and _TOKEN.search(text) is not None


def without_tokens(text: str) -> str:
    """Tokens and our cookie covered; the rest as it is."""
    if "kvnet_" not in text and "eyJ" not in text:
        return text
    covered = _TOKEN.sub(lambda found: f"{found['id']}_{COVERED}" if found["id"] else COVERED, text)
    return _COOKIE.sub(lambda found: f"{found['name']}{COVERED}", covered)
