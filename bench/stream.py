"""One end of a measured TCP connection: `python -I -S stream.py receive|send|answer|ask FD SECONDS`.

The socket comes connected from who measures, so both kinds of network are measured by the very same program. Prints one
number: bytes per second for `receive`; for `ask` the round trip in microseconds that a tenth of all did not exceed,
which is what the path costs, rather than what else ran meanwhile.
"""

import socket
import sys
import time

CHUNK = 256 << 10


def receive(connection: socket.socket, seconds: float) -> float:
    """Until the sender ends; the rate from the first byte to the last."""
    buffer = bytearray(CHUNK)
    total = connection.recv_into(buffer)
    began = last = time.perf_counter()
    while got := connection.recv_into(buffer):
        total += got
        last = time.perf_counter()
    return total / max(last - began, 1e-9)


def send(connection: socket.socket, seconds: float) -> float:
    data = bytes(CHUNK)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        connection.sendall(data)
    return 0.0


def answer(connection: socket.socket, seconds: float) -> float:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while one := connection.recv(1):
        connection.sendall(one)
    return 0.0


def ask(connection: socket.socket, seconds: float) -> float:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        connection.sendall(b"x")
        connection.recv(1)
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 10] * 1e6


if __name__ == "__main__":
    role, descriptor, duration = sys.argv[1:]
    with socket.socket(fileno=int(descriptor)) as made:
        made.settimeout(float(duration) + 10)
        print({"receive": receive, "send": send, "answer": answer, "ask": ask}[role](made, float(duration)))
