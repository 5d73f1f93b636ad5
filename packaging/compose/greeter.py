#!/usr/bin/env -S python -IS
"""A workload's web server: `/` says who it is, `/ask/NAME` fetches the greeting of another and passes it on.

So what a workload reaches is seen from anywhere that it is reached from. Standard library only.
"""

import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
ASK_TIMEOUT_S = 5.0


class Greeter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        _, _, rest = self.path.partition("/ask/")
        if not rest:
            self.say(200, f"hello from {sys.argv[1]} on {socket.gethostname()}\n".encode())
            return
        host = f"[{rest}]" if ":" in rest else rest
        try:
            with urllib.request.urlopen(f"http://{host}:{PORT}/", timeout=ASK_TIMEOUT_S) as reply:
                self.say(200, reply.read(1000))
        except OSError as error:
            self.say(502, f"{sys.argv[1]} does not reach {rest}: {error}\n".encode())

    def say(self, status: int, words: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words)

    def log_message(self, *words: object) -> None:
        """Nobody reads it."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6  # and IPv4 with it
    daemon_threads = True


if __name__ == "__main__":
    Server(("::", PORT), Greeter).serve_forever()
