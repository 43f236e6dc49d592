"""Random logs of catalog commands from a seed, so biased that commands meet: sessions live, keys are held, checks fail.

Hypothesis (`generated`) draws commands that know nothing of the state: most of them find nothing to do, which is what a
shrinking search for a disagreement wants. Here a command is drawn with an eye on the state that the log has built.
Must not: draw only what succeeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from model_checks.catalog.generated import restore_of, state_after
from spec.catalog.commands import (
    CheckAndSet,
    CheckOperation,
    Command,
    CreateSession,
    Delete,
    DeleteCheckAndSet,
    DeleteTree,
    Deregister,
    DestroySession,
    KvOperation,
    KvVerb,
    Lock,
    NodeOperation,
    Noop,
    Operation,
    ReapTombstones,
    Register,
    ServiceOperation,
    Set,
    Transaction,
    Unlock,
    Verb,
)
from spec.catalog.restore import rows_of
from spec.catalog.state import (
    ArchivedRow,
    Behavior,
    Check,
    Index,
    Node,
    Service,
    Session,
    State,
    Status,
    initial_state,
    row_key,
)
from spec.catalog.transitions import apply

NODES = ("n1", "N1", "n2", "n3")
NODE_IDS = ("", "", "u", "v")
INSTANCES = ("x", "y")
SERVICES = ("web", "db")
CHECKS = ("serfHealth", "c", "d")
KEYS = ("a", "a/b", "a/c", "b")
SESSIONS = ("r", "s", "t")
VALUES = (b"", b"1", b"2")
OPERATIONS_MAX = 4
HEALTHY = 0.8
"""How often a check is not critical."""
ARCHIVED, RESTORED = 0.1, 0.04
"""How often a state is archived, and an archive restored, after an entry."""
CURRENT = 0.7
"""How often a condition names the present index."""


def random_log(seed: int, length: int, *, restores: bool = False) -> Iterator[Command]:
    """A log; the first entry is a leader's own. `restores`: of what the catalog once was, and of other catalogs."""
    rng, state = Random(seed), initial_state()
    command: Command = Noop()
    archive, under_way = rows_of(state), list[Command]()
    for index in range(1, length + 1):
        yield command
        state, _ = apply(state, command, index)
        if restores and rng.random() < ARCHIVED:
            archive = rows_of(state) if rng.random() < HEALTHY else elsewhere(rng)
        if restores and not under_way and rng.random() < RESTORED:
            under_way = restore_of(archive, at_once=10)
        command = under_way.pop(0) if under_way and rng.random() < HEALTHY else drawn(rng, state, index + state.shift)


def elsewhere(rng: Random) -> tuple[ArchivedRow, ...]:
    """An archive of another catalog, whose log is longer or shorter."""
    return rows_of(state_after(list(random_log(rng.randrange(1 << 30), 60)), rng.choice((1, 500))))


def drawn(rng: Random, state: State, index: Index) -> Command:
    """A command for a state; `index`: of the newest entry, as the state's rows have it."""
    key, value, session = rng.choice(KEYS), rng.choice(VALUES), a_session(rng, state)
    match rng.choices(range(14), (1, 16, 5, 10, 6, 9, 5, 3, 3, 2, 6, 5, 3, 14))[0]:
        case 0:
            return Noop()
        case 1:
            return registration(rng)
        case 2:
            return Deregister(rng.choice(NODES), rng.choice(("", *INSTANCES)), rng.choice(("", *CHECKS)))
        case 3:
            return CreateSession(new_session(rng, state))
        case 4:
            return DestroySession(session)
        case 5:
            return Lock(key, value, 0, session)
        case 6:
            return Unlock(key, value, 0, holder(state, key) or session)
        case 7:
            return Delete(key)
        case 8:
            return DeleteCheckAndSet(key, expected(rng, state, key, index))
        case 9:
            return DeleteTree(rng.choice(("", "a", "a/", "b", "none")))
        case 10:
            return Set(key, value, rng.randrange(2))
        case 11:
            return CheckAndSet(key, value, 0, expected(rng, state, key, index))
        case 12:
            return ReapTombstones(max(0, index - rng.randrange(10)))
        case _:
            return Transaction(tuple(operation(rng, state, index) for _ in range(rng.randint(1, OPERATIONS_MAX))))


def a_session(rng: Random, state: State) -> str:
    """A session, preferably one that lives."""
    live = [session_id for session_id, _ in state.sessions.items()]
    return rng.choice(live) if live and rng.random() < HEALTHY else rng.choice(SESSIONS)


def holder(state: State, key: str) -> str:
    """Who holds a key."""
    row = state.rows.get(key)
    return "" if row is None else row.session


def expected(rng: Random, state: State, key: str, index: Index) -> Index:
    """What a condition on a key names: what is there, or any other index."""
    row = state.rows.get(key)
    present = 0 if row is None else row.modify_index
    return present if rng.random() < CURRENT else rng.randrange(index + 1)


def new_session(rng: Random, state: State) -> Session:
    """A session that rests on checks of its node that are there, or may not be."""
    node = rng.choice(NODES)
    there = [check_id for check_id in CHECKS if row_key(node, check_id) in state.checks]
    names = rng.sample(there, rng.randint(0, len(there))) if rng.random() < HEALTHY else [rng.choice(CHECKS)]
    behavior = rng.choice(list(Behavior))
    return Session(rng.choice(SESSIONS), node, behavior=behavior, node_checks=tuple(sorted(names)))


def status(rng: Random) -> Status:
    """The status of a check."""
    return rng.choice((Status.PASSING, Status.WARNING)) if rng.random() < HEALTHY else Status.CRITICAL


def node(rng: Random) -> Node:
    """A node: known by its name, or by an id that may be another's."""
    return Node(rng.choice(NODES), rng.choice(("1", "2")), rng.choice(NODE_IDS))


def service(rng: Random, on: str) -> Service:
    """An instance of one of two services."""
    return Service(on, rng.choice(INSTANCES), rng.choice(SERVICES), port=rng.randrange(2))


def check(rng: Random, on: str) -> Check:
    """A check of a node, or of an instance that it may not have."""
    return Check(on, rng.choice(CHECKS), status=status(rng), service_id=rng.choice(("", "", *INSTANCES)))


def registration(rng: Random) -> Register:
    """A node with, perhaps, an instance and checks."""
    registered = node(rng)
    instance = service(rng, registered.node) if rng.random() < 0.5 else None
    checks = tuple(check(rng, registered.node) for _ in range(rng.randrange(3)))
    return Register(registered, instance, checks, rng.random() < 0.5)


def operation(rng: Random, state: State, index: Index) -> Operation:
    """An operation of a transaction; most would succeed."""
    kind, verb = rng.randrange(6), rng.choice((Verb.SET, Verb.SET, Verb.CAS, Verb.DELETE, Verb.DELETE_CAS, Verb.GET))
    on = rng.choice(NODES)
    if kind == 0:
        return NodeOperation(verb, node(rng))
    if kind == 1:
        return ServiceOperation(verb, service(rng, on))
    if kind == 2:
        return CheckOperation(verb, check(rng, on))
    key = rng.choice(KEYS)
    kv_verb = rng.choice([each for each in KvVerb if each is not KvVerb.CHECK_NOT_EXISTS])
    session = holder(state, key) if kv_verb is KvVerb.UNLOCK else ""
    return KvOperation(
        kv_verb, key, rng.choice(VALUES), 0, expected(rng, state, key, index), session or a_session(rng, state)
    )
