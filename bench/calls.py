"""Connections, one after another: `python -I -S calls.py call ADDRESS FIRST_PORT LAST_PORT SECONDS`, or `serve PORT`.

The caller prints how many a second it made, each to the next port; every one is reset at once, so that none lingers.
"""

import socket
import struct
import sys
import time

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


def serve(port: int) -> None:
    with socket.create_server(("", port), backlog=1024) as server:
        while True:
            server.accept()[0].close()


def call(address: str, first: int, last: int, seconds: float) -> float:
    made = 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        with socket.socket() as caller:
            caller.settimeout(3.0)
            caller.connect((address, first + made % (last - first + 1)))
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        made += 1
    return made / (time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    print(call(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
