"""What schedules show people: servers, messages and entries in a line each. Golden files hold these lines."""

from __future__ import annotations

import msgspec

from impl.raft.configuration import CONFIGURATION, decode_configuration
from impl.raft.core import Core
from impl.raft.messages import Entry, Message


def describe_server(name: str, core: Core | None) -> str:
    """What a server believes, and the terms of its newest entries; None: it is down."""
    if core is None:
        return f"{name} is down"
    log = core.server.log
    terms = " ".join(f"{entry.term}" for entry in log.slice(max(log.base, log.last_index - 12), log.last_index))
    base = f" base {log.base}" if log.base else ""
    return (
        f"{name} {core.role.value} term {core.term} leader {core.leader_id} commit {core.commit_index} "
        f"applied {core.last_applied} durable {core.server.disk.durable_index} of {log.last_index}{base} "
        f"terms [{terms}]"
    )


def describe_entry(entry: Entry) -> str:
    """What an entry does, in a word or two."""
    if entry.kind == CONFIGURATION:
        configuration = decode_configuration(entry.payload, entry.index)
        others = sorted(set(configuration.names) - set(configuration.voters))
        return f"voters {' '.join(configuration.voters)}{' and ' if others else ''}{' '.join(others)}"
    _, *arguments = msgspec.msgpack.decode(entry.payload)
    return str(arguments[0]) if arguments else "no-op"


def describe_message(message: Message) -> str:
    """One line about a message, without its sequence."""
    fields = msgspec.structs.asdict(message)
    del fields["sequence"]
    for hidden in ("size", "checksum", "configuration"):
        fields.pop(hidden, None)
    if not fields.get("urged_by", True):
        del fields["urged_by"]
    if fields.get("success"):
        del fields["conflict_index"], fields["conflict_term"]
    if "entries" in fields:
        entries = fields.pop("entries")
        fields["entries"] = f"{entries[0].index}..{entries[-1].index}" if entries else "none"
    shown = " ".join(f"{name}={value}" for name, value in fields.items())
    return f"{type(message).__name__} {shown}"
