"""Hypothesis strategies for what a client asks: few names, so that requests meet, and the indexes that matter.

What is drawn depends on the state: a check-and-set is worth little if its index is never right. Names belong to a run
(`Names`), services do not: a service whose last instance was deregistered is known to the next run by its index.
Commands are complete, so that an agent has nothing to add.
"""

from __future__ import annotations

from hypothesis import strategies as st
from msgspec.structs import replace

from model_checks.catalog.http_requests import Mode, Read
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
    Operation,
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
from spec.catalog.registry import SERF_HEALTH
from spec.catalog.state import Behavior, Check, Index, Node, Pairs, Service, Session, State, Status, node_key, row_key

Draw = st.DrawFn

MODES = st.sampled_from(list(Mode))
VALUES = st.sampled_from([b"", b"1", b"2", b"\xff\x00 \xc3\xa9"])
FLAGS = st.sampled_from([0, 0, 42, (1 << 64) - 1])
TAGS: st.SearchStrategy[tuple[str, ...]] = st.sampled_from([(), ("v1",), ("V1", "v2")])
META: st.SearchStrategy[Pairs] = st.sampled_from([(), (("rack", "a"),), (("os", "linux"), ("rack", "b"))])
WANTED_META: st.SearchStrategy[Pairs] = st.sampled_from([(), (), (("rack", "a"),)])
SERVICES = st.sampled_from(["web", "web", "db"])
INSTANCES = st.sampled_from(["x", "y"])
NODE_IDS = ("8f2ab6d2-0000-4000-8000-%012x", "8f2ab6d2-1111-4000-8000-%012x")
DATACENTER = "dc1"
DELAY_NS = 150_000_000
"""Of the few sessions that have a lock-delay: a lock is tried before and after it is over."""
NOBODY = "00000000-0000-4000-8000-000000000000"
"""A session that does not exist."""


class Names:
    """The names of one run."""

    def __init__(self, run: int, agents: tuple[str, ...]) -> None:
        self.run = run
        self.nodes = (f"n1-{run}", f"n2-{run}")
        self.prefix = f"r{run}/"
        self.keys = tuple(self.prefix + key for key in ("a", "a/b", "a/c", "b", "é 1"))
        self.prefixes = ("", self.prefix, f"{self.prefix}a", f"{self.prefix}a/", f"{self.prefix}none")
        self.agents = agents


def modify_index(row: object) -> Index:
    """What a conditional operation must give."""
    return row.modify_index if isinstance(row, Node | Service | Check) else 0


@st.composite
def indexes(draw: Draw, now: Index) -> Index:
    """An index to compare with: most often the right one, `now`."""
    return draw(st.sampled_from([now, now, now, 0, max(now - 1, 0), now + 1, 1 << 40]))


# ------------------------------------------------------------------------------------------------------------- commands


@st.composite
def key_commands(draw: Draw, names: Names, state: State) -> Command:
    """One of the KV store's commands, locks among them."""
    key, value, flags = draw(st.sampled_from(names.keys)), draw(VALUES), draw(FLAGS)
    row = state.rows.get(key)
    now = 0 if row is None else row.modify_index
    match draw(st.sampled_from(("set", "set", "cas", "delete", "delete-cas", "tree", "lock", "lock", "unlock"))):
        case "set":
            return Set(key, value, flags)
        case "cas":
            return CheckAndSet(key, value, flags, draw(indexes(now)))
        case "delete":
            return Delete(key)
        case "delete-cas":
            return DeleteCheckAndSet(key, draw(indexes(now)))
        case "tree":
            return DeleteTree(draw(st.sampled_from(names.prefixes)))
        case "lock":
            return Lock(key, value, flags, draw(session_ids(state)))
        case _:
            holder = [row.session] if row is not None and row.session else []
            return Unlock(key, value, flags, draw(st.sampled_from([*holder, *holder, draw(session_ids(state))])))


