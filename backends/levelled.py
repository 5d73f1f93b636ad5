"""A store as a cluster of an older schema has it: what is written here is written so that everybody there can read it.

While a cluster is upgraded, controllers and workers of two versions write side by side. The newer ones know what the
older ones cannot read, and leave it out until the cluster's level is raised (`controller.upgrade`). A version that is
older than the level writes nothing at all. Costs nothing once the level is the newest: values pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backends.passing import PassingStore
from backends.store import Check, Put, Refused, Revision, Store, Write
from kvnet import codec, places


class LevelledStore(PassingStore):
    """`level`: the cluster's, as it is known at the moment."""

    def __init__(self, inner: Store, level: Callable[[], int]) -> None:
        super().__init__(inner)
        self._level = level

    async def commit(self, checks: Sequence[Check], writes: Sequence[Write]) -> Revision:
        level = self._level()
        if level > codec.SCHEMA:
            raise Refused(
                f"the cluster writes schema {level}, and this kvnet knows up to {codec.SCHEMA}: "
                "upgrade it; nothing was written"
            )
        if level < codec.SCHEMA:
            writes = [lowered(write, level) for write in writes]
        return await super().commit(checks, writes)


def lowered(write: Write, level: int) -> Write:
    """For readers who know no more than that schema."""
    if not isinstance(write, Put) or codec.schema_of(write.value) <= level:
        return write
    model = places.model_of(write.key)
    return write if model is None else Put(write.key, codec.lowered(model, write.value, level), write.session)
