"""`python -m tests.upgrade.fields > tests/upgrade/fields.json`: with which schema each stored field came."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

from controller.audit.seal import Seal
from controller.leader import Leader
from kvnet import places
from kvnet.codec import SINCE
from kvnet.model import JournalEntry

ROOTS = (*places.stored_models(), JournalEntry, Leader, Seal)


def fields() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    waiting: list[type[Any]] = list(ROOTS)
    while waiting:
        model = waiting.pop()
        if model.__name__ in found:
            continue
        found[model.__name__] = {one.name: int(one.metadata.get(SINCE, 1)) for one in dataclasses.fields(model)}
        waiting += [inner for hint in typing.get_type_hints(model).values() for inner in _models_in(hint)]
    return dict(sorted(found.items()))


def _models_in(hint: Any) -> list[type[Any]]:
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type[Any], hint)]
    return [model for argument in typing.get_args(hint) for model in _models_in(argument)]


if __name__ == "__main__":
    print(json.dumps(fields(), indent=1))