@st.composite
def session_ids(draw: Draw, state: State) -> str:
    """A session that exists, or rarely one that does not."""
    known = [session for session, _ in state.sessions.items()]
    return draw(st.sampled_from([*known, *known, NOBODY]))


@st.composite
def new_sessions(draw: Draw, names: Names, state: State) -> CreateSession:
    """A session on a node of this run or on an agent's, most without a lock-delay."""
    known = [node.node for key, node in state.nodes.items()]
    node = draw(st.sampled_from([*known, *known, *names.nodes]))
    present = [check.check_id for _, check in state.checks.items() if node_key(check.node) == node_key(node)]
    checks = draw(st.sampled_from([(), (), *((check,) for check in present), (SERF_HEALTH,), ("c", SERF_HEALTH)]))
    delay = draw(st.sampled_from([0, 0, 0, DELAY_NS]))
    ttl = draw(st.sampled_from(["", "", "24h"]))
    behavior = draw(st.sampled_from(list(Behavior)))
    return CreateSession(Session("", node, draw(st.sampled_from(["", "lock"])), delay, behavior, ttl, checks))


@st.composite
def nodes(draw: Draw, names: Names) -> Node:
    """A node, with an id or without, now and then spelled in capitals."""
    name = draw(st.sampled_from([*names.nodes, *names.nodes, names.nodes[0].upper()]))
    identity = draw(st.sampled_from(["", "", *(node_id % names.run for node_id in NODE_IDS)]))
    tagged: Pairs = draw(st.sampled_from([(), (("lan", "10.1.1.1"),)]))
    return Node(name, draw(st.sampled_from(["10.1.1.1", "10.1.1.2"])), identity, DATACENTER, tagged, draw(META))


@st.composite
def services(draw: Draw, node: str) -> Service:
    """An instance on a node."""
    return Service(
        node,
        draw(INSTANCES),
        draw(SERVICES),
        tags=draw(TAGS),
        address=draw(st.sampled_from(["", "10.2.2.2"])),
        port=draw(st.sampled_from([0, 80])),
        tagged_addresses=draw(st.sampled_from([(), (("lan", "10.2.2.2", 8080),)])),
        meta=draw(META),
        weights=draw(st.sampled_from([(1, 1), (10, 2)])),
        enable_tag_override=draw(st.booleans()),
    )


@st.composite
def checks(draw: Draw, node: str) -> Check:
    """A check of a node, or of an instance that it may not have."""
    check_id, service_id = draw(st.sampled_from([("c", ""), ("c", ""), (SERF_HEALTH, ""), ("cx", "x"), ("cy", "y")]))
    status = draw(st.sampled_from([Status.PASSING, Status.PASSING, Status.WARNING, Status.CRITICAL]))
    output = draw(st.sampled_from(["", "<all & well>"]))
    return Check(node, check_id, f"check {check_id}", status, "", output, service_id, type=draw(st.sampled_from(["", "ttl"])))


@st.composite
def registrations(draw: Draw, names: Names) -> Register:
    """A node with, perhaps, an instance and checks."""
    node = draw(nodes(names))
    service = draw(st.one_of(st.none(), services(node.node)))
    return Register(node, service, tuple(draw(st.lists(checks(node.node), max_size=2))), draw(st.booleans()))


@st.composite
def deregistrations(draw: Draw, names: Names) -> Deregister:
    """Of an instance, a check or a node."""
    kinds = [("x", ""), ("y", ""), ("", "c"), ("", SERF_HEALTH), ("", "cx"), ("", "")]
    service_id, check_id = draw(st.sampled_from(kinds))
    return Deregister(draw(st.sampled_from(names.nodes)), service_id, check_id)


# --------------------------------------------------------------------------------------------------------- transactions

KV_READS = (
    KvVerb.GET,
    KvVerb.GET_OR_EMPTY,
    KvVerb.GET_TREE,
    KvVerb.CHECK_INDEX,
    KvVerb.CHECK_SESSION,
    KvVerb.CHECK_NOT_EXISTS,
)


