"""Finds the store servers that `tests/servers/install` unpacked.

A server that is missing is a failure with the command that helps, never a skip: a test that did not run proves nothing.
Never fetches anything itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Kind = Literal["etcd3.4", "etcd3.5", "consul", "zookeeper", "zookeeper3.9"]
KINDS: tuple[Kind, ...] = ("etcd3.4", "etcd3.5", "consul", "zookeeper")  # those that tests of stores run on
CHECKOUT = Path(__file__).parents[2]


class NotInstalled(Exception):
    """A server is not where it should be; says what to run."""


def folder(environment: Mapping[str, str] = os.environ) -> Path:
    told = environment.get("KVNET_SERVERS_DIR")
    return Path(told) if told else CHECKOUT / ".tools" / "servers"


def program(part: str, name: str) -> Path:
    """`bin/name` of one part: a kind of server, or `java`.

    Raises:
        NotInstalled: it is not there.
    """
    return _required(folder() / part / "bin" / name)


def class_path(kind: Kind = "zookeeper") -> str:
    """Every jar that ZooKeeper needs, for `java -cp`: of 3.9 its own two, which come first, and 3.8's others.

    Raises:
        NotInstalled: they are not there.
    """
    kinds = ("zookeeper",) if kind == "zookeeper" else (kind, "zookeeper")
    return ":".join(f"{_required(folder() / one / 'jars' / 'zookeeper.jar').parent}/*" for one in kinds)


def require(kind: Kind) -> None:
    """
    Raises:
        NotInstalled: this kind of server cannot be started.
    """
    if kind.startswith("zookeeper"):
        class_path(kind)
        program("java", "java")
    else:
        program(kind, "consul" if kind == "consul" else "etcd")


def _required(path: Path) -> Path:
    if not path.exists():
        raise NotInstalled(
            f"the stores' servers are not unpacked here ({path} is missing): run 'make servers', "
            "or set KVNET_SERVERS_DIR to a folder that has them"
        )
    return path
