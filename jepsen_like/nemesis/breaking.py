"""Links are cut, processes killed and paused: the worker of the packages partition, kill and pause.

`partition` and `processes` say what is hit.
"""

from __future__ import annotations

from jepsen_like.generator.values import Draws, Invocation
from jepsen_like.nemesis import partition, processes
from jepsen_like.nemesis.book import Fault, FaultBook
from jepsen_like.nemesis.worker import NemesisWorker


class BreakingWorker(NemesisWorker):
    """Breaks what an invocation names, and mends what its package broke."""

    def __init__(self, package: str, book: FaultBook, test_clients: int) -> None:
        super().__init__(package, book)
        self._test_clients = test_clients

    async def do(self, invocation: Invocation) -> Fault:
        book, package = self.book, self.package
        cluster = book.cluster
        match invocation.f:
            case "heal":
                return await book.heal(package)
            case "restart":
                return await book.restart(package)
            case "resume":
                return await book.resume(package)
        leader = await book.leader()
        draws = Draws(invocation.note)
        if invocation.f == "cut":
            shape = partition.cut(invocation.value, cluster.servers, cluster.clients, leader, draws, self._test_clients)
            return await book.cut(package, shape.links, shape.nodes, f"{invocation.value}: {shape.what}", leader)
        down = book.down
        servers = [name for name in cluster.servers if name not in down] or cluster.servers
        clients = [name for name in cluster.clients if name not in down]
        nodes = processes.nodes_of(invocation.value, servers, clients, None if leader in down else leader, draws)
        if invocation.f == "kill":
            return await book.kill(package, nodes, leader)
        assert invocation.f == "pause"
        return await book.pause(package, nodes, leader)
