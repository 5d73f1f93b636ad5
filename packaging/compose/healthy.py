#!/usr/bin/env -S python -IS
"""`healthy controller|worker`: the health checks of the test cluster. Ends with 0 if it is, else says why not.

Asked every few seconds, so it imports next to nothing.
"""

import json
import os
import socket
import sys

TIMEOUT_S = 3.0
READ_BYTES = 65536


def ask(family: int, where: tuple[str, int] | str, words: bytes, ca: str = "") -> bytes:
    """`ca`: it speaks TLS, with a certificate of that one."""
    with socket.socket(family) as plain:
        plain.settimeout(TIMEOUT_S)
        plain.connect(where)
        asking = crypted(plain, ca) if ca else plain
        asking.sendall(words)
        answer = b""
        while piece := asking.recv(READ_BYTES):
            answer += piece
            if family == socket.AF_UNIX and piece.endswith(b"\n"):
                break
    return answer


def crypted(plain: socket.socket, ca: str) -> socket.socket:
    import ssl  # nothing for a check that asks in clear

    return ssl.create_default_context(cafile=ca).wrap_socket(plain, server_hostname="localhost")


def controller() -> str:
    """ "" if it has its store and is in step with it."""
    ca = f"{os.environ['KVNET_CA_DIR']}/ca.pem" if os.environ.get("KVNET_CA_DIR") else ""
    asked = b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n"
    answer = ask(socket.AF_INET, ("127.0.0.1", 7480), asked, ca)
    return "" if b" 200 " in answer.split(b"\r\n")[0] else answer.decode()


def worker() -> str:
    """ "" if it holds its session and all its mirrors are in step."""
    answer = json.loads(ask(socket.AF_UNIX, "/run/kvnet/worker.sock", b'{"op": "status"}\n'))
    return "" if answer.get("result", {}).get("ready") else json.dumps(answer)


if __name__ == "__main__":
    try:
        sys.exit({"controller": controller, "worker": worker}[sys.argv[1]]() or 0)
    except OSError as error:
        sys.exit(str(error))
