"""The one rule of ours that is not in a table of ours: in each FORWARD chain of iptables, what we admitted is accepted.

Docker, or whoever set that chain's policy to DROP, drops what it does not know, and no accept elsewhere overrules that.
So our rule goes to the end of the chain, behind everything that is there: it only takes from the policy what bears our
mark. Reading starts no process; the rule itself is written by the iptables program of the same flavour. Never creates
a table or a chain, never touches another rule.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from datapath.objects import CloseGate, Failure, Gate, OpenGate
from worker.kernel import programs
from worker.kernel.foreign_chains import ForwardChains
from worker.kernel.legacy import has_legacy_filter, is_open_in_legacy
from worker.kernel.rules import MARK

PROGRAMS = {
    Gate("nft", 4): "iptables-nft",
    Gate("nft", 6): "ip6tables-nft",
    Gate("legacy", 4): "iptables-legacy",
    Gate("legacy", 6): "ip6tables-legacy",
}
COMMENT = "kvnet"
RULE = ("-m", "mark", "--mark", f"{MARK:#x}/{MARK:#x}", "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT")
LOCK_SECONDS = "5"  # xtables.lock: how long iptables waits for another one
TIMEOUT_S = 10.0
MOST_COPIES = 8  # of our rule that are removed at once
CODE = "forward-blocked"


class Gates:
    """Belongs to the kernel thread: what it starts works in that thread's namespace."""

    def __init__(self, chains: ForwardChains, environment: Mapping[str, str] = os.environ) -> None:
        self._chains = chains
        self._environment = environment

    def read(self) -> dict[Gate, bool]:
        """Every FORWARD chain of iptables that is there -> whether our rule is its."""
        found = dict(self._chains.gates())
        for family in (4, 6):
            if has_legacy_filter(family):
                found[Gate("legacy", family)] = is_open_in_legacy(family, COMMENT, MARK)
        return found

    def walls(self) -> frozenset[str]:
        """Chains of others that end what they do not know, and that no rule of ours can open: "family table chain"."""
        return self._chains.walls()

    def execute(self, operation: OpenGate | CloseGate) -> Failure | None:
        """What is already so is no failure; nor is a chain that went meanwhile."""
        gate = operation.gate
        is_open = self.read().get(gate)
        try:
            if isinstance(operation, OpenGate):
                if is_open is False:
                    self._run(gate, "-A")
                return None
            for _ in range(MOST_COPIES):
                if not is_open:
                    break
                self._run(gate, "-D")
                is_open = self.read().get(gate)
        except OSError as error:
            return Failure(operation, error.errno or errno.EIO, error.strerror or str(error), code=CODE)
        return None

    def _run(self, gate: Gate, verb: str) -> None:
        program = self._find(PROGRAMS[gate])
        arguments = [program, "-w", LOCK_SECONDS, verb, "FORWARD", *RULE]
        words = programs.run(arguments, PROGRAMS[gate], TIMEOUT_S)
        if words is not None:
            raise OSError(errno.EIO, f"{PROGRAMS[gate]} refused our rule: {words}")

    def _find(self, name: str) -> str:
        found = programs.find(name, self._environment)
        if found is None:
            raise OSError(
                errno.ENOENT,
                f"this host has a FORWARD chain that {name} made, but not the program {name}: what the chain drops "
                f"cannot be let through. Install the package iptables, or append the rule yourself: "
                f"FORWARD {' '.join(RULE)}",
            )
        return found
