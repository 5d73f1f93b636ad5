"""Docker's JSON, read member by member: whatever is wrong is said with the member that is wrong.

An empty body is never "all defaults": Docker sends one when it repeats a request whose connection broke. Knows no
method. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

from kvnet.errors import Invalid
from kvnet.model import Address, Cidr
from kvnet.rules import MAC, MAX_LABELS, shown
from worker.runtimes.docker.words import Mistyped

MAX_TEXT = 4096
_ID = re.compile(r"[0-9A-Za-z]{1,64}\Z")
_PREFIX_LENGTH = re.compile(r"/(?:0|[1-9][0-9]{0,2})\Z")
T = TypeVar("T")


class Members:
    """One JSON object; reads its members by type. null is as good as absent, which is how Go writes nothing."""

    def __init__(self, plain: Mapping[str, Any], pointer: str = "") -> None:
        self._plain = plain
        self._pointer = pointer

    def text(self, name: str) -> str:
        found = self._of(name, str, "a text", "")
        if len(found) > MAX_TEXT or not found.isprintable():
            raise self.wrong(name, f"is longer than {MAX_TEXT} characters, or unprintable")
        return found

    def id(self, name: str) -> str:
        found = self.text(name)
        if not _ID.match(found):
            raise self.wrong(name, f"{shown(found)} is not an id of Docker's")
        return found

    def flag(self, name: str) -> bool:
        return self._of(name, bool, "true or false", False)

    def number(self, name: str, *, most: int) -> int:
        found = self._of(name, int, "a number", 0)
        if isinstance(found, bool) or not 0 <= found <= most:
            raise self.wrong(name, f"is not a number from 0 to {most}")
        return found

    def texts(self, name: str) -> dict[str, str]:
        found: dict[str, Any] = self._of(name, dict, "an object", {})
        if len(found) > MAX_LABELS or not all(isinstance(value, str) for value in found.values()):
            raise self.wrong(name, f"is not an object of at most {MAX_LABELS} texts")
        return found

    def object(self, name: str) -> Members:
        return Members(self._of(name, dict, "an object", {}), f"{self._pointer}/{name}")

    def objects(self, name: str, *, most: int) -> Iterator[Members]:
        found: list[Any] = self._of(name, list, "a list", [])
        if len(found) > most:
            raise self.wrong(name, f"has {len(found)} entries; at most {most}")
        for number, plain in enumerate(found):
            if not isinstance(plain, dict):
                raise self.wrong(f"{name}/{number}", "is not an object")
            yield Members(plain, f"{self._pointer}/{name}/{number}")

    def address(self, name: str) -> str:
        """Without a prefix length; "" if there is none."""
        text = self.text(name)
        return str(self._address(name, text)) if text else ""

    def interface(self, name: str) -> str:
        """The address of what Docker writes as ADDRESS/LENGTH; "" if there is none."""
        text = self.text(name)
        return str(self._address(name, text.partition("/")[0])) if text else ""

    def interfaces(self, name: str) -> dict[str, str]:
        found = self.texts(name)
        return {key: str(self._address(name, value.partition("/")[0])) for key, value in found.items()}

    def cidr(self, name: str) -> str:
        text = self.text(name)
        return str(self._cidr(name, text)) if text else ""

    def mac(self, name: str) -> str:
        text = self.text(name).lower()
        if text and not MAC.match(text):
            raise self.wrong(name, f"{shown(text)} is not a MAC address")
        return text

    def wrong(self, name: str, detail: str) -> Invalid:
        pointer = f"{self._pointer}/{name}"
        return Invalid.field(pointer, f"{pointer} {detail}")

    def _of(self, name: str, kind: type[T], what: str, default: T) -> T:
        found = self._plain.get(name)
        if found is None:
            return default
        if not isinstance(found, kind):
            raise self.wrong(name, f"is not {what}")
        return found

    def _address(self, name: str, text: str) -> Address:
        try:
            if "%" not in text:
                return ip_address(text)
        except ValueError:
            pass
        raise self.wrong(name, f"{shown(text)} is not an IP address")

    def _cidr(self, name: str, text: str) -> Cidr:
        try:
            if "%" in text or not _PREFIX_LENGTH.search(text):
                raise ValueError
            found = ip_interface(text)
        except ValueError:
            raise self.wrong(name, f"{shown(text)} is not a subnet like 10.1.0.0/24") from None
        if found.ip != found.network.network_address:
            raise Mistyped(f"{text} is an address inside a subnet, not a subnet", fix=f"give {found.network}")
        return found.network


def parsed(body: bytes) -> Members:
    """
    Raises:
        Invalid: empty, or not a JSON object.
    """
    if not body.strip():
        raise Invalid(
            "Docker sent no content, as it does when it repeats a call whose connection broke", fix="run it again"
        )
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError):
        raise Invalid("the request is not JSON") from None
    if not isinstance(plain, dict):
        raise Invalid("the request is not a JSON object")
    return Members(plain)


def success(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode() + b"\n"


def failure(text: str) -> bytes:
    """Docker reads one member here and the other there; it gets both everywhere."""
    return success({"Err": text, "Error": text})
