"""What runs in a workload's namespace: answers every TCP connection with one line saying who and where it is.

Started as a file of its own with `python -I -S`, so it imports next to nothing and is up in milliseconds.
"""

import socket
import sys

PORT = 8080


def serve(greeting: bytes) -> None:
    """Answer for ever, one caller at a time; a caller that does not take its line is left after a second."""
    with socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64) as server:
        while True:
            caller, _ = server.accept()
            with caller:
                caller.settimeout(1.0)
                try:
                    caller.sendall(greeting)
                except OSError as error:
                    print(f"a caller went away: {error}", file=sys.stderr)


if __name__ == "__main__":
    serve(f"hello from {sys.argv[1]} on {sys.argv[2]}\n".encode())
