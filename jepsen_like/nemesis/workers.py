"""The worker of each package, bound to a running cluster: what they need to know of the agents is asked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from jepsen_like.cluster.api import Cluster, ClusterFailure
from jepsen_like.cluster.observe import HttpFailure
from jepsen_like.generator.interpreter import Worker
from jepsen_like.nemesis.book import Fault, FaultBook
from jepsen_like.nemesis.breaking import BreakingWorker
from jepsen_like.nemesis.handover import TransferWorker
from jepsen_like.nemesis.lag import Extent, SnapshotWorker
from jepsen_like.nemesis.membership import MembershipWorker
from jepsen_like.nemesis.operator_api import Operator
from jepsen_like.nemesis.rolling import RollingWorker

ANSWER_S = 0.5


class Crew:
    """Who breaks `cluster`: the book that all share, and a worker for each package by name."""

    def __init__(
        self, cluster: Cluster, packages: Iterable[str], record: Callable[[Fault], None], test_clients: int
    ) -> None:
        self._cluster = cluster
        self._test_clients = test_clients
        self.book = FaultBook(cluster, record, ClusterFailure)
        self.operator = Operator(cluster, (HttpFailure, ClusterFailure))
        self.workers: dict[str, Worker] = {name: self._worker(name) for name in packages}

    def _worker(self, package: str) -> Worker:
        match package:
            case "partition" | "kill" | "pause":
                return BreakingWorker(package, self.book, self._test_clients)
            case "membership":
                return MembershipWorker(package, self.book, self.operator)
            case "snapshot":
                return SnapshotWorker(package, self.book, self._extents)
            case "transfer":
                return TransferWorker(package, self.book, self.operator)
            case "rolling-restart":
                return RollingWorker(package, self.book, self._serves)
            case _:
                raise AssertionError(package)

    async def _extents(self) -> Mapping[str, Extent]:
        views = (await self._cluster.status(ANSWER_S)).views
        return {
            name: Extent(views[name].log_base, views[name].last_log_index)
            for name in self._cluster.servers
            if name in views
        }

    async def _serves(self, node: str) -> bool:
        """It knows the leader, and has applied what was committed when that leader was asked."""
        status = await self._cluster.status(ANSWER_S)
        leader = None if status.leader is None else status.views.get(status.leader)
        view = status.views.get(node)
        if leader is None or view is None:
            return False
        return view.leader is not None and view.applied_index >= leader.commit_index
