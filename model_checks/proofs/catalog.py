"""The relational model of the catalog (`spec/catalog`): one entry of the log after the other, each all or nothing.

An entry begins, takes *operations* on the tables, and ends: by `commit`, which lets readers see the tables, or by
`refuse`, which puts back what they saw. An operation changes one row (or the indexes that announce it). A command
that does more is several: to deregister a node is to end its sessions, deregister its checks and instances, and then
the row. So a guard says what must be gone before a row may go, and every invariant holds after every operation, not
only after a command. Transactions need no more than that. That the readable spec's commands are such sequences, whole
ones, is linked (`linking/catalog.py`), not proved.

*Announcements.* Before a row changes, the indexes of the health answers that show it are raised (`touch_service`), and
a guard of the change says so.

*Copies* of the tables: `seen` is what readers see; any other is an archive, of what they saw once or, from the
beginning, of another catalog. `restore` is an entry that puts one in the place of everything; the entries after it
have greater indexes than all that it holds (the readable spec's `shift`). Indexes of answers may go back then, and a
hold may be given out a second time: what is said of two states does not speak of it, and the history of holds is the
archive's.

Left out, each of which allows more: what values are, and the rest of a row's fields (one `VALUE`); that a renamed node
keeps its CreateIndex (any earlier one is allowed); whether a session that ends releases its keys or deletes them (both
are allowed); conditions that only refuse (check-and-set, node names that are taken). Left out, and so not proved: the
indexes of service kinds, and of lists of keys all but `deletions_are_remembered`.

Must not: know what a transaction's verbs are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from model_checks.proofs.algebra import Algebra, Sort, Symbols, Transition, Value, action
from model_checks.proofs.catalog_signature import KEPT, LOCAL_LOCK_DELAY, TABLES, tables_of
from model_checks.proofs.model import Updates, set_at

KEY, SESSION, CONTRACT, COPY = Sort.KEY, Sort.SESSION, Sort.CONTRACT, Sort.COPY
NODE, INSTANCE, SERVICE, CHECK = Sort.NODE, Sort.INSTANCE, Sort.SERVICE, Sort.CHECK
VALUE, INDEX, BOOL = Sort.VALUE, Sort.INDEX, Sort.BOOL


INDEXES: Final = tuple(name for name, arity in TABLES.items() if arity.result is INDEX and not arity.arguments)
"""The indexes of tables, and those of extinctions."""


def at_most(a: Algebra, t: Symbols, top: Value) -> Value:
    """No index of a table, of a service or of a node is beyond an entry."""
    tables = [a.le(getattr(t, name)(), top) for name in INDEXES]
    services = a.forall((SERVICE,), lambda m: a.implies(t.populated(m), a.le(t.service_index(m), top)))
    nodes = a.forall((NODE,), lambda n: a.implies(t.node(n), a.le(t.node_index(n), top)))
    return a.conj(*tables, services, nodes)


# ------------------------------------------------------------------------------------------------ entries of the log


def published(a: Algebra, s: Symbols, tables: Symbols) -> Updates:
    """Readers see these tables from now on."""

    def of(name: str) -> Callable[..., Value]:
        symbol, kept = getattr(tables, name), getattr(s, KEPT + name)
        return lambda b, *at: a.ite(b == a.rigid.seen(), symbol(*at), kept(b, *at))

    return {KEPT + name: of(name) for name in TABLES}


@action(i=INDEX)
def begin(a: Algebra, s: Symbols, i: Value) -> Transition:
    """The next entry of the log is applied."""
    return Transition(
        a.conj(a.neg(s.open()), a.successor(s.applied(), i)), {"open": lambda: True, "applying": lambda: i}
    )


@action()
def commit(a: Algebra, s: Symbols) -> Transition:
    """All operations of the entry are done: readers see the tables."""

    def held(b: Value, k: Value, c: Value, n: Value, x: Value) -> Value:
        now = a.conj(b == a.rigid.seen(), s.holds(k, x), s.create(k) == c, s.lock_index(k) == n)
        return a.disj(s.held_as(b, k, c, n, x), now)

    return Transition(
        s.open(),
        {"open": lambda: False, "applied": lambda: s.applying(), "held_as": held, **published(a, s, s)},
    )


@action()
def refuse(a: Algebra, s: Symbols) -> Transition:
    """The entry fails, whatever it did: the tables are what readers see."""

    def of(name: str) -> Callable[..., Value]:
        kept = getattr(s, KEPT + name)
        return lambda *at: kept(a.rigid.seen(), *at)

    back = {} if a.mutated("refused_keeps_effects") else {name: of(name) for name in TABLES}
    return Transition(s.open(), {**back, "open": lambda: False, "applied": lambda: s.applying()})


@action(b=COPY)
def take_snapshot(a: Algebra, s: Symbols, b: Value) -> Transition:
    """What readers see is copied."""

    def of(name: str) -> Callable[..., Value]:
        kept = getattr(s, name)
        return lambda x, *at: a.ite(x == b, kept(a.rigid.seen(), *at), kept(x, *at))

    return Transition(b != a.rigid.seen(), {name: of(name) for name in ("held_as", *(KEPT + name for name in TABLES))})


@action(b=COPY, i=INDEX)
def restore(a: Algebra, s: Symbols, b: Value, i: Value) -> Transition:
    """The next entry of the log puts an archive in the place of everything, in one step; `i`: its index, or the newest
    of the archive's.
    """

    def of(name: str) -> Callable[..., Value]:
        kept = getattr(s, KEPT + name)
        if name == "session" and a.mutated("restore_forgets_sessions"):
            return lambda *at: False
        return lambda *at: kept(b, *at)

    def held(x: Value, *at: Value) -> Value:
        return a.ite(x == a.rigid.seen(), s.held_as(b, *at), s.held_as(x, *at))

    restored = {name: of(name) for name in TABLES}
    ahead = a.unless("restore_stays_behind", at_most(a, tables_of(s, b), i))
    applied = a.genesis if a.mutated("restore_goes_back") else i
    return Transition(
        a.conj(a.neg(s.open()), a.lt(s.applied(), i), ahead),
        {**restored, **published(a, s, Symbols(restored)), "held_as": held, "applied": lambda: applied},
    )


@action(k=KEY)
def clock(a: Algebra, s: Symbols, k: Value) -> Transition:
    """A lock-delay begins or ends by this server's clock."""
    return Transition(True, {"delayed": lambda x: a.ite(x == k, a.neg(s.delayed(k)), s.delayed(x))})


