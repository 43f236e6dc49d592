"""What a stored run knows of its cluster, for the checkers of histories: who led without a break, when nothing
disturbed an agent, which servers began anew from a snapshot. From the run's directory alone.

It must err towards less: time that is not known to have been calm was not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jepsen_like.nemesis.book import Fault
from jepsen_like.store.run_directory import ChaosParams, Leadership, RunDirectory
from model_checks.histories.circumstances import Circumstances, Span
from model_checks.histories.operations import FOREVER

GAP_NS = 1_000_000_000
"""Samples of who led that are further apart say nothing of the time between them; a new leader is calm after this."""
SETTLED_NS = 2_500_000_000
"""After a fault was mended, connections may be dialled again and waits be tried again for so long."""


def circumstances(
    params: ChaosParams, faults: Sequence[Fault], leaders: Sequence[Leadership], directory: RunDirectory
) -> Circumstances:
    """Of a stored run."""
    led = reigns(leaders)
    return Circumstances(
        restores=restores(directory.traces),
        reigns=tuple(span for span, _ in led),
        calm=tuple(calm(agent, params.agents[: params.nodes], led, faults) for agent in params.agents),
        concurrency=params.concurrency,
    )


def reigns(leaders: Sequence[Leadership]) -> list[tuple[Span, str]]:
    """Spans in which every sample named the same leader in the same term, and the leader."""
    found: list[tuple[Span, str]] = []
    before: Leadership | None = None
    for sample in leaders:
        same = before is not None and (before.leader, before.term) == (sample.leader, sample.term)
        if sample.leader is not None:
            if before is not None and same and sample.ns - before.ns <= GAP_NS:
                (start, _), leader = found[-1]
                found[-1] = ((start, sample.ns), leader)
            else:
                found.append(((sample.ns, sample.ns), sample.leader))
        before = sample
    return found


def disturbed(fault: Fault) -> frozenset[str]:
    """The nodes that something broken touches once this step was taken."""
    return frozenset(fault.paused) | frozenset(fault.dead) | {node for link in fault.cut for node in link}


def calm(
    agent: str, servers: Sequence[str], led: Iterable[tuple[Span, str]], faults: Sequence[Fault]
) -> tuple[Span, ...]:
    """Spans in which nothing touched an agent or its leader. A client agent may have asked any server, so for it
    nothing may be broken at all.
    """
    steps = sorted((fault for fault in faults if fault.end_ns), key=lambda fault: fault.end_ns)
    broken: list[tuple[Span, frozenset[str]]] = []
    for fault, following in itertools.zip_longest(steps, steps[1:]):
        touched = disturbed(fault) | frozenset(fault.nodes)
        end_ns = FOREVER if following is None and disturbed(fault) else (following or fault).end_ns
        broken.append(((fault.start_ns, end_ns + SETTLED_NS), touched))
    spans = []
    for place, ((start, end), leader) in enumerate(led):
        concerned = {agent, leader} if agent in servers else None
        at = start + GAP_NS * (place > 0)  # the first leader led before anything was asked
        for (from_ns, to_ns), touched in broken:
            if to_ns <= at or from_ns >= end or not (touched if concerned is None else touched & concerned):
                continue
            if from_ns > at:
                spans.append((at, from_ns))
            at = max(at, to_ns)
        if end > at:
            spans.append((at, end))
    return tuple(spans)


def restores(traces: Path) -> tuple[int, ...]:
    """When a server's state machine began with a snapshot, by the servers' traces."""
    found = []
    for path in traces.glob("*.ndjson"):
        lines = path.read_bytes().split(b"\n")
        header = _line(lines[0])
        if header.get("kind") == "header" and header["state"][SNAPSHOT]:
            found.append(header["ns"])
        steps = [_line(line) for line in lines if b'"restore_snapshot"' in line]
        found += [step["ns"] for step in steps if "ns" in step]
    return tuple(sorted(found))


SNAPSHOT = 13
"""The place of the snapshot's index in a recorded state (ARCHITECTURE.md, section 5)."""


def _line(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:  # the last line of a process that was killed
        return {}
