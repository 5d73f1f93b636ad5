"""Which sockets the runtime keeps for a container is told by the program that it starts: the worker cannot see it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

from kvnet.model import PublishedPort
from kvnet.shims.relay import MAX_CALLERS
from worker.listeners import first

TELL = "import json; from kvnet.shims import relay; print(json.dumps(relay.kept()))"


def test_a_port_that_the_starting_process_has_is_known_by_its_socket_and_another_ones_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        told = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, timeout=20, check=True)
        kept = json.loads(told.stdout)
        there = first([PublishedPort(80, "tcp", ours.getsockname()[1], None)], [4])
        assert there is not None
        assert there.socket == os.fstat(ours.fileno()).st_ino
        assert there.socket in kept

    with socket.create_server(("127.0.0.1", 0)) as later:
        assert os.fstat(later.fileno()).st_ino not in kept


def test_those_that_started_the_runtime_are_looked_at_only_so_far_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        command = [sys.executable, "-c", TELL]
        for _ in range(MAX_CALLERS):
            command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        assert os.fstat(ours.fileno()).st_ino not in json.loads(told.stdout)
