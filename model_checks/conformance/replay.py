"""All servers together: each is replayed until it needs a message that was not sent yet, then another goes on.

So every receive is replayed after its send, and each state that the replay passes is a consistent cut:
ARCHITECTURE.md, section 4, condition 3. If nobody can go on, either program order and send -> receive form a cycle,
or a message was received that nobody sent. Takes time linear in the number of lines: a server is woken only by the
message that it waits for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from pathlib import Path

import msgspec

from model_checks.catalog.payloads import Malformed
from model_checks.conformance.divergence import PROVENANCE, Divergence
from model_checks.conformance.entries import Payloads
from model_checks.conformance.payloads import decoded_configuration
from model_checks.conformance.restarts import Incomplete
from model_checks.conformance.sent import ENDED, Sent
from model_checks.conformance.server import TRUE_EVIDENCE, Observer, ServerReplay
from model_checks.conformance.trace import (
    Header,
    Reader,
    Send,
    TraceFile,
    UnreadableTrace,
    reconfigurations,
    trace_files,
)
from spec.raft.types import Constants, ServerId


class Replayed(msgspec.Struct):
    """What a replay did and found."""

    constants: Constants
    servers: dict[str, ServerReplay]
    payloads: Payloads
    sent: Sent
    readers: list[Reader]
    divergences: list[Divergence] = []
    """At most one for each server: it is not replayed further. In the order of their times."""
    incomplete: list[str] = []
    """Why the verdict cannot be VALID, whatever else was found."""


class Opened(msgspec.Struct, frozen=True):
    """The traces of one cluster, each server's in the order of its incarnations."""

    constants: Constants
    readers: dict[str, list[Reader]]


def open_traces(directory: Path) -> Opened:
    """Open the traces in `directory`. Raises UnreadableTrace if there are none, or if they are not of one cluster."""
    files = trace_files(directory)
    readers = {node: [Reader(file) for file in of_node] for node, of_node in files.items()}
    headers = [header for of_node in readers.values() for reader in of_node if (header := first_line(reader))]
    if not headers:
        raise UnreadableTrace(f"{directory}: no trace has a whole first line: nothing was recorded")
    clusters = {(header.cluster_id, header.voters) for header in headers}
    if len(clusters) > 1:
        why = f"{directory} holds traces of {len(clusters)} clusters"
        raise UnreadableTrace(f"{why}: give each run a directory of its own")
    timings = {(header.election_ns, header.lease_ns, header.pre_vote) for header in headers}
    if len(timings) > 1:
        why = f"{directory}: the servers ran with different timings (election, lease, pre-vote): {sorted(timings)}"
        raise UnreadableTrace(f"{why}: leases are safe, and can be checked, only if all keep the same ones")
    return Opened(constants_of(headers[0], files), readers)


def constants_of(header: Header, files: dict[str, list[TraceFile]]) -> Constants:
    """The constants of a run. Its servers are those of the genesis, of every configuration, and who left traces: a
    server may run before it is added.
    """
    known = {*header.voters, *files, *configured(file for of_node in files.values() for file in of_node)}
    return Constants(
        servers=tuple(sorted(known)),
        voters=tuple(sorted(header.voters)),
        election_timeout=header.election_ns,
        lease=header.lease_ns,
        pre_vote=header.pre_vote,
    )


def configured(files: Iterable[TraceFile]) -> set[ServerId]:
    """Every server that some configuration names."""
    members: set[ServerId] = set()
    for line in reconfigurations(files):
        for _, payload in line.entries:
            try:
                members.update(decoded_configuration(payload).members)
            except Malformed:
                continue  # the replay reports it, with its place
    return members


def prepare(opened: Opened, observer: Observer) -> Replayed:
    """A replay that has not begun: every server in the spec's initial state."""
    sent, payloads = Sent(), Payloads()
    servers = {
        node: ServerReplay(opened.constants, node, readers, sent, payloads, observer)
        for node, readers in sorted(opened.readers.items())
    }
    readers = [reader for of_node in opened.readers.values() for reader in of_node]
    return Replayed(opened.constants, servers, payloads, sent, readers)


