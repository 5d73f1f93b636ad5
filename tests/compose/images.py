"""Makes the images that docker-compose.yml takes from a registry, under the same names, where none can be reached.

Python's is the small Debian of `install` with the wheels in it, which pip there takes instead of an index: so the
Dockerfile is built without any network, and no certificate of a proxy has to be believed. A store's is its server and
the libraries that it loads. What they hold is cached below .tools/compose; nothing is pulled or pushed here.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.servers import binaries

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
IMAGE = "kvnet"  # what docker-compose.yml calls the image that it builds
FOLDER = CHECKOUT / ".tools" / "compose"
DEBIAN, WHEELS = FOLDER / "debian.tar", FOLDER / "wheels"
NAMES = "hosts: files dns\n"
PIP = "[global]\nno-index = true\nfind-links = /opt/wheels\n"
USERS = "root:x:0:0:root:/root:/bin/sh\n"
# Of a whole JDK, which the machine may have: what a server does not load.
NOT_OF_JAVA = frozenset({"jmods", "docs", "include", "man", "legal", "demo", "src.zip", "sample"})
OF_JAVA = frozenset(f"lib{name}.so" for name in ("jvm", "jli", "java", "net", "nio", "zip", "management"))
SHELL = ("bash", "grep", "cat", "mkdir")
LDD_SECONDS = 10.0


class Root:
    """A root file system on its way into an archive. Docker takes no path twice: the first one counts."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._there: set[str] = set()

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, type=tarfile.DIRTYPE, mode=mode)

    def link(self, path: str, target: str) -> None:
        self._add(path, type=tarfile.SYMTYPE, linkname=target)

    def text(self, path: str, text: str) -> None:
        self._add(path, io.BytesIO(text.encode()), size=len(text.encode()))

    def file(self, source: Path, path: str) -> None:
        source = source.resolve()
        facts = source.stat()
        with source.open("rb") as content:
            self._add(path, content, size=facts.st_size, mode=facts.st_mode & 0o777)

    def programs(self, folder: str, sources: Mapping[str, Path]) -> None:
        """With the libraries that they load."""
        for name, source in sources.items():
            self.file(source, f"{folder}/{name}")
        self.libraries(sources.values())

    def libraries(self, sources: Iterable[Path]) -> None:
        for source in sources:
            asked = ["ldd", str(source)]
            said = subprocess.run(asked, capture_output=True, text=True, timeout=LDD_SECONDS, check=True).stdout
            for found in re.findall(r"(/\S+) \(0x", said):
                if "java" not in found:  # Java's own are there
                    self.file(Path(found), found.lstrip("/"))

    def all_of(self, path: Path) -> None:
        with tarfile.open(path) as other:
            for member in other:
                if os.path.normpath(member.name) not in self._there:
                    self._archive.addfile(member, other.extractfile(member) if member.isreg() else None)

    def _add(self, path: str, content: IO[bytes] | None = None, **facts: Any) -> None:
        if path in self._there:
            return
        self._there.add(path)
        member = tarfile.TarInfo(path)
        for name, value in facts.items():
            setattr(member, name, value)
        self._archive.addfile(member, content)


@dataclass(frozen=True, slots=True)
class Image:
    """`fill` writes the root file system; `changes` are lines of a Dockerfile."""

    name: str
    changes: tuple[str, ...]
    fill: Callable[[Root], None]

    @property
    def archive(self) -> Path:
        return FOLDER / f"{re.sub('[^a-z0-9.]', '-', self.name)}.tar"

    def make(self) -> Path:
        """The archive, for `docker import`. Made again if what it is made of is newer."""
        if not self.archive.exists() or self.archive.stat().st_mtime < _age():
            new = self.archive.with_suffix(".new")
            with tarfile.open(new, "w") as archive:
                self.fill(Root(archive))
            new.rename(self.archive)
        return self.archive


def all_images() -> dict[str, Image]:
    """By the family of the store that needs it; Python's under `kvnet`."""
    path = "ENV PATH=/usr/local/bin:/usr/bin:/bin"
    return {
        "kvnet": Image("python:3.11-slim", ('CMD ["python"]',), _python),
        "etcd": Image("quay.io/coreos/etcd:v3.5.16", (path, 'CMD ["/usr/local/bin/etcd"]'), _etcd),
        "consul": Image("consul:1.8.7", (path, 'ENTRYPOINT ["consul"]'), _consul),
        "zookeeper": Image("zookeeper:3.8.0", (path, 'ENTRYPOINT ["/docker-entrypoint.sh"]'), _zookeeper),
    }


def _age() -> float:
    return max(path.stat().st_mtime for path in (DEBIAN, WHEELS, Path(__file__), HERE / "zookeeper-entrypoint"))


def _python(root: Root) -> None:
    root.text("etc/pip.conf", PIP)
    root.text("etc/apt/sources.list", "")
    root.link("usr/local/bin/python", "/usr/bin/python3")
    for wheel in sorted(WHEELS.iterdir()):
        root.file(wheel, f"opt/wheels/{wheel.name}")
    root.all_of(DEBIAN)


def _etcd(root: Root) -> None:
    _base(root)
    root.programs("usr/local/bin", {name: binaries.program("etcd3.5", name) for name in ("etcd", "etcdctl")})


def _consul(root: Root) -> None:
    _base(root)
    root.programs("bin", {"consul": binaries.program("consul", "consul")})


def _zookeeper(root: Root) -> None:
    _base(root)
    root.programs("bin", {name: Path(shutil.which(name) or name) for name in SHELL})
    root.file(HERE / "zookeeper-entrypoint", "docker-entrypoint.sh")
    java = binaries.program("java", "java").resolve()
    home = java.parents[1]
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home)
        if NOT_OF_JAVA.isdisjoint(inside.parts) and path.is_file():
            root.file(path, f"opt/java/{inside}")
    # Those for windows and sound want libraries that a server never loads.
    root.libraries([java, *(path for path in home.rglob("*.so") if path.name in OF_JAVA)])
    for jar in sorted(Path(binaries.class_path()).parent.glob("*.jar")):
        root.file(jar, f"opt/zookeeper/{jar.name}")


def _base(root: Root) -> None:
    for folder in ("proc", "sys", "dev", "root", "var/lib"):
        root.folder(folder)
    root.folder("tmp", 0o1777)
    root.text("etc/nsswitch.conf", NAMES)
    root.text("etc/passwd", USERS)


if __name__ == "__main__":
    for image in all_images().values():
        print(image.name, os.path.getsize(image.make()) >> 20, "MB", file=sys.stderr)
