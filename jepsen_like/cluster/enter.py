"""Runs a command inside a node's namespaces, on the caller's terminal: `comitia cluster exec`.

The command is a process of the cluster (its pid namespace): it ends when the cluster does. It keeps the caller's
user, session and directory. Must be called without threads (see `net/namespaces.py`).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from jepsen_like.cluster.protocol import ClusterFailure
from jepsen_like.net import namespaces

EXIT_NOT_FOUND = 127


def run_in(descriptors: Sequence[int], argv: Sequence[str]) -> int:
    """Enter the namespaces in the given order, run the command, and return its exit status (128 + number for a
    signal)."""
    directory = os.getcwd()
    try:
        for descriptor in descriptors:
            namespaces.enter(descriptor)
            os.close(descriptor)
    except PermissionError as error:
        raise ClusterFailure(
            f"may not enter the node's namespaces ({error}): run it as root, as the cluster was"
        ) from error
    os.chdir(directory)
    sys.stdout.flush()
    pid = os.fork()  # setns(2) into a pid namespace takes effect for children
    if pid == 0:
        try:
            os.execvp(argv[0], list(argv))
        except OSError as error:
            print(f"{argv[0]}: {error.strerror}", file=sys.stderr, flush=True)
        finally:
            os._exit(EXIT_NOT_FOUND)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the command that Ctrl-C is meant for
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
