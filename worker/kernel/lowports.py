"""Listening on a port below 1024 without CAP_NET_BIND_SERVICE, by the right over the network that a worker has anyway.

The kernel keeps, for each network namespace, the first port that everybody may have. It is lowered for the moment of a
bind, and put back: some microseconds, and only where the kernel refused before. Nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable

from worker.kernel.sysctls import read_sysctl, write_sysctl

FIRST_FREE = "net/ipv4/ip_unprivileged_port_start"  # of IPv6, too


def bound_low(bind: Callable[[], None], port: int) -> None:
    """Call `bind`; where this user may not have the port, once more while everybody may.

    Raises:
        OSError: it cannot be had.
    """
    try:
        bind()
        return
    except PermissionError:
        before = read_sysctl(FIRST_FREE)
        if before is None or int(before) <= port:
            raise
    write_sysctl(FIRST_FREE, str(port))
    try:
        bind()
    finally:
        write_sysctl(FIRST_FREE, before)
