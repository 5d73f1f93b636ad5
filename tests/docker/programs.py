"""Where Docker and docker-compose are, as `install` has unpacked them from Debian's packages, and an image for them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from lab.docker_hosts import Programs
from tests.lab.coexistence.programs import ROOT as NEIGHBOURS
from tests.lab.coexistence.programs import libraries, make_wrappers

CONTAINERS = Path(__file__).parents[2] / ".tools" / "containers" / "root"
BUSYBOX = CONTAINERS / "bin" / "busybox"
COMPOSE = ("/usr/bin/python3", str(CONTAINERS / "usr/bin/docker-compose"))
COMPOSE_PATH = f"{CONTAINERS}/usr/lib/python3/dist-packages:{CONTAINERS}/usr/lib/python3.11"
LIBRARIES = f"{CONTAINERS}/usr/lib/x86_64-linux-gnu"
FLAVOUR = "nft"
# A folder with another engine: `dockerd` and `docker`, and what they call where Debian's is not the right one.
OTHER = "KVNET_TEST_DOCKER"
LIST_SECONDS = 10.0


def docker(folder: Path) -> Programs:
    """`folder`: for what has to be made: wrappers of iptables, the image."""
    assert BUSYBOX.exists(), "the programs are not there: run tests/docker/install"
    wrappers = folder / "iptables"
    wrappers.mkdir()
    make_wrappers(wrappers)
    theirs = f"{NEIGHBOURS}/usr/bin:{NEIGHBOURS}/usr/sbin:{os.environ['PATH']}"
    path = f"{wrappers / FLAVOUR}:{wrappers / 'bin'}:{theirs}"
    if other := os.environ.get(OTHER):
        path = f"{other}:{path}"
    return Programs(
        dockerd=_found("dockerd", path),
        docker=_found("docker", path),
        environment={"PATH": path, "LD_LIBRARY_PATH": libraries()},
        image=make_image(folder / "busybox.tar"),
    )


def _found(program: str, path: str) -> str:
    return shutil.which(program, path=path) or program


def is_real_root() -> bool:
    """Not only that of a user namespace."""
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", str(2**32 - 1)]


def make_image(path: Path) -> Path:
    """A root file system with nothing but busybox and its commands."""
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, timeout=LIST_SECONDS, check=True)
    with tarfile.open(path, "w") as archive:
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        archive.add(BUSYBOX, "bin/busybox")
        for name in listed.stdout.split():
            if name != "busybox":
                member = tarfile.TarInfo(f"bin/{name}")
                member.type, member.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(member)
        users = b"root:x:0:0:root:/root:/bin/sh\n"
        member = tarfile.TarInfo("etc/passwd")
        member.size = len(users)
        archive.addfile(member, io.BytesIO(users))
    return path
