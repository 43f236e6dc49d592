"""The directory of one run, written in phases:

params.json      before anything starts: every parameter, the seed, the command that repeats it
history.ndjson   every client event as it happens, one write(2) each
faults.ndjson    the executed schedule, likewise
leaders.ndjson   who led, as sampled
run.json         when the run ended: how far it came, liveness, agents that ended by themselves
logs/ traces/    written by the agents
results.json     the verdicts; report.html, counterexample-*.html
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from jepsen_like.nemesis.book import Fault
from model_checks.histories.events import Event, History, parse, render

Struct = TypeVar("Struct", bound=msgspec.Struct)


class ChaosParams(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a run was told. Times in seconds, `rate` in operations a second."""

    nodes: int = 5
    clients: int = 2
    workload: str = "register"
    nemesis: tuple[str, ...] = ("partition", "kill", "pause")
    time_limit_s: float = 60.0
    seed: int = 0
    rate: float = 1000.0
    concurrency: int = 140
    agent_command: str | None = None
    snapshot_threshold: int | None = None
    """Entries after which a server takes a snapshot; None: small with the nemesis `snapshot`, else the default."""
    default_reads: bool = True
    """Whether reads that ask for `default` are judged like those that ask for `consistent`."""

    @property
    def agents(self) -> tuple[str, ...]:
        """Servers, then client agents: client thread n talks to agent n modulo their number."""
        servers = (f"s{number}" for number in range(1, self.nodes + 1))
        return (*servers, *(f"c{number}" for number in range(1, self.clients + 1)))


class Leadership(msgspec.Struct, frozen=True):
    """At `ns` (CLOCK_MONOTONIC) this server said that it led, in this term; None: nobody did."""

    ns: int
    leader: str | None
    term: int = 0


class RunSummary(msgspec.Struct, frozen=True, kw_only=True):
    """How the run went, apart from what clients and faults tell."""

    started_ns: int
    ended_ns: int
    interrupted: bool = False
    healed_ns: int = 0
    """When everything had been mended."""
    live_s: float | None = None
    """From then until every agent had answered a write and every server had applied it; None: it never came to that."""
    liveness_problem: str = ""
    exits: tuple[str, ...] = ()
    """Agents that ended although nobody asked them to."""


class RunDirectory:
    """Paths, and how each file is written and read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = path / "logs"
        self.traces = path / "traces"
        self.history = path / "history.ndjson"
        self.faults = path / "faults.ndjson"
        self.leaders = path / "leaders.ndjson"
        self.report = path / "report.html"

    @classmethod
    def create(cls, root: Path, params: ChaosParams, replay: str) -> RunDirectory:
        """A new directory `ROOT/TIMESTAMP-WORKLOAD-SEED` with params.json in it."""
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
        name = base = f"{stamp}-{params.workload}-{params.seed}"
        number = 1
        while (root / name).exists():
            number += 1
            name = f"{base}-{number}"
        found = cls(root / name)
        found.logs.mkdir(parents=True)
        found.traces.mkdir()
        found.history.touch()
        document = {"params": params, "replay": replay}
        (found.path / "params.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")
        return found

    def load_params(self) -> tuple[ChaosParams, str]:
        """The parameters and the replay command; OSError or msgspec.ValidationError if this is not a run."""
        document = msgspec.json.decode((self.path / "params.json").read_bytes())
        return msgspec.convert(document["params"], ChaosParams), str(document["replay"])

    def load_history(self) -> History:
        """The client history, up to where it was cut off. Raises MalformedHistory."""
        return parse(self.history.read_bytes())

    def load_faults(self) -> list[Fault]:
        """The executed schedule."""
        return load_lines(self.faults, Fault)

    def load_leaders(self) -> list[Leadership]:
        """Who led when."""
        return load_lines(self.leaders, Leadership)

    def save_run(self, summary: RunSummary) -> None:
        """Write run.json."""
        (self.path / "run.json").write_bytes(msgspec.json.encode(summary) + b"\n")

    def load_run(self) -> RunSummary | None:
        """run.json, or None if the run did not come to its end."""
        path = self.path / "run.json"
        return msgspec.json.decode(path.read_bytes(), type=RunSummary) if path.exists() else None

    def save_results(self, document: dict[str, Any]) -> None:
        """Write results.json."""
        (self.path / "results.json").write_bytes(msgspec.json.format(msgspec.json.encode(document)) + b"\n")


def load_lines(path: Path, kind: type[Struct]) -> list[Struct]:
    """The structs of an NDJSON file; an unfinished last line is left out."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    return [msgspec.json.decode(line, type=kind) for line in lines[:-1]]


class Journal:
    """An NDJSON file that is written line by line, each in one write(2): a killed runner leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb", buffering=0)

    def event(self, event: Event) -> None:
        """Append an event of the history."""
        self._file.write(render([event]))

    def line(self, line: msgspec.Struct) -> None:
        """Append any struct."""
        self._file.write(msgspec.json.encode(line) + b"\n")

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._file.close()