# ----------------------------------------------------------------------------------------------------------------- keys


def changed(a: Algebra, s: Symbols, k: Value) -> Updates:
    """The row of a key changes, and is there from now on."""
    now = s.applying()
    return {
        "row": lambda x: a.disj(x == k, s.row(x)),
        "create": lambda x: a.ite(a.conj(x == k, a.neg(s.row(k))), now, s.create(x)),
        "modify": set_at(a, s.modify, k, now),
        "rows_index": lambda: now,
    }


def locked_so_often(a: Algebra, s: Symbols, k: Value) -> Value:
    """How often the key was locked since it was created."""
    return a.ite(s.row(k), s.lock_index(k), a.genesis)


@action(k=KEY, v=VALUE)
def set_key(a: Algebra, s: Symbols, k: Value, v: Value) -> Transition:
    """Store a value that is new; one that is not changes nothing."""
    new = a.unless("unchanged_set_moves_index", a.neg(a.conj(s.row(k), s.value(k) == v)))
    updates: dict[str, Callable[..., Value]] = {
        **changed(a, s, k),
        "value": set_at(a, s.value, k, v),
        "lock_index": set_at(a, s.lock_index, k, locked_so_often(a, s, k)),
    }
    if a.mutated("changed_set_keeps_index"):
        updates["modify"] = lambda x: a.ite(a.conj(x == k, a.neg(s.row(k))), s.applying(), s.modify(x))
    if a.mutated("set_keeps_table_index"):
        updates["rows_index"] = lambda: s.rows_index()
    if a.mutated("operation_seen"):
        kept = s.kept_value
        updates["kept_value"] = lambda b, x: a.ite(a.conj(b == a.rigid.seen(), x == k), v, kept(b, x))
    return Transition(a.conj(s.open(), new), updates)


