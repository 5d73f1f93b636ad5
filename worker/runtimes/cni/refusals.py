"""What CNI's error numbers stand for here, and how an error of kvnet's becomes one.

Numbers below 100 are the specification's; those from 100 on are ours, one per kind of trouble. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from kvnet.errors import Invalid, KvnetError


class Number(IntEnum):
    INCOMPATIBLE = 1
    UNSUPPORTED_FIELD = 2
    BAD_ENVIRONMENT = 4
    UNREADABLE = 6
    BAD_CONFIGURATION = 7
    TRY_AGAIN = 11
    UNAVAILABLE = 50
    LIMITED = 51
    OTHER = 100
    ADDRESS = 101
    PORT = 102
    INTERFACE_THERE = 103
    KERNEL = 104
    NOT_AS_IT_SHOULD = 110
    LEFT_BEHIND = 111


BY_CODE: Mapping[str, Number] = {
    "namespace-not-found": Number.BAD_ENVIRONMENT,
    "invalid": Number.BAD_CONFIGURATION,
    "not-found": Number.BAD_CONFIGURATION,
    "not-supported": Number.BAD_CONFIGURATION,
    "ambiguous-name": Number.BAD_CONFIGURATION,
    "address-taken": Number.ADDRESS,
    "addresses-exhausted": Number.ADDRESS,
    "block-taken": Number.ADDRESS,
    "blocks-exhausted": Number.ADDRESS,
    "port-taken": Number.PORT,
    "ports-exhausted": Number.PORT,
    "kernel-refused": Number.KERNEL,
    "foreign-object": Number.KERNEL,
    "id-taken": Number.TRY_AGAIN,  # ids are nobody else's here: its earlier life is still on its way out
    "outcome-unknown": Number.TRY_AGAIN,
    "contention": Number.TRY_AGAIN,
    "network-naming": Number.TRY_AGAIN,
}
NETNS_POINTER = "/netns"
PASSING_STATUS = 503


class CniRefused(KvnetError):
    """A call that cannot be done; `number` says which kind of trouble."""

    code = "cni-refused"
    status = 422
    title = "The call cannot be done"

    def __init__(self, number: Number, detail: str, *, fix: str = "") -> None:
        super().__init__(detail, fix=fix)
        self.number = number


def number_of(error: KvnetError) -> Number:
    if isinstance(error, CniRefused):
        return error.number
    if isinstance(error, Invalid) and any(e.pointer == NETNS_POINTER for e in error.errors):
        return Number.BAD_ENVIRONMENT
    if error.status == PASSING_STATUS:
        return BY_CODE.get(error.code, Number.TRY_AGAIN)
    return BY_CODE.get(error.code, Number.OTHER)


def shown(error: KvnetError, version: str) -> dict[str, Any]:
    """The error object of the specification. A name of ours goes with the number, for who looks it up."""
    message = error.detail if isinstance(error, CniRefused) else f"{error.detail} [{error.code}]"
    fields = [f"{e.pointer}: {e.detail}" for e in error.errors] if len(error.errors) > 1 else []
    details = "; ".join(filter(None, (*fields, error.fix)))
    return {"cniVersion": version, "code": int(number_of(error)), "msg": message, "details": details}
