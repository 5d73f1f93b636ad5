"""How keys and values are spelled as nodes of ZooKeeper. Pure.

A key lives at `<root>/data/<directory>/<name>`: the directory with commas for slashes (`,` alone where there is none),
so that a prefix is listed by one request for each directory, and a person finds `endpoints/3f2a/web` under
`endpoints,3f2a`. What ZooKeeper allows in no name (and `%`, `,` and a lone dot) is written as percent and hex.
"""

from __future__ import annotations

from urllib.parse import unquote

# Nodes are not deleted but marked: a new node's data version starts at 0 again, and an old check would hold for it.
RESERVED = b"\0kvnet:"
TOMBSTONE = RESERVED + b"t"
_QUOTED = RESERVED + b"v"


def _escaped(text: str) -> str:
    if text in {".", ".."}:
        return text.replace(".", "%2E")
    if text.isascii():
        return text.replace("%", "%25").replace(",", "%2C")
    return "".join(_escaped_letter(letter) for letter in text)


def _escaped_letter(letter: str) -> str:
    # ZooKeeper looks at UTF-16: what takes two units there is forbidden, and so is the end of the basic plane.
    if letter in "%," or letter >= "\ufff0" or "\ud800" <= letter <= "\uf8ff" or "\x7f" <= letter <= "\x9f":
        return "".join(f"%{byte:02X}" for byte in letter.encode())
    return letter


def directory_node(directory: str) -> str:
    """The node's name for a key's directory (what stands before its last slash)."""
    if not directory:
        return ","
    escaped = directory if directory.isascii() and "%" not in directory and "," not in directory else None
    if escaped is None:
        escaped = "/".join(_escaped(part) for part in directory.split("/"))
    name = escaped.replace("/", ",")
    return name.replace(".", "%2E") if name in {".", ".."} else name


def name_node(name: str) -> str:
    return _escaped(name)


def directory_of(node: str) -> str:
    return "" if node == "," else unquote(node.replace(",", "/"))


def name_of(node: str) -> str:
    return unquote(node) if "%" in node else node


def split_key(key: str) -> tuple[str, str]:
    directory, _, name = key.rpartition("/")
    return directory, name


class Layout:
    """Where things are under a root."""

    def __init__(self, root: str) -> None:
        self.root = "/" + root
        self.data, self.log, self.head = f"{self.root}/data", f"{self.root}/log", f"{self.root}/head"
        # Never exists; to delete it is refused, by a quorum.
        self.barrier = f"{self.root}/barrier"

    @property
    def structure(self) -> list[str]:
        """The root with what is above it, then what is below; each needs those before it."""
        parts = self.root[1:].split("/")
        return ["/" + "/".join(parts[: i + 1]) for i in range(len(parts))] + [self.data, self.log, self.head]

    def directory(self, key: str) -> str:
        return f"{self.data}/{directory_node(split_key(key)[0])}"

    def node(self, key: str) -> str:
        directory, name = split_key(key)
        return f"{self.data}/{directory_node(directory)}/{name_node(name)}"

    def entry(self, number: int) -> str:
        """ZooKeeper's counters are 32 bits wide and go on from the lowest."""
        return f"{self.log}/e-{as_counter(number):010d}"


def as_counter(number: int) -> int:
    return (number + 2**31) % 2**32 - 2**31


def written(value: bytes) -> bytes:
    """A value as it is kept: one that looks like ours is marked as not ours."""
    return _QUOTED + value if value.startswith(RESERVED) else value


def read_value(data: bytes) -> bytes | None:
    """The value that a node holds; None: it is a tombstone."""
    if not data.startswith(RESERVED):
        return data
    return None if data == TOMBSTONE else data.removeprefix(_QUOTED)