@action(k=KEY, x=SESSION, v=VALUE, n=INDEX)
def lock(a: Algebra, s: Symbols, k: Value, x: Value, v: Value, n: Value) -> Transition:
    """A session begins to hold a key, with a value. (Its holder that acquires it again sets it.)"""
    free = a.unless("lock_robs", a.forall((SESSION,), lambda y: a.neg(s.holds(k, y))))
    robbed = a.mutated("lock_robs")
    live = a.unless("lock_without_session", s.session(x))
    before = locked_so_often(a, s, k)
    kept = a.conj(a.mutated("lock_index_kept"), n == before, a.lt(a.genesis, n))
    now = a.neg(s.delayed(k)) if a.mutated(LOCAL_LOCK_DELAY) else True
    return Transition(
        a.conj(
            s.open(),
            live,
            a.unless("lock_while_held", free),
            a.neg(s.holds(k, x)),
            a.disj(a.successor(before, n), kept),
            now,
        ),
        {
            **changed(a, s, k),
            "value": set_at(a, s.value, k, v),
            "lock_index": set_at(a, s.lock_index, k, n),
            "holds": lambda y, z: a.disj(a.conj(y == k, z == x), a.conj(s.holds(y, z), a.neg(a.conj(y == k, robbed)))),
        },
    )


@action(k=KEY, x=SESSION, v=VALUE)
def release(a: Algebra, s: Symbols, k: Value, x: Value, v: Value) -> Transition:
    """A session holds a key no more: it said so, with a value, or it ends."""
    index = s.create(k) if a.mutated("release_takes_index_back") else s.applying()
    return Transition(
        a.conj(s.open(), s.holds(k, x)),
        {
            **changed(a, s, k),
            "value": set_at(a, s.value, k, v),
            "modify": set_at(a, s.modify, k, index),
            "holds": lambda y, z: a.conj(a.neg(a.conj(y == k, z == x)), s.holds(y, z)),
        },
    )


@action(k=KEY, p=KEY)
def delete_key(a: Algebra, s: Symbols, k: Value, p: Value) -> Transition:
    """A key is deleted, by its name or with all that begin with `p`, the tombstone's name; the root has none."""
    now, r = s.applying(), a.rigid
    buried = False if a.mutated("deletion_forgets_tombstone") else a.neg(r.root(p))
    return Transition(
        a.conj(s.open(), s.row(k), r.covers(p, k)),
        {
            "row": lambda x: a.conj(x != k, s.row(x)),
            "holds": lambda x, y: a.conj(x != k, s.holds(x, y)),
            "tombstone": lambda x: a.disj(a.conj(x == p, buried), s.tombstone(x)),
            "tombstone_index": lambda x: a.ite(a.conj(x == p, buried), now, s.tombstone_index(x)),
            "rows_index": lambda: s.rows_index() if a.mutated("deletion_keeps_index") else now,
            "tombstones_index": lambda: a.ite(buried, now, s.tombstones_index()),
            "grave": set_at(a, s.grave, k, p),
        },
    )


@action(i=INDEX)
def reap_tombstones(a: Algebra, s: Symbols, i: Value) -> Transition:
    """Tombstones of earlier entries are forgotten."""
    return Transition(
        a.conj(s.open(), a.lt(i, s.applying())),
        {"tombstone": lambda x: a.conj(s.tombstone(x), a.neg(a.le(s.tombstone_index(x), i)))},
    )


