"""Other programs' firewall rules, read with the programs that made them: `nft` and the iptables family. Reads only.

Our own tables are left out: they are compared as data. Works in the namespace of the calling thread, which may be a
workload's: whatever is found there may be meant to harm. So reading is bounded in time, tables and bytes, and a name is
never a part of a command unless it is a plain word: `nft` takes its arguments together as one script.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from datapath.rules import iptables, nft, nft_text
from datapath.rules.ruleset import Chain
from datapath.rules.values import SHAPES
from datapath.rules.walk import ON_DEVICES
from worker.kernel import programs
from worker.kernel.legacy import has_legacy_filter
from worker.kernel.rules import FAMILIES, TABLE

TIMEOUT_S = 5.0  # of one program
TOGETHER_S = 12.0
MOST_TABLES = 64
LARGEST_LISTING = 32 << 20
LARGEST_INSIDE = 4 << 20  # of a workload's own
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
PROGRAMS = {"ip": "iptables", "ip6": "ip6tables"}
LEGACY = (("ip", 4, "iptables-legacy"), ("ip6", 6, "ip6tables-legacy"))
OF_IPTABLES = ("filter", "mangle", "raw", "security")


class OtherRules:
    """`unread`: what could not be read, in words. `largest`: the bytes that one program may say.

    `is_blind`: not even what tables there are could be read.
    """

    def __init__(
        self,
        nft: str,
        environment: Mapping[str, str] = os.environ,
        *,
        with_own: bool = False,
        largest: int = LARGEST_LISTING,
    ) -> None:
        self._with_own = with_own
        self._largest = largest
        self._until = time.monotonic() + TOGETHER_S
        self._nft = nft
        self._environment = environment
        self._of_iptables: dict[str, list[Chain]] = {}
        self.unread: list[str] = []
        self.is_blind = False

    def chains(self) -> list[Chain]:
        found: list[Chain] = []
        for family, table in self._tables():
            try:
                found += self._table(family, table)
            except (*SHAPES, RecursionError):  # of a shape that nobody expected
                self.unread.append(f"nft: the table {family} {table}, which is not understood")
        for family, version, program in LEGACY:
            if has_legacy_filter(version):
                found += self._saved(f"{program}-save", family, program)
        return found

    def _tables(self) -> Iterator[tuple[str, str]]:
        listing = self._json("list", "tables")
        self.is_blind = not listing
        found = [item["table"] for item in listing.get("nftables", ()) if isinstance(item, dict) and "table" in item]
        if len(found) > MOST_TABLES:
            self.unread.append(f"nft: {len(found) - MOST_TABLES} of {len(found)} tables")
        for table in found[:MOST_TABLES]:
            if not WORD.match(table["name"]):
                self.unread.append(f"nft: a {table['family']} table called {table['name'][:64]!r}")
            elif self._with_own or not (table["name"] == TABLE and table["family"] in FAMILIES):
                yield table["family"], table["name"]

    def _table(self, family: str, table: str) -> list[Chain]:
        if family not in ("ip", "ip6", "inet", "bridge", "netdev"):
            return []
        listing = self._json("list", "table", family, table)
        text = self._run([self._nft, "-a", "list", "table", family, table]) or ""
        chains = [_on_devices(chain, text) for chain in nft.chains_of(listing, nft_text.rule_texts(text))]
        if family not in PROGRAMS or table not in OF_IPTABLES:
            return chains
        own = self._by_iptables(family, table, is_needed='"xt"' in json.dumps(listing))
        # It leaves out chains that others made there, and tells of some that are not there.
        return [own.get((chain.name, chain.hook), chain) for chain in chains]

    def _by_iptables(self, family: str, table: str, *, is_needed: bool) -> dict[tuple[str, str], Chain]:
        """What iptables says of a table, by name and hook: it understands its own rules best."""
        program = PROGRAMS[family]
        if program not in self._of_iptables:
            saver = f"{program}-nft-save"
            if not is_needed and programs.find(saver, self._environment) is None:
                return {}
            self._of_iptables[program] = self._saved(saver, family, program)
        return {(chain.name, chain.hook): chain for chain in self._of_iptables[program] if chain.table == table}

    def _json(self, *words: str) -> Mapping[str, Any]:
        text = self._run([self._nft, "-j", *words])
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            self.unread.append(f"nft {' '.join(words)}: not JSON")
            return {}
        return found if isinstance(found, dict) else {}

    def _saved(self, saver: str, family: str, program: str) -> list[Chain]:
        path = programs.find(saver, self._environment)
        if path is None:
            self.unread.append(f"rules of iptables: the program {saver} is missing")
            return []
        try:
            return iptables.chains_of(self._run([path]) or "", family, program)
        except SHAPES:
            self.unread.append(f"{saver}: not understood")
            return []

    def _run(self, command: list[str]) -> str | None:
        left_s = min(TIMEOUT_S, self._until - time.monotonic())
        words, said = "", b""
        try:
            if left_s > 0:
                said, words = _output(command, left_s, self._largest)
            else:
                words = "no time was left"
        except OSError as error:
            words = error.strerror or str(error)
        if words:
            self.unread.append(f"{command[0].rsplit('/', 1)[-1]} {' '.join(command[1:])}: {words}")
            return None
        return said.decode("utf-8", "replace")


def _output(command: list[str], seconds: float, largest: int) -> tuple[bytes, str]:
    """What the program says, and what went wrong with it; neither is kept beyond its bounds.

    Raises:
        OSError: it cannot be started.
    """
    with os.fdopen(os.memfd_create("trouble"), "w+b") as trouble:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=trouble)
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            said = process.stdout.read(largest + 1) if process.stdout is not None else b""
            if len(said) > largest:
                process.kill()
            status = process.wait()
        finally:
            timer.cancel()
            if process.stdout is not None:
                process.stdout.close()
        if len(said) > largest:
            return b"", "too long"
        if status < 0:
            return b"", f"not within {seconds:.0f} s"
        trouble.seek(0)
        words = trouble.read(200).decode("utf-8", "replace").strip()
    return said, (words or f"exit status {status}") if status else ""


def _on_devices(chain: Chain, text: str) -> Chain:
    if chain.hook not in ON_DEVICES or chain.devices:
        return chain
    return replace(chain, devices=nft_text.devices(text, chain.name))
