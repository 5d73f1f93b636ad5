"""The first process of a lab host that container daemons run on: gives them what a real host has to itself.

Started by `lab.docker_hosts` with namespaces of its own for mounts, processes and the host name, in the host's network
namespace: then /run, /etc, /proc, /sys and the name are the host's own, and all that was started inside ends with it.
A file of its own for `python -I -S`, so it imports next to nothing. Mounts nothing outside its namespace.
"""

import ctypes
import os
import signal
import socket
import sys
import uuid

MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 0x1000, 0x4000, 0x40000, 0x80000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
NAMES = "/run/netns"
CGROUPS = "/sys/fs/cgroup"

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0) -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, None):
        raise OSError(ctypes.get_errno(), f"mount {source} {target}: {os.strerror(ctypes.get_errno())}")


def move_in(folder: str) -> None:
    """`folder`: where what is the host's own is kept; has a copy of /etc in it."""
    # What is mounted later below the lab's /run/netns is seen here too; nothing of here is seen there.
    mount("none", "/", flags=MS_REC | MS_SLAVE)
    mount("proc", "/proc", "proc")
    boot = os.path.join(folder, "boot_id")
    with open(boot, "w") as file:
        print(uuid.uuid4(), file=file)
    mount(boot, "/proc/sys/kernel/random/boot_id", flags=MS_BIND)
    kept = os.path.join(folder, "kept")
    os.makedirs(kept, exist_ok=True)
    for path, remake in ((NAMES, own_run), (CGROUPS, own_sys)):
        mount(path, kept, flags=MS_BIND | MS_REC)
        remake()
        os.makedirs(path, exist_ok=True)
        mount(kept, path, flags=MS_BIND | MS_REC)
        _libc.umount2(kept.encode(), MNT_DETACH)
    mount(os.path.join(folder, "etc"), "/etc", flags=MS_BIND)


def own_run() -> None:
    mount("host", "/run", "tmpfs")


def own_sys() -> None:
    """Of this network namespace: without that, Docker would see other hosts' bridges."""
    mount("sysfs", "/sys", "sysfs")


def main(name: str, folder: str) -> None:
    """Until it is killed. Says so on stdout when everything is in its place."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans are ours: the kernel reaps them
    socket.sethostname(name)
    move_in(folder)
    print("ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
