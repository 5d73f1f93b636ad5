"""An error as a user of `docker` reads it: one line, with the option that it is about as it was typed.

The controller speaks of fields and of its own command line; here there is neither. Pure.
"""

from __future__ import annotations

from kvnet.errors import Invalid, KvnetError
from worker.runtimes.docker.options import FIELDS, IPAM

OPTIONS = "/options/"


class Mistyped(Invalid):
    """A value of the user's own, which Docker passed on as it is: the call itself is a good one."""


def words_of(error: KvnetError) -> str:
    option = _option_of(error)
    detail = f"{option}: {error.detail}" if option else error.detail
    text = f"{detail}; {_typed(error.fix)}" if error.fix else detail
    return " ".join(text.split())


def _option_of(error: KvnetError) -> str:
    """ "" where the detail speaks of it itself, or it is none."""
    pointer = error.errors[0].pointer if error.errors else ""
    if pointer.startswith(OPTIONS):
        flag, name = "-o ", pointer.removeprefix(OPTIONS).replace("~1", "/").replace("~0", "~")
    elif (name := pointer.removeprefix("/")) in IPAM:
        flag = "--ipam-opt "
    else:
        flag = "-o "
    is_option = pointer.startswith(OPTIONS) or name in FIELDS or name in IPAM
    return flag + name if is_option and name not in error.detail else ""


def _typed(fix: str) -> str:
    return fix.replace("accept the overlap with --force", "accept the overlap with -o force=true")
