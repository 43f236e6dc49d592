"""Hypothesis strategies for commands of the catalog: few names, so that commands meet, some of which differ in case
only, and every kind of command.

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
    ServiceChecks,
    ServiceHealth,
    ServiceInstances,
    ServiceOperation,
    Set,
    Transaction,
    Unlock,
    Verb,
)
from spec.catalog.state import Behavior, Check, Node, Service, Session, Status

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
    meta=st.sampled_from([(), (("rack", "a"),)]),
)


@st.composite
def services(draw: st.DrawFn) -> Service:
    """Instances of two services, two on each node."""
    return Service(
        draw(NODE_NAMES),
        draw(INSTANCE_IDS),
        draw(SERVICE_NAMES),
        tags=draw(st.sampled_from([(), ("v1",), ("V1", "v2")])),
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
    KvOperation, st.sampled_from(list(KvVerb)), KEYS, st.just(b"1"), st.just(0), INDEXES, SESSION_IDS
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
QUERIES: tuple[Request, ...] = (
    Get("a"),
    Get("b"),
    List(""),
    List("a"),
    List("a/"),
    Keys("", "/"),
    ListNodes(),
    ListNodes((("rack", "a"),)),
    ListServices(),
    ListServices((("rack", "a"),)),
    ServiceInstances("WEB"),
    ServiceInstances("db", ("v1",)),
    ServiceInstances("web", (), (("rack", "a"),)),
    ServiceHealth("web"),
    ServiceHealth("weB", passing=True),
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