@st.composite
def kv_operations(draw: Draw, names: Names, state: State, verbs: tuple[KvVerb, ...] = tuple(KvVerb)) -> KvOperation:
    """An operation on a key that often succeeds."""
    verb = draw(st.sampled_from(verbs))
    if verb in (KvVerb.GET_TREE, KvVerb.DELETE_TREE):
        return KvOperation(verb, draw(st.sampled_from(names.prefixes)))
    present = [key for key in names.keys if key in state.rows]
    key = draw(st.sampled_from([*names.keys, *present, *present]))
    row = state.rows.get(key)
    session = row.session if row is not None and draw(st.booleans()) else draw(session_ids(state))
    index = draw(indexes(0 if row is None else row.modify_index))
    return KvOperation(verb, key, draw(VALUES), draw(FLAGS), index, session)


@st.composite
def row_operations(draw: Draw, names: Names, state: State, verbs: tuple[Verb, ...] = tuple(Verb)) -> Operation:
    """An operation on a node, an instance or a check."""
    verb, node = draw(st.sampled_from(verbs)), draw(nodes(names))
    match draw(st.sampled_from(("node", "service", "check"))):
        case "node":
            row = state.nodes.get(node_key(node.node))
            return NodeOperation(verb, replace(node, modify_index=draw(indexes(modify_index(row)))))
        case "service":
            service = draw(services(node.node))
            found = state.services.get(row_key(node.node, service.id))
            return ServiceOperation(verb, replace(service, modify_index=draw(indexes(modify_index(found)))))
        case _:
            check = draw(checks(node.node))
            old = state.checks.get(row_key(node.node, check.check_id))
            return CheckOperation(verb, replace(check, modify_index=draw(indexes(modify_index(old)))))


@st.composite
def written_transactions(draw: Draw, names: Names, state: State) -> Transaction:
    """At least one operation that writes: one that only reads goes another way."""
    either = st.one_of(kv_operations(names, state), row_operations(names, state))
    operations = [*draw(st.lists(either, max_size=3)), draw(kv_operations(names, state, (KvVerb.SET,)))]
    return Transaction(tuple(draw(st.permutations(operations))))


@st.composite
def read_transactions(draw: Draw, names: Names, state: State) -> Transaction:
    """Operations that only read."""
    either = st.one_of(kv_operations(names, state, KV_READS), row_operations(names, state, (Verb.GET,)))
    return Transaction(tuple(draw(st.lists(either, min_size=1, max_size=3))))


# ---------------------------------------------------------------------------------------------------------------- reads


@st.composite
def requests(draw: Draw, names: Names, state: State) -> Request:
    """A read of any kind."""
    node = st.sampled_from([*names.nodes, *names.nodes, names.nodes[0].upper(), names.agents[0], "none"])
    service = st.sampled_from(["web", "web", "db", "consul", "none"])
    tags: tuple[str, ...] = draw(st.sampled_from([(), (), ("v1",), ("v1", "V2")]))
    meta = draw(WANTED_META)
    prefix = draw(st.sampled_from(names.prefixes))
    kinds: list[Request] = [
        Get(draw(st.sampled_from(names.keys))),
        List(prefix),
        Keys(prefix, draw(st.sampled_from(["", "/"]))),
        ListNodes(meta),
        ListServices(meta),
        ServiceInstances(draw(service), tags, meta),
        NodeServices(draw(node)),
        NodeChecks(draw(node)),
        ServiceChecks(draw(service), meta),
        ChecksInState(draw(st.sampled_from(["any", "passing", "warning", "critical"])), meta),
        ServiceHealth(draw(service), tags, draw(st.booleans()), meta),
        GetSession(draw(session_ids(state))),
        ListSessions(draw(st.sampled_from(["", *names.nodes]))),
    ]
    return draw(st.sampled_from(kinds))


@st.composite
def reads(draw: Draw, names: Names, state: State) -> Read:
    """A read in any mode."""
    request = draw(requests(names, state))
    return Read(request, draw(MODES), as_list=isinstance(request, NodeServices) and draw(st.booleans()))
