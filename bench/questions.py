"""Asks for names from inside a namespace as fast as told, and prints how long each answer took: started by `bench.dns`.

Only the standard library: it runs where a workload would. One question in flight for each of `window`; with a `rate`,
questions go out at that pace, whatever comes back.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time

ADDRESS = ("169.254.53.53", 53)
HEADER = struct.Struct("!HHHHHH")
RECURSION = 0x0100
LOST_S = 1.0
RCODE = 0x0F


def question(name: str) -> bytes:
    """All but the id: of an A record."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return HEADER.pack(0, RECURSION, 1, 0, 0, 0)[2:] + labels + b"\0\0\1\0\1"


def measure(names: list[str], seconds: float, window: int, rate: float) -> dict[str, object]:
    ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    ours.connect(ADDRESS)
    ours.setblocking(False)
    questions = [question(name) for name in names]
    sent: dict[int, float] = {}
    took: list[float] = []
    codes: dict[int, int] = {}
    number = lost = 0
    began = now = time.perf_counter()
    while now < began + seconds or sent:
        while now < began + seconds and (len(sent) < window if not rate else number <= (now - began) * rate):
            ours.send(struct.pack("!H", number & 0xFFFF) + questions[number % len(questions)])
            sent[number & 0xFFFF] = time.perf_counter()
            number += 1
            now = time.perf_counter()
        select.select([ours], [], [], 0.0001 if rate else 0.05)
        while True:
            try:
                answer = ours.recv(4096)
            except (BlockingIOError, ConnectionRefusedError):
                break
            now = time.perf_counter()
            at = sent.pop(answer[0] << 8 | answer[1], None)
            if at is not None:
                took.append((now - at) * 1000)
                codes[answer[3] & RCODE] = codes.get(answer[3] & RCODE, 0) + 1
        now = time.perf_counter()
        for old in [old for old, at in sent.items() if now - at > LOST_S]:
            del sent[old]
            lost += 1
    took.sort()
    share = {f"p{p}": took[min(len(took) - 1, len(took) * p // 100)] for p in (50, 90, 99)} if took else {}
    return {"answers": len(took), "per_second": len(took) / seconds, "lost": lost, "codes": codes, **share}


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
