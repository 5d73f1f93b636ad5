"""Where things are at a controller: its address, and the paths of resources. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kvnet.errors import Invalid
from kvnet.http import Target
from kvnet.tls import NO_TRUST, Trust


def address(path: str, query: Mapping[str, Any] | None) -> str:
    return f"{path}?{urlencode(query, doseq=True)}" if query else path


def segment(text: str) -> str:
    """One segment of a path. A slash would reach another resource, because servers decode it before they look."""
    if text in ("", ".", "..") or "/" in text:
        raise Invalid(f"{text!r} is not a name or id", fix="give a name or an id")
    return quote(text, safe=":")


def given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in query.items() if value or (value == 0 and key == "since")}


def targets_of(urls: str, trust: Trust = NO_TRUST) -> tuple[tuple[Target, ...], str]:
    """Where controllers listen (several: separated by commas), and what all paths begin with.

    Raises:
        Invalid: one of them is no address of a controller, or their paths differ.
        CertificateUnusable: a file of `trust`.
    """
    found = [_target_of(url.strip(), trust) for url in urls.split(",")]
    if len({prefix for _, prefix in found}) > 1:
        raise Invalid(f"the controllers of {urls!r} are below different paths", fix="give those of one cluster")
    return tuple(target for target, _ in found), found[0][1]


def _target_of(url: str, trust: Trust) -> tuple[Target, str]:
    """Where it listens, and what all paths begin with (behind a proxy that serves other things, too)."""
    try:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path:
            return Target.parse(url), ""
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            if parts.username is not None:
                raise Invalid(
                    "the address of the controller carries a user name or password, which it has no use for",
                    fix="leave it out; a token comes from KVNET_TOKEN or --token-file",
                )
            return Target.parse(f"{parts.scheme}://{parts.netloc}", trust), parts.path.rstrip("/")
    except ValueError:
        pass  # a broken IPv6 address, a port that is none
    raise Invalid(
        f"{url!r} is not the address of a controller",
        fix="write http://host:port, https://host:port or unix:///path/of/the.sock",
    )
