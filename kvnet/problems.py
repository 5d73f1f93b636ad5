"""Errors as RFC 9457 problem objects, and back: one translation for the API, the worker's socket and clients.

What goes out can be read back into the same class with the same detail, fix, fields and context. A code that this
version does not know becomes a class of its own, with that code, so that nothing is lost on the way to the user.
Never touches HTTP or JSON text; plain dictionaries only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from kvnet.errors import FieldError, KvnetError

TYPE_PREFIX = "/problems/"
STANDARD_MEMBERS = frozenset({"type", "title", "status", "detail", "instance", "code", "fix", "errors"})


def to_problem(error: KvnetError, *, instance: str = "") -> dict[str, Any]:
    """The problem object of an error. `instance` is the id of the request that failed."""
    problem: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance or error.request_id,
        "code": error.code,
        "fix": error.fix,
        "errors": [{"pointer": e.pointer, "detail": e.detail} for e in error.errors],
    }
    return {**{k: v for k, v in error.context.items() if k not in STANDARD_MEMBERS}, **problem}


def from_problem(problem: Mapping[str, Any], *, status: int = 500) -> KvnetError:
    """The error that a problem object tells of. Tolerates any object: what is missing is filled in from the status."""
    code = str(problem.get("code") or "error")
    shown_status = problem.get("status")
    status = shown_status if isinstance(shown_status, int) else status
    title = str(problem.get("title") or KvnetError.title)
    error = _class_of(code, status, title)(
        str(problem.get("detail") or title),
        fix=str(problem.get("fix") or ""),
        errors=tuple(_field_errors(problem.get("errors"))),
        context={k: v for k, v in problem.items() if k not in STANDARD_MEMBERS},
    )
    error.request_id = str(problem.get("instance") or "")
    return error


def _field_errors(items: Any) -> Iterator[FieldError]:
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping):
            yield FieldError(str(item.get("pointer", "")), str(item.get("detail", "")))


@lru_cache(maxsize=128)
def _class_of(code: str, status: int, title: str) -> type[KvnetError]:
    for cls in _known(KvnetError):
        if cls.code == code:
            return cls
    return type(
        "UnknownProblem", (KvnetError,), {"code": code, "status": status, "title": title, "__module__": __name__}
    )


def _known(cls: type[KvnetError]) -> Iterator[type[KvnetError]]:
    for subclass in cls.__subclasses__():
        if subclass.__module__ != __name__:
            yield subclass
            yield from _known(subclass)
