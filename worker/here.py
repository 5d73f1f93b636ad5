"""Looks at this host as its worker would, without one: for when no worker answers and somebody is there as root.

Reads the kernel, and the records that the worker left in its state directory. Takes no lock and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datapath.trace.seen import Inner, Question, from_plain, to_plain
from kvnet import codec
from kvnet.errors import StateUnusable, StoreBroken
from kvnet.rules import IDENTIFIER
from worker.attachments import FOLDER, Phase, Record
from worker.kernel.linux import LinuxKernel
from worker.kernel.scene import Place, look
from worker.looking import place_of, sight_of


async def look_here(question: Mapping[str, Any], state_dir: Path) -> dict[str, Any]:
    """
    Raises:
        Invalid: not a question.
        StateUnusable: there is no such state directory, or it may not be read.
        MissingCapability, Unfit, KernelRefused: this host cannot be looked at.
    """
    asked = from_plain(Question, dict(question), "/question")
    places = dict(_places(asked.inner, state_dir))
    async with await LinuxKernel.open() as kernel:
        return to_plain(await sight_of(kernel, asked, places, _look))


def _look(asked: Question, places: Mapping[str, Place], with_own: bool) -> Any:
    return look(asked, places, with_own=with_own)


def _places(inner: tuple[Inner, ...], state_dir: Path) -> Iterator[tuple[str, Place]]:
    folder = state_dir / FOLDER
    for one in inner:
        if not IDENTIFIER.match(one.endpoint):
            continue
        try:
            record = codec.decode(Record, (folder / one.endpoint).read_bytes())
        except FileNotFoundError:
            if not state_dir.is_dir():
                raise StateUnusable(
                    f"there is no state directory {state_dir}", fix="name that of this host's worker with --state-dir"
                ) from None
            continue
        except (OSError, StoreBroken, TypeError) as error:
            raise StateUnusable(
                f"the record of {one.endpoint} cannot be read: {error}", fix="run it as root"
            ) from error
        if record.phase is not Phase.DETACHING:
            yield one.endpoint, place_of(record)
