"""Hypothesis strategies for logs of the catalog: few names, so that commands meet, some of which differ in case only,
and every kind of command.

Shared by all that drives the catalog: the spec's properties, and the implementation beside the spec.
"""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from spec.catalog.commands import (
    CheckAndSet,
    CheckOperation,
    ChecksInState,
    Command,
    CreateSession,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Deregister,
    DestroySession,
    Get,
    GetSession,
    Keys,
    KvOperation,
    KvVerb,
    List,
    ListNodes,
    ListServices,
    ListSessions,
    Lock,
    NodeChecks,
    NodeOperation,
    NodeServices,
    Noop,
    ReapTombstones,
    Register,
    Request,
    RestoreBegin,
    RestoreChunk,
    RestoreCommit,
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
    ServiceOperation,
    Set,
    Transaction,
    Unlock,
    Verb,
)
from spec.catalog.restore import rows_of
from spec.catalog.state import ArchivedRow, Behavior, Check, Node, Service, Session, State, Status, initial_state
from spec.catalog.transitions import apply

NODE_NAMES = st.sampled_from(["n1", "n1", "N1", "n2"])
KEYS = st.sampled_from(["a", "a/b", "b"])
INSTANCE_IDS = st.sampled_from(["x", "x", "X", "y"])
SERVICE_NAMES = st.sampled_from(["web", "web", "Web", "db"])
CHECK_IDS = st.sampled_from(["serfHealth", "c", "c", "C"])
SESSION_IDS = st.sampled_from(["s", "t"])
STATUSES = st.sampled_from(list(Status))
INDEXES = st.integers(0, 9)
NODES = st.builds(
    Node,
    NODE_NAMES,
    st.sampled_from(["1", "2"]),
    st.sampled_from(["", "u", "v"]),
    meta=st.sampled_from([(), (("rack", "a"),), (("os", "linux"), ("rack", "b"))]),
)


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Instances of two services, two on each node."""
    return Service(
        draw(NODE_NAMES),
        draw(INSTANCE_IDS),
        draw(SERVICE_NAMES),
        tags=draw(st.sampled_from([(), ("v1",), ("V1", "v2")])),
        connect=draw(st.sampled_from(["", "", "web", "Db"])),
    )


@st.composite
def checks(draw: st.DrawFn, node: str) -> Check:
    """Checks of a node, or of an instance that it may not have."""
    service_id = draw(st.one_of(st.just(""), INSTANCE_IDS))
    return Check(node, draw(CHECK_IDS), status=draw(STATUSES), service_id=service_id)


@st.composite
def registrations(draw: st.DrawFn) -> Register:
    """Nodes with, perhaps, an instance and checks, all on the same node."""
    node = draw(NODES)
    service = draw(st.one_of(st.none(), services()))
    if service is not None:
        service = replace(service, node=node.node)
    return Register(node, service, tuple(draw(st.lists(checks(node.node), max_size=2))), draw(st.booleans()))


@st.composite
def session_creations(draw: st.DrawFn) -> CreateSession:
    """Sessions that depend on up to two checks, which may not exist."""
    names = draw(st.sampled_from([(), ("c",), ("serfHealth", "C")]))
    return CreateSession(
        Session(draw(SESSION_IDS), draw(NODE_NAMES), behavior=draw(st.sampled_from(list(Behavior))), node_checks=names)
    )


KV_OPERATIONS = st.builds(
    KvOperation, st.sampled_from(list(KvVerb)), KEYS, st.just(b"1"), st.sampled_from([0, 7]), INDEXES, SESSION_IDS
)
OPERATIONS = st.one_of(
    KV_OPERATIONS,
    st.builds(NodeOperation, st.sampled_from(list(Verb)), NODES),
    st.builds(ServiceOperation, st.sampled_from(list(Verb)), services()),
    NODE_NAMES.flatmap(lambda node: st.builds(CheckOperation, st.sampled_from(list(Verb)), checks(node))),
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.just(Noop()),
    registrations(),
    registrations(),
    session_creations(),
    st.builds(Lock, KEYS, st.sampled_from([b"1", b"2"]), st.just(0), SESSION_IDS),
    st.builds(Unlock, KEYS, st.just(b"1"), st.just(0), SESSION_IDS),
    st.builds(Set, KEYS, st.sampled_from([b"1", b"2"])),
    st.builds(CheckAndSet, KEYS, st.just(b"3"), st.just(0), INDEXES),
    st.builds(Delete, KEYS),
    st.builds(DeleteCheckAndSet, KEYS, INDEXES),
    st.builds(DeleteTree, st.sampled_from(["", "a"])),
    st.builds(ReapTombstones, INDEXES),
    st.builds(Deregister, NODE_NAMES, st.one_of(st.just(""), INSTANCE_IDS), st.one_of(st.just(""), CHECK_IDS)),
    st.builds(DestroySession, SESSION_IDS),
    st.builds(Transaction, st.lists(OPERATIONS, max_size=3).map(tuple)),
)
MISTAKES = (
    *["none", "others write"] * 4,
    "a row is missing",
    "a row stands there twice",
    "a command is missing",
    "a command comes twice",
    "another begins",
    "a commit comes early",
)
RESTORE_IDS = st.sampled_from(["r", "q"])


def state_after(commands: list[Command], first: int = 1) -> State:
    """The state that a log builds whose first entry has this index."""
    state = initial_state()
    for index, command in enumerate(commands, first):
        state, _ = apply(state, command, index)
    return state


def restore_of(rows: tuple[ArchivedRow, ...], id: str = "r", at_once: int = 3) -> list[Command]:
    """The commands that restore an archive, `at_once` rows in a chunk."""
    parts = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
    chunks = [RestoreChunk(id, number, part) for number, part in enumerate(parts, 1)]
    return [RestoreBegin(id), *chunks, RestoreCommit(id, len(chunks))]


@st.composite
def restores(draw: st.DrawFn) -> list[Command]:
    """Restores of archives of shorter and longer logs, with other commands between, and with every kind of mistake."""
    rows = list(rows_of(state_after(draw(st.lists(COMMANDS, max_size=6)), draw(st.sampled_from([1, 40])))))
    mistake = draw(st.sampled_from(MISTAKES))
    if mistake == "a row is missing":
        del rows[draw(st.integers(0, len(rows) - 1))]
    elif mistake == "a row stands there twice":
        rows.append(draw(st.sampled_from(rows)))
    commands = restore_of(tuple(rows), draw(RESTORE_IDS), draw(st.integers(1, 4)))
    position = draw(st.integers(1, len(commands) - 1))
    match mistake:
        case "a command is missing":
            del commands[position]
        case "a command comes twice":
            commands.insert(position, commands[position])
        case "another begins":
            commands.insert(position, draw(st.builds(RestoreBegin, st.sampled_from(["", "r", "q"]))))
        case "a commit comes early":
            commands.insert(position, draw(st.builds(RestoreCommit, RESTORE_IDS, st.integers(0, 3))))
        case "others write":
            commands.insert(position, draw(COMMANDS))
        case _:
            pass
    return commands


LOGS: st.SearchStrategy[list[Command]] = st.lists(
    st.one_of(*[COMMANDS.map(lambda command: [command])] * 2, restores()), max_size=10
).map(lambda parts: [command for part in parts for command in part])
"""Logs with all commands, some of which are restores."""

QUERIES: tuple[Request, ...] = (
    Get("a"),
    Get("b"),
    List(""),
    List("a"),
    List("a/"),
    Keys("", "/"),
    ListNodes(),
    ListNodes((("rack", "a"),)),
    ListNodes((("os", "linux"), ("rack", "a"))),
    ListServices(),
    ListServices((("rack", "a"),)),
    ServiceInstances("WEB"),
    ServiceInstances("db", ("v1",)),
    ServiceInstances("web", ("v1", "V2")),
    ServiceInstances("web", (), (("rack", "a"),)),
    ServiceHealth("web"),
    ServiceHealth("weB", passing=True),
    ServiceInstances("db", connect=True),
    ServiceHealth("Web", connect=True),
    NodeServices("n1"),
    NodeServices("N2"),
    NodeChecks("n1"),
    ServiceChecks("Web"),
    ServiceChecks("db", (("rack", "a"),)),
    ChecksInState("any"),
    ChecksInState("Critical"),
    ChecksInState("passing", (("rack", "a"),)),
    GetSession("s"),
    ListSessions(),
    ListSessions("n1"),
)
"""Reads of every kind, over the names that the commands use."""

LISTS_OF_KEYS = (List, Keys)
"""Reads whose index may go back, and so may hide a change: a tree that was deleted under a longer prefix."""
