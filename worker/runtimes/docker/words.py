"""An error as a user of `docker` reads it: one line, with the option that it is about as it was typed.

The controller speaks of fields and of its own command line; here there is neither. Pure.
"""

from __future__ import annotations

from kvnet.errors import Invalid, KvnetError
from worker.runtimes.docker.options import FIELDS, IPAM

OPTIONS = "/options/"
FLAGS = {"subnets": "--subnet", "holds": "--subnet", "labels": "--label"}
# The API's advice for a body with several faults, which is of no use to who wrote none.
ABOUT_BODIES = "correct what 'errors' names"


class Mistyped(Invalid):
    """A value of the user's own, which Docker passed on as it is: the call itself is a good one."""


def words_of(error: KvnetError) -> str:
    pointer = error.errors[0].pointer if error.errors else ""
    detail = error.detail.removeprefix(f"{pointer}:").strip() if pointer else error.detail
    option = _option(pointer)
    if option and option.rpartition(" ")[2] not in detail:
        detail = f"{option}: {detail}"
    is_advice = error.fix and not error.fix.startswith(ABOUT_BODIES)
    text = f"{detail}; {_typed(error.fix)}" if is_advice else detail
    return " ".join(text.split())


def _option(pointer: str) -> str:
    """As it was typed; "" for what no option says."""
    if pointer.startswith(OPTIONS):
        return "-o " + pointer.removeprefix(OPTIONS).replace("~1", "/").replace("~0", "~")
    name = pointer.removeprefix("/")
    if name in IPAM:
        return f"--ipam-opt {name}"
    return f"-o {name}" if name in FIELDS else FLAGS.get(name, "")


def _typed(fix: str) -> str:
    return fix.replace("accept the overlap with --force", "accept the overlap with -o force=true")
