"""What the workers of all packages share: an invocation becomes a step of the book, a step becomes a completion."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jepsen_like.generator.values import Completion, Ending, Invocation
from jepsen_like.nemesis.book import BREAKS, Fault, FaultBook

NOTHING = "nothing"
"""Value of a completion that broke or mended nothing."""


class NemesisWorker(ABC):
    """Carries out a package's invocations on the cluster."""

    def __init__(self, package: str, book: FaultBook) -> None:
        self.package = package
        self.book = book

    async def invoke(self, invocation: Invocation) -> Completion:
        """Break or mend; the value says what was done to whom."""
        fault = await self.do(invocation)
        nothing = fault.f in BREAKS and not fault.nodes
        return Completion(Ending.INFO, value=NOTHING if nothing else fault.what or NOTHING, error=fault.error or None)

    @abstractmethod
    async def do(self, invocation: Invocation) -> Fault:
        """Break or mend; the step that was recorded last."""
