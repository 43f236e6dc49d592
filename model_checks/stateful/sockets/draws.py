"""What a client asks, chosen at random: few names, so that requests meet, and the indexes that matter.

What is chosen depends on the state: a check-and-set is worth little if its index is never right. Hypothesis must not
draw what depends on a state that outlives the run, so it draws a number, and a `Choice` is made from that. Names belong
to a run (`Names`), services do not: a service whose last instance was deregistered is known to the next run by its
index.
Commands are complete, so that an agent has nothing to add.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final, TypeVar

from msgspec.structs import replace

from model_checks.catalog.http_requests import Mode, Read
from model_checks.catalog.probes import PROBES, type_of
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

T = TypeVar("T")

VALUES: Final = (b"", b"1", b"2", b"\xff\x00 \xc3\xa9")
FLAGS: Final = (0, 0, 42, (1 << 64) - 1)
TAGS: Final[tuple[tuple[str, ...], ...]] = ((), ("v1",), ("V1", "v2"))
META: Final[tuple[Pairs, ...]] = ((), (("rack", "a"),), (("os", "linux"), ("rack", "b")))
NODE_IDS: Final = ("8f2ab6d2-0000-4000-8000-%012x", "8f2ab6d2-1111-4000-8000-%012x")
DATACENTER: Final = "dc1"
DELAY_NS: Final = 100_000_000
"""Of the few sessions that have a lock-delay: a lock is tried before and after it is over."""
TAKEN_NAME: Final = 0.08
"""How often a node is registered under the name of an agent that is alive."""
NOBODY: Final = "00000000-0000-4000-8000-000000000000"
"""A session that does not exist."""
KV_READS: Final = (
    KvVerb.GET,
    KvVerb.GET_OR_EMPTY,
    KvVerb.GET_TREE,
    KvVerb.CHECK_INDEX,
    KvVerb.CHECK_SESSION,
    KvVerb.CHECK_NOT_EXISTS,
)
ROWS: Final = ("node", "service", "check")
KINDS: Final[tuple[tuple[str, Verb | KvVerb], ...]] = (
    *(("kv", verb) for verb in KvVerb),
    *((kind, verb) for kind in ROWS for verb in Verb),
)
"""Every operation that a transaction may have."""
READS_ONLY: Final = tuple((kind, verb) for kind, verb in KINDS if verb is Verb.GET or verb in KV_READS)


NATIVE: Final = '{"Connect":{"Native":true}}'
PROXIES: Final = tuple(
    ("connect-proxy", name, f'{{"Proxy":{{"DestinationServiceName":"{name}","Expose":{{}},{rest}}}}}')
    for name, rest in (("web", '"MeshGateway":{},"Mode":""'), ("Web", '"MeshGateway":{"Mode":"local"},"Mode":"direct"'))
)
"""Kind, destination and what is said of the mesh."""


class Names:
    """The names of one run."""

    def __init__(self, run: int, agents: tuple[str, ...]) -> None:
        self.run = run
        self.with_id = (f"n1-{run}", f"n2-{run}")
        """Nodes that may have an id, and no `serfHealth`: a new leader takes what has both for an agent, and writes of
        its life."""
        self.nodes = (*self.with_id, f"n3-{run}")
        self.keys = tuple(f"r{run}/{key}" for key in ("a", "a/b", "a/c", "b", "é 1"))
        self.prefixes = ("", *(f"r{run}/{prefix}" for prefix in ("", "a", "a/", "none")))
        self.agents = agents


def modify_index(row: Node | Service | Check | None) -> Index:
    """What a conditional operation on the row must give."""
    return 0 if row is None else row.modify_index


class Choice:
    """Choices of one step, from the state that it meets."""

    def __init__(self, random: Random, names: Names, state: State) -> None:
        self.random = random
        self.names = names
        self.state = state

    def of(self, choices: Sequence[T]) -> T:
        """One of them."""
        return self.random.choice(choices)

    def truth(self) -> bool:
        """Either."""
        return self.random.random() < 0.5

    def index(self, now: Index) -> Index:
        """An index to compare with: most often the right one, `now`."""
        return self.of((now, now, now, 0, max(now - 1, 0), now + 1, 1 << 40))

    # --------------------------------------------------------------------------------------------------------- commands

    def key_command(self) -> Command:
        """One of the KV store's commands, locks among them."""
        key, value, flags = self.of(self.names.keys), self.of(VALUES), self.of(FLAGS)
        row = self.state.rows.get(key)
        now = 0 if row is None else row.modify_index
        match self.of(("set", "set", "cas", "delete", "delete-cas", "tree", "lock", "lock", "unlock")):
            case "set":
                return Set(key, value, flags)
            case "cas":
                return CheckAndSet(key, value, flags, self.index(now))
            case "delete":
                return Delete(key)
            case "delete-cas":
                return DeleteCheckAndSet(key, self.index(now))
            case "tree":
                return DeleteTree(self.of(self.names.prefixes))
            case "lock":
                return Lock(key, value, flags, self.session_id())
            case _:
                holder = [row.session] if row is not None and row.session else []
                return Unlock(key, value, flags, self.of([*holder, *holder, self.session_id()]))

    def session_id(self) -> str:
        """A session that exists, or rarely one that does not."""
        known = [session for session, _ in self.state.sessions.items()]
        return self.of([*known, *known, NOBODY])

    def new_session(self) -> CreateSession:
        """A session on a node of this run or on an agent's, most without a lock-delay."""
        known = [node.node for _, node in self.state.nodes.items()]
        node = self.of([*known, *known, *self.names.nodes])
        checks = [check.check_id for _, check in self.state.checks.items() if node_key(check.node) == node_key(node)]
        depends = self.of([(), (), *((check,) for check in checks), (SERF_HEALTH,), ("c", SERF_HEALTH)])
        delay, ttl, name = self.of((0, 0, 0, DELAY_NS)), self.of(("", "", "24h")), self.of(("", "lock"))
        return CreateSession(Session("", node, name, delay, self.of(list(Behavior)), ttl, depends))

    def node(self) -> Node:
        """A node, with an id or without, now and then spelled in capitals."""
        name = self.of([*self.names.nodes, *self.names.nodes, self.names.nodes[0].upper()])
        identity = self._node_id() if node_key(name) in self.names.with_id and self.truth() else ""
        tagged: Pairs = self.of(((), (("lan", "10.1.1.1"),)))
        return Node(name, self.of(("10.1.1.1", "10.1.1.2")), identity, DATACENTER, tagged, self.of(META))

    def _node_id(self) -> str:
        return self.of(NODE_IDS) % self.names.run

    def service(self, node: str) -> Service:
        """An instance on a node: perhaps a proxy, or one that needs none."""
        name = self.of(("web", "web", "db"))
        kind, connect, mesh = self.of((("", "", ""), ("", "", ""), ("", name, NATIVE), *PROXIES))
        return Service(
            node,
            self.of(("x", "y")),
            name,
            kind,
            tags=self.of(TAGS),
            address=self.of(("", "10.2.2.2")),
            port=80 if connect else self.of((0, 80)),
            tagged_addresses=self.of(((), (("lan", "10.2.2.2", 8080),))),
            meta=self.of(META),
            weights=self.of(((1, 1), (10, 2), (5, 0))),
            enable_tag_override=self.truth(),
            connect=connect,
            mesh=mesh,
        )

    def check(self, node: str) -> Check:
        """A check of a node, or of an instance that it may not have."""
        own = "c" if node_key(node) in self.names.with_id else SERF_HEALTH
        check_id, service_id = self.of((("c", ""), ("c", ""), (own, ""), ("cx", "x"), ("cy", "y")))
        status = self.of((Status.PASSING, Status.PASSING, Status.WARNING, Status.CRITICAL))
        output, kind = self.of(("", "<all & well>")), self.of(("", "ttl"))
        definition = self.of(tuple(PROBES)) if self.truth() else ""
        interval, timeout = self.of((("", ""), ("10s", "1s")))
        return Check(
            node,
            check_id,
            f"check {check_id}",
            status,
            "a note",
            output,
            service_id,
            type=kind or type_of(definition),
            interval=interval,
            timeout=timeout,
            definition=definition,
        )

    def registration(self) -> Register:
        """A node with, perhaps, an instance and checks; or rarely one that has the name of an agent, which is taken."""
        if self.random.random() < TAKEN_NAME:
            return Register(Node(self.of(self.names.agents), "10.1.1.9", self._node_id(), DATACENTER))
        node = self.node()
        service = self.service(node.node) if self.truth() else None
        checks = tuple(self.check(node.node) for _ in range(self.of((0, 1, 2))))
        return Register(node, service, checks, self.truth())

    def deregistration(self) -> Deregister:
        """Of an instance, a check or a node."""
        service_id, check_id = self.of((("x", ""), ("y", ""), ("", "c"), ("", SERF_HEALTH), ("", "cx"), ("", "")))
        return Deregister(self.of(self.names.nodes), service_id, check_id)

    # ----------------------------------------------------------------------------------------------------- transactions

    def operation(self, kind: str, verb: Verb | KvVerb) -> Operation:
        """An operation of this kind, one that often succeeds."""
        if isinstance(verb, KvVerb):
            return self._kv_operation(verb)
        node = self.node()
        match kind:
            case "node":
                row = self.state.nodes.get(node_key(node.node))
                return NodeOperation(verb, replace(node, modify_index=self.index(modify_index(row))))
            case "service":
                service = self.service(node.node)
                found = self.state.services.get(row_key(node.node, service.id))
                return ServiceOperation(verb, replace(service, modify_index=self.index(modify_index(found))))
            case _:
                check = self.check(node.node)
                old = self.state.checks.get(row_key(node.node, check.check_id))
                return CheckOperation(verb, replace(check, modify_index=self.index(modify_index(old))))

    def _kv_operation(self, verb: KvVerb) -> KvOperation:
        if verb is KvVerb.GET_TREE:
            return KvOperation(verb, self.of(self.names.prefixes[1:]))  # an operation must name a key
        if verb is KvVerb.DELETE_TREE:
            return KvOperation(verb, self.of(self.names.prefixes))
        present = [key for key in self.names.keys if key in self.state.rows]
        key = self.of([*self.names.keys, *present, *present])
        row = self.state.rows.get(key)
        session = row.session if row is not None and self.truth() else self.session_id()
        index = self.index(0 if row is None else row.modify_index)
        return KvOperation(verb, key, self.of(VALUES), self.of(FLAGS), index, session)

    def written_transaction(self, turn: int) -> Transaction:
        """A set, since what only reads goes another way; an operation whose turn it is, so that all come; others."""
        kinds = [KINDS[turn % len(KINDS)], *self.random.choices(KINDS, k=self.of((0, 0, 1, 2))), ("kv", KvVerb.SET)]
        self.random.shuffle(kinds)
        return Transaction(tuple(self.operation(kind, verb) for kind, verb in kinds))

    def read_transaction(self) -> Transaction:
        """Operations that only read."""
        kinds = self.random.choices(READS_ONLY, k=self.of((1, 1, 2, 3)))
        return Transaction(tuple(self.operation(kind, verb) for kind, verb in kinds))

    # ------------------------------------------------------------------------------------------------------------ reads

    def request(self) -> Request:
        """A read of any kind."""
        node = self.of(
            [*self.names.nodes, *self.names.nodes, self.names.nodes[0].upper(), self.names.agents[0], "none"]
        )
        service = self.of(("web", "web", "db", "consul", "none"))
        tags: tuple[str, ...] = self.of(((), (), ("v1",), ("v1", "V2")))
        meta: Pairs = self.of(((), (), (("rack", "a"),), (("os", "linux"), ("rack", self.of(("a", "b"))))))
        prefix = self.of(self.names.prefixes)
        kinds: tuple[Request, ...] = (
            Get(self.of(self.names.keys)),
            List(prefix),
            Keys(prefix, self.of(("", "/"))),
            ListNodes(meta),
            ListServices(meta),
            ServiceInstances(service, tags, meta),
            ServiceInstances(service, tags, meta, connect=True),
            NodeServices(node),
            NodeChecks(node),
            ServiceChecks(service, meta),
            ChecksInState(self.of(("any", "passing", "warning", "critical")), meta),
            ServiceHealth(service, tags, self.truth(), meta),
            ServiceHealth(service, tags, self.truth(), meta, connect=True),
            GetSession(self.session_id()),
            ListSessions(self.of(("", *self.names.nodes))),
        )
        return self.of(kinds)

    def read(self) -> Read:
        """A read in any mode."""
        request = self.request()
        return Read(request, self.of(list(Mode)), as_list=isinstance(request, NodeServices) and self.truth())