# ------------------------------------------------------------------------------------------------------------- sessions


def nobody_rests_on(a: Algebra, s: Symbols, c: Value) -> Value:
    """No session depends on a check."""
    return a.forall(
        (SESSION,), lambda x: a.neg(a.conj(s.session(x), a.rigid.asks(s.terms(x), c))), lambda x: [[s.session(x)]]
    )


@action(x=SESSION, d=CONTRACT)
def create_session(a: Algebra, s: Symbols, x: Value, d: Value) -> Transition:
    """A session begins; its node and its checks are there, and none of them is critical."""

    def rests(c: Value) -> Value:
        healthy = a.unless("session_on_critical", a.neg(s.critical(c)))
        return a.implies(a.rigid.asks(d, c), a.conj(s.check(c), healthy))

    now = s.applying()
    return Transition(
        a.conj(s.open(), s.node(a.rigid.place(d)), a.forall((CHECK,), rests)),
        {
            "session": lambda y: a.disj(y == x, s.session(y)),
            "terms": set_at(a, s.terms, x, d),
            "session_create": set_at(a, s.session_create, x, now),
            "sessions_index": lambda: now,
        },
    )


@action(x=SESSION)
def end_session(a: Algebra, s: Symbols, x: Value) -> Transition:
    """A session ends, for whatever reason, once its keys are released or deleted."""
    free = a.unless("session_end_keeps_lock", a.forall((KEY,), lambda k: a.neg(s.holds(k, x))))
    index = s.sessions_index() if a.mutated("session_end_not_announced") else s.applying()
    return Transition(
        a.conj(s.open(), s.session(x), free),
        {"session": lambda y: a.conj(y != x, s.session(y)), "sessions_index": lambda: index},
    )


# --------------------------------------------------------------------------------------------- nodes, instances, checks


def announced(a: Algebra, s: Symbols, m: Value) -> Value:
    """This entry has raised the index of a service."""
    return s.service_index(m) == s.applying()


def announced_on(a: Algebra, s: Symbols, n: Value) -> Value:
    """It has raised those of all services that have instances on a node."""

    def body(x: Value) -> Value:
        return a.implies(a.conj(s.instance(x), a.rigid.at(x) == n), announced(a, s, s.name(x)))

    return a.forall((INSTANCE,), body, lambda x: [[s.instance(x)]])


def shown(a: Algebra, s: Symbols, c: Value, of_instance: Value, x: Value) -> Value:
    """It has raised those of all services whose health answers show a check."""
    whole = a.implies(a.neg(of_instance), announced_on(a, s, a.rigid.home(c)))
    return a.unless("health_not_announced", a.conj(whole, a.implies(of_instance, announced(a, s, s.name(x)))))


@action(m=SERVICE)
def touch_service(a: Algebra, s: Symbols, m: Value) -> Transition:
    """The index of a service that has instances is raised."""
    return Transition(a.conj(s.open(), s.populated(m)), {"service_index": set_at(a, s.service_index, m, s.applying())})


@action(n=NODE, v=VALUE, i=INDEX)
def put_node(a: Algebra, s: Symbols, n: Value, v: Value, i: Value) -> Transition:
    """A node is registered or changed; one that got another name keeps its CreateIndex."""
    now = s.applying()
    told = a.unless("node_not_announced", announced_on(a, s, n))
    return Transition(
        a.conj(s.open(), a.lt(a.genesis, i), a.le(i, now), told),
        {
            "node": lambda x: a.disj(x == n, s.node(x)),
            "node_create": set_at(a, s.node_create, n, i),
            "node_modify": set_at(a, s.node_modify, n, now),
            "node_value": set_at(a, s.node_value, n, v),
            "node_index": set_at(a, s.node_index, n, now),
            "nodes_index": lambda: now,
        },
    )


