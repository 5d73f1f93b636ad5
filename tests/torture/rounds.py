"""The end of a round: everything is healed and quiet, and what is there is compared with what everybody was told.

Commits are held back at the gate meanwhile, so the state stands still but for what is still on its way. Then the round
is checked, in another process, while the next one runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backends.mirror import Mirror
from backends.store import Snapshot, StoreError
from controller.cluster import Cluster
from kvnet import codec, keys
from kvnet.claims import AddressClaim, ClaimKind
from kvnet.model import Network
from tests.torture.clients import Tally, things_of_network
from tests.torture.findings import Findings
from tests.torture.history import Recorder, Stream, read_rounds, still_open
from tests.torture.intervals import Ownership
from tests.torture.linearizable import Carry, check
from tests.torture.recording import Gate, RecordingStore
from tests.torture.wgl import is_linearizable, steps_of

POLL_S = 0.05
SAMPLE_STEPS, SAMPLES = 40, 20  # how much of a round gets a second opinion


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the checks carry from round to round."""

    carry: Carry = field(default_factory=Carry)
    ownership: Ownership = field(default_factory=Ownership)
    streams: tuple[Stream, ...] = ()


class Closing:
    """`judge`: a client without faults. `mirrors`: of everybody who watched through all the faults."""

    def __init__(
        self,
        judge: RecordingStore,
        mirrors: Mapping[str, Mirror],
        clusters: Sequence[Cluster],
        gate: Gate,
        quiet_s: float,
    ) -> None:
        self._judge = judge
        self._mirrors = mirrors
        self._clusters = clusters
        self._gate = gate
        self._quiet_s = quiet_s

    async def close(self, recorder: Recorder, tally: Tally, findings: Findings) -> None:
        """Leaves the gate closed."""
        self._gate.close()
        try:
            async with asyncio.timeout(self._quiet_s):
                await self._gate.until_idle()
        except TimeoutError:
            findings.blame("never-quiet", f"a commit had no answer within {self._quiet_s:g} s")
        await self._until_in_step(findings)
        for cluster in self._clusters[:1]:
            for finding in (await cluster.ipam.check()).findings:
                findings.blame("product-check", f"{finding.invariant}: {finding.detail}")
        snapshot = await self._final()
        released, tally.released = tally.released, {}
        op = recorder.number()
        recorder.write("ok", "held", op, "judge", value=holders(snapshot), gone=released)
        recorder.write("ok", "barrier", op, "judge")

    async def _final(self) -> Snapshot:
        return await self._judge.list_as("", is_final=True)

    async def _until_in_step(self, findings: Findings) -> None:
        behind: list[str] = ["?"]
        try:
            async with asyncio.timeout(self._quiet_s):
                while behind:
                    await asyncio.sleep(POLL_S)
                    try:
                        snapshot = await self._judge.list("")
                    except StoreError:
                        continue
                    behind = [f"{who}: {why}" for who, m in self._mirrors.items() if (why := difference(m, snapshot))]
        except TimeoutError:
            for one in behind:
                findings.blame("watch-missed-final-state", one)


def difference(mirror: Mirror, snapshot: Snapshot) -> str:
    """How a mirror differs from the store; empty when it does not."""
    there = {e.key: e.version for e in snapshot.entries if e.key.startswith(mirror.prefix)}
    known = {key: entry.version for key, entry in mirror.entries.items()}
    if known == there:
        return ""
    key = next(key for key in {*known, *there} if known.get(key) != there.get(key))
    return f"{key} at {known.get(key)}, the store has it at {there.get(key)}"


def holders(snapshot: Snapshot) -> dict[str, str]:
    """Thing -> owner, as the store has it."""
    found: dict[str, str] = {}
    for entry in snapshot.entries:
        if entry.key.startswith(keys.ADDRESSES):
            claim = codec.decode(AddressClaim, entry.value)
            if claim.kind is ClaimKind.ENDPOINT:
                network, address = keys.parse_address(entry.key)
                found[f"address {network}/{address}"] = claim.holder
        elif entry.key.startswith(keys.NETWORKS):
            network_ = codec.decode(Network, entry.value)
            found.update(dict.fromkeys(things_of_network(network_), network_.id))
    return found


def check_rounds(path: Path, start: int, end: int, before: Judgement) -> tuple[Findings, Judgement]:
    """Check the rounds in this part of the file. Runs in a process of its own."""
    findings, carry, ownership = Findings(), before.carry, before.ownership
    with path.open(encoding="utf-8") as file:
        file.seek(start)
        text = file.read(end - start)
    streams = before.streams
    for history in read_rounds(text.splitlines(), streams):
        found, after = check(history, carry)
        findings.add(found)
        ownership.follow(history.ownership, findings)
        if not carry.seen:  # the search starts from an empty store
            sampled = [steps for steps in steps_of(history).values() if 1 < len(steps) <= SAMPLE_STEPS][:SAMPLES]
            for steps in sampled:
                findings.judged["second opinions"] += 1
                if is_linearizable(steps) is False:
                    findings.blame("second-opinion", "no order explains it", *(step.id for step in steps))
        carry, streams = after, tuple(still_open(history))
    return findings, Judgement(carry, ownership, streams)


Say = Callable[[str], None]
