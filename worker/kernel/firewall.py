"""Our nftables tables: brings them to a content, and reads them back.

Written by `nft -f -` in one transaction each time, read without a process. Whether the rules are untouched is known by
a seal: a fingerprint of what the kernel made of them, kept as the name of an empty chain among them. So a restarted
worker finds its rules intact, and rules that anybody changed (or another version made) are replaced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import NamedTuple

from datapath.objects import Firewall
from kvnet.errors import Unfit
from worker.kernel import programs
from worker.kernel.elements import difference
from worker.kernel.nftables import NftablesReader, Tables
from worker.kernel.rules import replacement, sealing, unsealing

NFT_TIMEOUT_S = 15.0


def find_nft(environment: Mapping[str, str] = os.environ) -> str:
    """The `nft` program: $KVNET_NFT, else in PATH, else beside the Python interpreter.

    Raises:
        Unfit: there is none; says how to get it.
    """
    told = environment.get("KVNET_NFT")
    if told:
        if os.access(told, os.X_OK):
            return told
        raise Unfit(f"KVNET_NFT is {told}, which cannot be run", fix="point it to the 'nft' program, or unset it")
    found = programs.find("nft", environment)
    if found is None:
        raise Unfit(
            "the program 'nft' is missing",
            fix="install the package nftables, or set KVNET_NFT to where the program is",
        )
    return found


class Known(NamedTuple):
    """What the tables held at a generation of the kernel's: as long as that is the same, they hold it still."""

    generation: int
    firewall: Firewall | None


class FirewallTables:
    """Belongs to the kernel thread: `nft` works in the namespace of the thread that starts it."""

    def __init__(self, nft: str, reader: NftablesReader) -> None:
        self._nft = nft
        self._reader = reader
        self._seal = ""  # of the rules as this kernel and this `nft` make them, once known
        self._known: Known | None = None

    def read(self) -> Firewall | None:
        """None where the tables are missing, or not as we left them."""
        before = self._reader.generation()
        if self._known is not None and self._known.generation == before:
            return self._known.firewall
        firewall = self._intact(self._reader.read())
        if self._reader.generation() == before:
            self._known = Known(before, firewall)
        return firewall

    def set(self, firewall: Firewall) -> None:
        """Raises: OSError with nft's words; nothing was changed then."""
        actual = self.read()
        if actual is None:
            self._run(replacement(firewall, self._seal))
            self._seal_rules()
            return
        text = difference(firewall, actual)
        if text:
            before = self._reader.generation()
            self._run(text)
            # Exactly one change since, and that was ours: what we wrote is what is there.
            was_alone = self._known is not None and self._known.generation == before
            is_alone = self._reader.generation() == before + 1
            self._known = Known(before + 1, firewall) if was_alone and is_alone else None

    def _seal_rules(self) -> None:
        tables = self._reader.read()
        if tables is None:
            raise OSError(errno.EAGAIN, "the tables vanished right after they were made")
        if tables.seals == {tables.fingerprint}:
            return
        old = "".join(map(unsealing, sorted(tables.seals)))
        self._run(old + sealing(tables.fingerprint))
        self._seal = tables.fingerprint

    def _intact(self, tables: Tables | None) -> Firewall | None:
        if tables is None or tables.seals != {tables.fingerprint}:
            return None
        return tables.firewall

    def _run(self, text: str) -> None:
        words = programs.run([self._nft, "-f", "-"], "nft", NFT_TIMEOUT_S, text=text)
        if words is not None:
            raise OSError(errno.EINVAL, f"nft refused the rules: {words}")