@action(n=NODE)
def delete_node(a: Algebra, s: Symbols, n: Value) -> Transition:
    """A node is deregistered, when nothing is on it any more."""
    r = a.rigid
    instances = a.forall((INSTANCE,), lambda x: a.neg(a.conj(s.instance(x), r.at(x) == n)))
    checks = a.forall((CHECK,), lambda c: a.neg(a.conj(s.check(c), r.home(c) == n)))
    sessions = a.forall((SESSION,), lambda x: a.neg(a.conj(s.session(x), r.place(s.terms(x)) == n)))
    return Transition(
        a.conj(
            s.open(),
            s.node(n),
            a.unless("node_leaves_instances", instances),
            a.unless("node_leaves_checks", checks),
            a.unless("node_leaves_sessions", sessions),
        ),
        {
            "node": lambda x: a.conj(x != n, s.node(x)),
            "nodes_index": lambda: s.applying(),
            "node_extinction_index": lambda: s.applying(),
        },
    )


def joined(a: Algebra, s: Symbols, x: Value, m: Value, v: Value) -> Updates:
    """An instance is stored under the name of a service."""
    now = s.applying()
    told = a.neg(a.mutated("instance_not_announced"))
    return {
        "instance": lambda y: a.disj(y == x, s.instance(y)),
        "name": set_at(a, s.name, x, m),
        "instance_create": lambda y: a.ite(a.conj(y == x, a.neg(s.instance(x))), now, s.instance_create(y)),
        "instance_modify": set_at(a, s.instance_modify, x, now),
        "instance_value": set_at(a, s.instance_value, x, v),
        "node_index": lambda n: a.ite(a.conj(n == a.rigid.at(x), told), now, s.node_index(n)),
        "services_index": lambda: now,
        "nodes_index": lambda: now,
    }


def left(a: Algebra, s: Symbols, x: Value, y: Value) -> tuple[Value, Value]:
    """Guard, and whether anybody is left: `y` is another instance of the service of `x`, or `x` itself, the last."""
    m = s.name(x)
    alone = a.forall((INSTANCE,), lambda z: a.implies(a.conj(s.instance(z), s.name(z) == m), z == x))
    other = a.conj(s.instance(y), s.name(y) == m)
    return a.conj(other, a.implies(y == x, alone)), y != x


@action(x=INSTANCE, m=SERVICE, v=VALUE)
def put_instance(a: Algebra, s: Symbols, x: Value, m: Value, v: Value) -> Transition:
    """An instance is registered, or changed but for its service."""
    here = a.unless("instance_without_node", s.node(a.rigid.at(x)))
    return Transition(
        a.conj(s.open(), here, a.implies(s.instance(x), s.name(x) == m)),
        {
            **joined(a, s, x, m, v),
            "populated": lambda y: a.disj(y == m, s.populated(y)),
            "service_index": set_at(a, s.service_index, m, s.applying()),
            "member_of": set_at(a, s.member_of, m, x),
        },
    )


@action(x=INSTANCE, m=SERVICE, v=VALUE, y=INSTANCE)
def move_instance(a: Algebra, s: Symbols, x: Value, m: Value, v: Value, y: Value) -> Transition:
    """An instance becomes one of another service; `y` is left in the one before, or is `x`: nobody."""
    now, old = s.applying(), s.name(x)
    departs, left_behind = left(a, s, x, y)
    return Transition(
        a.conj(s.open(), s.instance(x), old != m, departs),
        {
            **joined(a, s, x, m, v),
            "populated": lambda z: a.ite(z == old, left_behind, a.disj(z == m, s.populated(z))),
            "service_index": lambda z: a.ite(a.disj(z == old, z == m), now, s.service_index(z)),
            "member_of": lambda z: a.ite(z == m, x, a.ite(z == old, y, s.member_of(z))),
            "extinction_index": lambda: a.ite(left_behind, s.extinction_index(), now),
        },
    )


