"""A bad wire in user space, for kernels without netem: frames are lost by chance, and late.

Stands between a cable's end and the fabric's bridge: what comes out of the cable goes into a TAP device, which is a
port of the bridge in the cable's place, and back. Frames keep their virtio header, so what the kernel left undone
(checksums, segmentation) stays undone until somebody needs it. Lives until it is told to stop (SIGTERM) or its
parent dies; who started it puts the cable back. Run inside the fabric's namespace: `relay.py CABLE TAP LOSS DELAY_S
JITTER_S SEED`.
"""

import errno
import fcntl
import heapq
import os
import random
import select
import signal
import socket
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
LARGEST = 1 << 17
BUFFER_BYTES = 8 << 20
PASSING = {errno.ENOBUFS, errno.EAGAIN, errno.ENETDOWN, errno.EIO, errno.EMSGSIZE, errno.EINVAL, errno.ENXIO}


class Wire:
    """`waiting`: (when, number, where to, frame) of what is under way."""

    def __init__(self, cable: str, tap: str, loss: float, delay_s: float, jitter_s: float, seed: int) -> None:
        self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
        self.cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.cable.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self.cable.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.cable.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
        self.cable.bind((cable, ETH_P_ALL))
        self.cable.setblocking(False)
        self.loss, self.delay_s, self.jitter_s = loss, delay_s, jitter_s
        self.rng = random.Random(seed)
        self.waiting: list[tuple[float, int, int, bytes]] = []
        self.taken = 0

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.tap, select.POLLIN)
        poll.register(self.cable, select.POLLIN)
        while True:
            left_s = self.waiting[0][0] - time.monotonic() if self.waiting else None
            for source, _ in poll.poll(None if left_s is None else max(0, int(left_s * 1000) + 1)):
                self.take(source)
            now = time.monotonic()
            while self.waiting and self.waiting[0][0] <= now:
                _, _, target, frame = heapq.heappop(self.waiting)
                self.put(target, frame)

    def take(self, source: int) -> None:
        target = self.cable.fileno() if source == self.tap else self.tap
        while True:
            try:
                frame = os.read(source, LARGEST)
            except OSError as error:
                if error.errno in PASSING:
                    return
                raise
            if self.rng.random() >= self.loss:
                self.taken += 1
                due = time.monotonic() + self.delay_s + self.rng.random() * self.jitter_s
                heapq.heappush(self.waiting, (due, self.taken, target, frame))

    def put(self, target: int, frame: bytes) -> None:
        try:
            os.write(target, frame)
        except OSError as error:  # a frame more that is lost
            if error.errno not in PASSING:
                raise


def main() -> None:
    cable, tap, loss, delay_s, jitter_s, seed = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    wire = Wire(cable, tap, float(loss), float(delay_s), float(jitter_s), int(seed))
    print("ready", flush=True)
    wire.run()


if __name__ == "__main__":
    main()
