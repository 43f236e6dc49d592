"""The leadership is handed over, to a voter that is well, to one that is not, or to whom the leader likes.

A transfer to a server that is dead, paused or cut off must come to nothing, and leave a leader. Ongaro 2014, section
3.10.
"""

from __future__ import annotations

from jepsen_like.generator.values import Draws, Invocation
from jepsen_like.nemesis.book import Fault, FaultBook
from jepsen_like.nemesis.operator_api import Operator
from jepsen_like.nemesis.partition import shuffled
from jepsen_like.nemesis.worker import NemesisWorker

HEIRS = ("a voter", "anybody", "one that is down")
WEIGHTS = (5, 2, 1)


def pick_heir(draws: Draws) -> tuple[str, Draws]:
    """A kind of heir, by weight."""
    return draws.among(HEIRS, WEIGHTS)


class TransferWorker(NemesisWorker):
    """`transfer`."""

    def __init__(self, package: str, book: FaultBook, operator: Operator) -> None:
        super().__init__(package, book)
        self._operator = operator

    async def do(self, invocation: Invocation) -> Fault:
        assert invocation.f == "transfer"
        book = self.book
        leader = await book.leader()
        configuration = None if leader is None else await self._operator.configuration(leader)
        if leader is None or configuration is None:
            return book.note(self.package, "transfer", (), "nobody leads", leader, (0, 0))
        order, draws = shuffled([node for node in configuration.voters if node != leader], Draws(invocation.note))
        down = [node for node in order if node in book.down]
        well = [node for node in order if node not in book.down]
        match invocation.value:
            case "one that is down" if down:
                heir: str | None = down[0]
            case "anybody":
                heir = None
            case _:
                heir = next(iter(well), None)
        other, _ = draws.below(3)
        via = well[0] if other == 0 and well else leader  # a server that does not lead forwards the request
        words = f"{leader} to {heir or 'anybody'}"
        return await book.ask(self.package, "transfer", (leader,), words, leader, self._operator.transfer(via, heir))