@action(x=INSTANCE, y=INSTANCE)
def delete_instance(a: Algebra, s: Symbols, x: Value, y: Value) -> Transition:
    """An instance is deregistered, when its checks are; `y` is left, or is `x`: nobody."""
    now, old = s.applying(), s.name(x)
    departs, left_behind = left(a, s, x, y)
    unchecked = a.forall((CHECK,), lambda c: a.neg(a.conj(s.check(c), s.of_instance(c), s.subject(c) == x)))
    silent = a.conj(s.extinction_index() != a.genesis, a.mutated("departure_not_announced"))
    return Transition(
        a.conj(s.open(), s.instance(x), departs, a.unless("instance_leaves_checks", unchecked)),
        {
            "instance": lambda z: a.conj(z != x, s.instance(z)),
            "populated": lambda z: a.ite(z == old, left_behind, s.populated(z)),
            "service_index": set_at(a, s.service_index, old, now),
            "member_of": set_at(a, s.member_of, old, y),
            "node_index": set_at(a, s.node_index, a.rigid.at(x), now),
            "extinction_index": lambda: a.ite(a.disj(left_behind, silent), s.extinction_index(), now),
            **{table: lambda: now for table in ("services_index", "nodes_index", "checks_index")},
        },
    )


@action(c=CHECK, v=VALUE, critical=BOOL, of_instance=BOOL, x=INSTANCE)
def put_check(a: Algebra, s: Symbols, c: Value, v: Value, critical: Value, of_instance: Value, x: Value) -> Transition:
    """A check of a node, or of its instance `x`, is registered or changed; if it is critical, nobody may rest on it."""
    now, home = s.applying(), a.rigid.home(c)
    exists = a.implies(of_instance, a.conj(s.instance(x), a.rigid.at(x) == home))
    before = a.implies(s.check(c), shown(a, s, c, s.of_instance(c), s.subject(c)))
    ended = a.unless("critical_leaves_session", a.implies(critical, nobody_rests_on(a, s, c)))
    return Transition(
        a.conj(s.open(), s.node(home), exists, ended, before, shown(a, s, c, of_instance, x)),
        {
            "check": lambda y: a.disj(y == c, s.check(y)),
            "critical": set_at(a, s.critical, c, critical),
            "of_instance": set_at(a, s.of_instance, c, of_instance),
            "subject": set_at(a, s.subject, c, x),
            "check_create": lambda y: a.ite(a.conj(y == c, a.neg(s.check(c))), now, s.check_create(y)),
            "check_modify": set_at(a, s.check_modify, c, now),
            "check_value": set_at(a, s.check_value, c, v),
            "checks_index": lambda: now,
        },
    )


@action(c=CHECK)
def delete_check(a: Algebra, s: Symbols, c: Value) -> Transition:
    """A check is deregistered, when no session rests on it any more."""
    now = s.applying()
    ended = a.unless("check_leaves_session", nobody_rests_on(a, s, c))
    return Transition(
        a.conj(s.open(), s.check(c), ended, shown(a, s, c, s.of_instance(c), s.subject(c))),
        {
            "check": lambda y: a.conj(y != c, s.check(y)),
            "checks_index": lambda: now,
            "services_index": lambda: a.ite(s.of_instance(c), s.services_index(), now),
        },
    )


ENTRIES: Final = (begin, commit, refuse, take_snapshot, restore, clock)
"""The life of an entry, snapshots, and a clock that the tables must not depend on."""

OPERATIONS: Final = (
    *(set_key, lock, release, delete_key, reap_tombstones, create_session, end_session),
    *(touch_service, put_node, delete_node, put_instance, move_instance, delete_instance, put_check, delete_check),
)
"""What an entry does, one row after the other."""

ACTIONS: Final = (*ENTRIES, *OPERATIONS)
