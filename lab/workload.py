"""What runs in a workload's namespace: says who and where it is to everyone who asks, over TCP and UDP.

On port 8080 one line with its name and host; on 8081 one with the address and port that the caller was seen with.
Started as a file of its own with `python -I -S`, so it imports next to nothing and is up in milliseconds.
"""

import select
import socket
import sys

PORT = 8080
PEER_PORT = 8081


def serve(greeting: bytes) -> None:
    """Answer for ever, one caller at a time; a caller that does not take its line is left after a second."""
    sockets = [_tcp(PORT), _tcp(PEER_PORT), _udp(PORT), _udp(PEER_PORT)]
    while True:
        for ready in select.select(sockets, [], [])[0]:
            is_peer = ready.getsockname()[1] == PEER_PORT
            try:
                if ready.type == socket.SOCK_DGRAM:
                    _, caller = ready.recvfrom(2048)
                    ready.sendto(_seen(caller) if is_peer else greeting, caller)
                else:
                    _answer(ready, greeting, is_peer)
            except OSError as error:
                print(f"a caller went away: {error}", file=sys.stderr)


def _answer(server: socket.socket, greeting: bytes, is_peer: bool) -> None:
    connection, caller = server.accept()
    with connection:
        connection.settimeout(1.0)
        connection.sendall(_seen(caller) if is_peer else greeting)


def _seen(caller: tuple[str, int]) -> bytes:
    return f"{caller[0].removeprefix('::ffff:')} {caller[1]}\n".encode()


def _tcp(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)


def _udp(port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    return server


if __name__ == "__main__":
    serve(f"hello from {sys.argv[1]} on {sys.argv[2]}\n".encode())
