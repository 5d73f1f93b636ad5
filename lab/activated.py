"""Starts a program with a listening socket that is open already, as socket units do: `activated FD NAME PROGRAM...`.

Run with `python -I -S`, where the program is to run: its process id, which it is told, is the one that it has there.
"""

import os
import sys

FIRST = 3  # sd_listen_fds(3)

if __name__ == "__main__":
    given = int(sys.argv[1])
    if given != FIRST:
        os.dup2(given, FIRST)
        os.close(given)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=sys.argv[2])
    os.execvp(sys.argv[3], sys.argv[3:])
