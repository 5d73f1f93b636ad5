"""Other programs' firewall rules, read with the programs that made them: `nft` and the iptables family. Reads only.

Our own tables are left out: they are compared as data. Works in the namespace of the calling thread.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from datapath.trace import iptables_save, nft_json
from datapath.trace.filters import Chain
from worker.kernel import programs
from worker.kernel.legacy import has_legacy_filter
from worker.kernel.rules import FAMILIES, TABLE

TIMEOUT_S = 5.0
LARGEST_LISTING = 32 << 20
SAVERS = {("ip", "nft"): "iptables-nft-save", ("ip6", "nft"): "ip6tables-nft-save"}
LEGACY_SAVERS = {("ip", 4): "iptables-legacy-save", ("ip6", 6): "ip6tables-legacy-save"}
OF_IPTABLES = ("filter", "mangle", "raw")


class OtherRules:
    """`unread`: what could not be read, in words."""

    def __init__(self, nft: str, environment: Mapping[str, str] = os.environ, *, with_own: bool = False) -> None:
        self._with_own = with_own
        self._nft = nft
        self._environment = environment
        self.unread: list[str] = []

    def chains(self) -> list[Chain]:
        found: list[Chain] = []
        for family, table in self._tables():
            found += self._table(family, table)
        for (family, version), program in LEGACY_SAVERS.items():
            if has_legacy_filter(version):
                text = self._saved(program)
                found += iptables_save.chains_of(text, family, "legacy") if text else []
        return found

    def _tables(self) -> Iterator[tuple[str, str]]:
        listing = self._json("list", "tables")
        for item in listing.get("nftables", ()):
            table = item.get("table") if isinstance(item, dict) else None
            is_ours = table and table["name"] == TABLE and table["family"] in FAMILIES
            if table and (self._with_own or not is_ours):
                yield table["family"], table["name"]

    def _table(self, family: str, table: str) -> list[Chain]:
        if family not in ("ip", "ip6", "inet", "bridge", "netdev"):
            return []
        listing = self._json("list", "table", family, table)
        saver = SAVERS.get((family, "nft"))
        if saver and table in OF_IPTABLES and '"xt"' in json.dumps(listing):
            text = self._saved(saver)
            if text:
                chains = iptables_save.chains_of(text, family, "nft")
                return [chain for chain in chains if chain.table == table]
        text = self._run([self._nft, "-a", "list", "table", family, table]) or ""
        chains = nft_json.chains_of(listing, nft_json.rule_texts(text))
        return chains if family != "netdev" else [_on_devices(chain, text) for chain in chains]

    def _json(self, *words: str) -> Mapping[str, Any]:
        text = self._run([self._nft, "-j", *words])
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            self.unread.append(f"nft {' '.join(words)}: not JSON")
            return {}
        return found if isinstance(found, dict) else {}

    def _saved(self, program: str) -> str:
        path = programs.find(program, self._environment)
        if path is None:
            self.unread.append(f"rules of iptables: the program {program} is missing")
            return ""
        return self._run([path]) or ""

    def _run(self, command: list[str]) -> str | None:
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            self.unread.append(f"{command[0].rsplit('/', 1)[-1]}: {error}")
            return None
        if done.returncode or len(done.stdout) > LARGEST_LISTING:
            words = done.stderr.decode("utf-8", "replace").strip()[:200]
            self.unread.append(f"{command[0].rsplit('/', 1)[-1]} {' '.join(command[1:])}: {words or 'too long'}")
            return None
        return done.stdout.decode("utf-8", "replace")


def _on_devices(chain: Chain, text: str) -> Chain:
    """The devices of a base chain on netdev: nft 1.0.6 leaves them out of its JSON."""
    after = text.partition(f"chain {chain.name} {{")[2].partition("}")[0]
    names = re.findall(r"\"([^\"]+)\"", after.partition("priority")[0])
    return replace(chain, devices=tuple(names)) if names and not chain.devices else chain
