"""Finds the store servers that `tests/servers/install` unpacked.

A server that is missing is a failure with the command that helps, never a skip: a test that did not run proves nothing.
Never fetches anything itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

Kind = Literal["etcd3.4", "etcd3.5", "consul", "zookeeper"]
KINDS: tuple[Kind, ...] = get_args(Kind)
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


def class_path() -> str:
    """Every jar that ZooKeeper needs, for `java -cp`.

    Raises:
        NotInstalled: they are not there.
    """
    return f"{_required(folder() / 'zookeeper' / 'jars' / 'zookeeper.jar').parent}/*"


def require(kind: Kind) -> None:
    """
    Raises:
        NotInstalled: this kind of server cannot be started.
    """
    if kind == "zookeeper":
        class_path()
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