def first_line(reader: Reader) -> Header | None:
    """The header of a file, or None if not even that was written whole."""
    line = next((line for _, line in reader), None)
    return line if isinstance(line, Header) else None


def replay(replayed: Replayed) -> None:
    """Replay every server as far as it conforms. Raises UnreadableTrace."""
    running = {node: server.lines() for node, server in replayed.servers.items()}
    ready = sorted(running)
    while ready:
        node = ready.pop()
        awaited = advance(replayed, running, node)
        if awaited is not None:
            replayed.sent.awaited.setdefault(awaited, []).append(node)
        ready += replayed.sent.woken()
    blocked = {node: id for id, nodes in replayed.sent.awaited.items() for node in nodes}
    if blocked and not replayed.divergences and not replayed.incomplete:
        if any(reader.file.grew() for reader in replayed.readers):
            replayed.incomplete.append("the traces are still being written: stop the servers first, or check again")
        else:
            explain_blocked(replayed, blocked)
    replayed.divergences.sort(key=lambda divergence: divergence.ns)


def advance(replayed: Replayed, running: dict[str, Generator[str, None, None]], node: str) -> str | None:
    """Replay one server until it needs a message (its id), or is done, or diverges (None)."""
    try:
        return next(running[node], None)
    except Divergence as divergence:
        replayed.divergences.append(divergence)
    except Incomplete as incomplete:
        replayed.incomplete.append(str(incomplete))
    return None


def explain_blocked(replayed: Replayed, blocked: dict[str, str]) -> None:
    """Nobody can go on: a message that nobody sent, a trace that is missing, or else a cycle."""
    unsent = {line.id for node in blocked for line in remaining_sends(replayed.servers[node])}
    for node, awaited in blocked.items():
        leader, ends, _ = awaited.partition(ENDED)
        unsent |= {awaited} if ends and leader in blocked and leader != node else set()
    traced = {f"{reader.file.node}/{reader.file.incarnation}" for reader in replayed.readers}
    for node, id in sorted(blocked.items()):
        if id in unsent:
            continue  # it waits for a server that waits
        if id.partition(ENDED)[1]:
            explain_missing_end(replayed, node, id)
            continue
        sender = id.rpartition("/")[0]
        if sender not in traced and sender.partition("/")[0] in replayed.constants.servers:
            replayed.incomplete.append(
                f"no trace of {sender.replace('/', ', incarnation ')}, whose message {node} received"
            )
        else:
            blame(replayed, node, "what is received was sent", f"nobody sent {id}")
    if unsent.issuperset(blocked.values()):
        for node, id in sorted(blocked.items()):
            why = f"{id}: it is received before it is sent, in every order that respects all servers' traces"
            blame(replayed, node, "program order and send -> receive are acyclic", why)


def explain_missing_end(replayed: Replayed, node: str, awaited: str) -> None:
    """A server believes that a leadership has ended, and no trace shows that it has."""
    leader = awaited.partition(ENDED)[0]
    if leader not in replayed.servers:
        replayed.incomplete.append(f"no trace of {leader}, which {node} believes to have ended")
    else:
        blame(replayed, node, TRUE_EVIDENCE, f"it acts on the end of {awaited}; no trace says that this ended")


def blame(replayed: Replayed, node: str, broken: str, why: str) -> None:
    """Add a divergence at the line at which `node` waits."""
    divergence = Divergence(PROVENANCE, broken, why)
    divergence.place = replayed.servers[node].here()
    replayed.divergences.append(divergence)


def remaining_sends(server: ServerReplay) -> list[Send]:
    """The sends of a blocked server that were not replayed."""
    place = server.here()
    later = [reader for reader in server.readers if reader.file.incarnation >= place.file.incarnation]
    return [
        line
        for reader in later
        for at, line in Reader(reader.file)
        if isinstance(line, Send) and (reader.file != place.file or at > place.line)
    ]
