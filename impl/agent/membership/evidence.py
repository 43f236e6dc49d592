"""Evidence that a process has ended, so that nobody needs to wait for what it promised or for its silence.

A connection that closes proves nothing: the peer may have closed it and live on. But when the link is dialled again at
once and the host answers that nobody listens where that process listened, it has ended: a process of this program
listens until it ends or has given up its leadership. So does a handshake by a later process of the same data directory,
which only one process at a time can hold.

It must not conclude anything from silence, from time, or from another server under the same name. *Residue:* a
middlebox that forges the refusal. Then two leaders may answer `default` reads; `consistent` reads and writes need a
quorum in any case (ARCHITECTURE.md, section 6).
"""

from __future__ import annotations

from collections.abc import Callable

from impl.rpc.handshake import Hello


class Evidence:
    """What is known of the processes of the other servers."""

    def __init__(self, ended: Callable[[str, int], None]) -> None:
        """`ended` is told (node name, incarnation); perhaps more than once."""
        self._ended = ended
        self._newest: dict[str, Hello] = {}

    def met(self, hello: Hello) -> None:
        """A process introduced itself, on a connection of either direction."""
        known = self._newest.get(hello.node_name)
        if known is None or known.storage_id != hello.storage_id:
            self._newest[hello.node_name] = hello
        elif known.incarnation < hello.incarnation:
            self._newest[hello.node_name] = hello
            self._ended(hello.node_name, known.incarnation)

    def refused(self, listened: Hello) -> None:
        """Nobody listens any more at the address where this process was met by whoever dials it."""
        self._ended(listened.node_name, listened.incarnation)
