"""The lemmas that make the catalog's theorems inductive.

Each invariant is a formula over tables. It is a lemma of the tables that an entry works on, and of every copy of them,
the one that readers see and snapshots. What an entry has done so far is compared with what readers still see: what
they will see changed is announced. The theorems about two states follow, since an entry ends by showing the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from model_checks.proofs.algebra import (
    Algebra,
    Arity,
    Property,
    Sort,
    Symbols,
    Value,
    state_property,
)
from model_checks.proofs.catalog import INDEXES, at_most
from model_checks.proofs.catalog_signature import FIELDS, KEPT, TABLES, tables_of

KEY, SESSION, COPY, INDEX = Sort.KEY, Sort.SESSION, Sort.COPY, Sort.INDEX
NODE, INSTANCE, SERVICE, CHECK = Sort.NODE, Sort.INSTANCE, Sort.SERVICE, Sort.CHECK

Invariant = Callable[[Algebra, Symbols], Value]
"""What holds of tables."""


def read(a: Algebra, s: Symbols) -> Symbols:
    """The tables that readers see."""
    return tables_of(s, a.rigid.seen())


def newest(a: Algebra, s: Symbols) -> Value:
    """The newest index that tables may hold."""
    return a.ite(s.open(), s.applying(), s.applied())


# -------------------------------------------------------------------------------------------------- what tables satisfy


def held_keys(a: Algebra, t: Symbols) -> Value:
    """A key that is held exists and was acquired, its session lives."""

    def body(k: Value, x: Value) -> Value:
        return a.implies(t.holds(k, x), a.conj(t.row(k), a.lt(a.genesis, t.lock_index(k)), t.session(x)))

    return a.forall((KEY, SESSION), body)


def one_holder(a: Algebra, t: Symbols) -> Value:
    """At most one session holds a key."""
    return a.forall((KEY, SESSION, SESSION), lambda k, x, y: a.implies(a.conj(t.holds(k, x), t.holds(k, y)), x == y))


def nodes_exist(a: Algebra, t: Symbols) -> Value:
    """Instances and checks have their node."""
    return a.conj(
        a.forall((INSTANCE,), lambda x: a.implies(t.instance(x), t.node(a.rigid.at(x)))),
        a.forall((CHECK,), lambda c: a.implies(t.check(c), t.node(a.rigid.home(c)))),
    )


def instances_exist(a: Algebra, t: Symbols) -> Value:
    """A check of an instance has it, on its own node."""

    def body(c: Value) -> Value:
        x = t.subject(c)
        return a.implies(a.conj(t.check(c), t.of_instance(c)), a.conj(t.instance(x), a.rigid.at(x) == a.rigid.home(c)))

    return a.forall((CHECK,), body)


def sessions_rest(a: Algebra, t: Symbols) -> Value:
    """A session has its checks, none of which is critical."""

    def body(x: Value, c: Value) -> Value:
        healthy = a.conj(t.check(c), a.neg(t.critical(c)))
        return a.implies(a.conj(t.session(x), a.rigid.asks(t.terms(x), c)), healthy)

    return a.forall((SESSION, CHECK), body, lambda x, c: [[t.session(x), a.rigid.asks(t.terms(x), c)]])


def session_nodes(a: Algebra, t: Symbols) -> Value:
    """A session has its node."""
    return a.forall((SESSION,), lambda x: a.implies(t.session(x), t.node(a.rigid.place(t.terms(x)))))


ROWS: Final = (
    ("row", KEY, "create", "modify", "rows_index"),
    ("tombstone", KEY, "tombstone_index", "tombstone_index", "tombstones_index"),
    ("node", NODE, "node_create", "node_modify", "nodes_index"),
    ("instance", INSTANCE, "instance_create", "instance_modify", "services_index"),
    ("check", CHECK, "check_create", "check_modify", "checks_index"),
    ("session", SESSION, "session_create", "session_create", "sessions_index"),
)
"""Tables: their rows, CreateIndex, ModifyIndex, the table's index. (A session never changes, nor does a tombstone.)"""


def ordered(table: str, sort: Sort, first: str, last: str, index: str) -> Invariant:
    """0 < CreateIndex <= ModifyIndex <= the table's index."""

    def holds(a: Algebra, t: Symbols) -> Value:
        row, create, modify = getattr(t, table), getattr(t, first), getattr(t, last)

        def body(x: Value) -> Value:
            chain = (a.lt(a.genesis, create(x)), a.le(create(x), modify(x)), a.le(modify(x), getattr(t, index)()))
            return a.implies(row(x), a.conj(*chain))

        return a.forall((sort,), body)

    return holds


def members(a: Algebra, t: Symbols) -> Value:
    """A service has an index of its own exactly while it has instances."""

    def some(m: Value) -> Value:
        x = t.member_of(m)
        return a.implies(t.populated(m), a.conj(t.instance(x), t.name(x) == m))

    return a.conj(
        a.forall((INSTANCE,), lambda x: a.implies(t.instance(x), t.populated(t.name(x)))),
        a.forall((SERVICE,), some, lambda m: [[t.populated(m)]]),
    )


INVARIANTS: Final[dict[str, tuple[str, Invariant]]] = {
    "held_keys": (held_keys.__doc__ or "", held_keys),
    "one_holder": (one_holder.__doc__ or "", one_holder),
    "nodes_exist": (nodes_exist.__doc__ or "", nodes_exist),
    "instances_exist": (instances_exist.__doc__ or "", instances_exist),
    "sessions_rest": (sessions_rest.__doc__ or "", sessions_rest),
    "session_nodes": (session_nodes.__doc__ or "", session_nodes),
    **{f"{row[0]}_indexes": (f"{ordered.__doc__} ({row[0]})", ordered(*row)) for row in ROWS},
    "members": (members.__doc__ or "", members),
}
"""What holds of the tables that an entry works on and of every copy, by name, in words."""


def worked_on(name: str) -> Property:
    """The invariant of the tables that an entry works on."""
    text, holds = INVARIANTS[name]
    return Property(name, text, holds)


def copied(name: str) -> Property:
    """The invariant of every copy of the tables."""
    text, holds = INVARIANTS[name]

    def of_copies(a: Algebra, s: Symbols) -> Value:
        return a.forall((COPY,), lambda b: holds(a, tables_of(s, b)))

    return Property(KEPT + name, f"In every copy: {text}", of_copies)


def initial(a: Algebra, s: Symbols) -> Value:
    """Nothing was applied, all tables are empty; archives of other catalogs may be anything that tables may be."""

    def blank(name: str, arity: Arity) -> Value:
        symbol, seen = getattr(s, name), getattr(read(a, s), name)

        def body(*at: Value) -> Value:
            if arity.result is Sort.BOOL:
                return a.conj(seen(*at) == symbol(*at), a.neg(symbol(*at)))
            return a.conj(seen(*at) == symbol(*at), True if arity.arguments else symbol() == a.genesis)

        return a.forall(arity.arguments, body) if arity.arguments else body()

    return a.conj(
        *(blank(name, arity) for name, arity in TABLES.items()),
        *(copied(name).formula(a, s) for name in INVARIANTS),
        a.forall((COPY, KEY, INDEX, INDEX, SESSION), lambda *at: a.neg(s.held_as(*at))),
        a.neg(s.open()),
        s.applied() == a.genesis,
    )


# -------------------------------------------------------------------------------------------------- where entries stand


@state_property
def next_entry(a: Algebra, s: Symbols) -> Value:
    """The entry that is applied comes after those that were."""
    return a.implies(s.open(), a.lt(s.applied(), s.applying()))


@state_property
def bounded_indexes(a: Algebra, s: Symbols) -> Value:
    """No index is beyond the entry that is applied, nor, in what readers see, beyond those that were."""
    return a.conj(at_most(a, s, newest(a, s)), at_most(a, read(a, s), s.applied()))


def same(a: Algebra, left: Callable[..., Value], right: Callable[..., Value], sorts: Sequence[Sort]) -> Value:
    """Two symbols are equal everywhere."""
    return a.forall(sorts, lambda *at: left(*at) == right(*at)) if sorts else left() == right()


def same_tables(a: Algebra, t: Symbols, u: Symbols) -> Value:
    """All tables are the same in two states."""
    return a.conj(*(same(a, getattr(t, name), getattr(u, name), TABLES[name].arguments) for name in TABLES))


@state_property
def nothing_between(a: Algebra, s: Symbols) -> Value:
    """Between entries the tables are what readers see: an entry that was refused has left nothing."""
    return a.disj(s.open(), same_tables(a, s, read(a, s)))


# ---------------------------------------------------------------------------------------------------------------- holds


def recorded(a: Algebra, t: Symbols, held_as: Callable[..., Value]) -> Value:
    """Of a key that exists, no hold of a later LockIndex is recorded, and of the newest one only its holder."""

    def earlier(k: Value, c: Value, n: Value, x: Value) -> Value:
        current = a.conj(held_as(k, c, n, x), t.row(k), c == t.create(k))
        return a.implies(current, a.le(n, t.lock_index(k)))

    def holder(k: Value, c: Value, n: Value, x: Value, y: Value) -> Value:
        current = a.conj(held_as(k, c, n, x), t.row(k), c == t.create(k), n == t.lock_index(k))
        return a.implies(a.conj(current, t.holds(k, y)), x == y)

    return a.conj(
        a.forall((KEY, INDEX, INDEX, SESSION), earlier, lambda k, c, n, x: [[held_as(k, c, n, x)]]),
        a.forall(
            (KEY, INDEX, INDEX, SESSION, SESSION),
            holder,
            lambda k, c, n, x, y: [[held_as(k, c, n, x), t.holds(k, y)]],
        ),
    )


@state_property
def holds_recorded(a: Algebra, s: Symbols) -> Value:
    """In every copy: of a key that exists, no hold of a later LockIndex is recorded, of the newest only its holder."""
    return a.forall((COPY,), lambda b: recorded(a, tables_of(s, b), lambda *hold: s.held_as(b, *hold)))


@state_property
def holds_numbered(a: Algebra, s: Symbols) -> Value:
    """So it is of the tables that an entry works on, with the record of what readers see."""
    return recorded(a, s, lambda *hold: s.held_as(a.rigid.seen(), *hold))


@state_property
def holds_before(a: Algebra, s: Symbols) -> Value:
    """Holds are recorded of keys that were created by entries that were applied."""

    def body(b: Value, k: Value, c: Value, n: Value, x: Value) -> Value:
        return a.implies(s.held_as(b, k, c, n, x), a.le(c, s.applied()))

    return a.forall((COPY, KEY, INDEX, INDEX, SESSION), body)


@state_property
def one_hold(a: Algebra, s: Symbols) -> Value:
    """In no copy's history are two holds of a key alike."""

    def body(b: Value, k: Value, c: Value, n: Value, x: Value, y: Value) -> Value:
        return a.implies(a.conj(s.held_as(b, k, c, n, x), s.held_as(b, k, c, n, y)), x == y)

    return a.forall((COPY, KEY, INDEX, INDEX, SESSION, SESSION), body)


# ------------------------------------------------------------------------------------- what an entry has changed so far


def unchanged(a: Algebra, old: Symbols, new: Symbols, table: str, x: Value) -> Value:
    """A row is there and says the same, or is absent, before and after."""
    there, still = getattr(old, table)(x), getattr(new, table)(x)
    fields = (getattr(old, field)(x) == getattr(new, field)(x) for field in FIELDS[table])
    return a.disj(a.conj(a.neg(there), a.neg(still)), a.conj(there, still, *fields))


def told(a: Algebra, new: Symbols, m: Value, now: Value) -> Value:
    """The index of answers about a service is this entry's."""
    return a.ite(new.populated(m), new.service_index(m) == now, new.extinction_index() == now)


def key_told(a: Algebra, old: Symbols, new: Symbols, now: Value, k: Value, x: Value) -> Value:
    """A key is as it was, or its index is this entry's."""
    same_hold = old.holds(k, x) == new.holds(k, x)
    index = a.ite(new.row(k), new.modify(k) == now, new.rows_index() == now)
    return a.disj(index, a.conj(unchanged(a, old, new, "row", k), same_hold))


def instance_told(a: Algebra, old: Symbols, new: Symbols, now: Value, x: Value) -> Value:
    """An instance is as it was, or its services' indexes are this entry's, of that which it left, too."""
    before = a.implies(old.instance(x), told(a, new, old.name(x), now))
    after = a.implies(new.instance(x), told(a, new, new.name(x), now))
    return a.disj(unchanged(a, old, new, "instance", x), a.conj(before, after))


def here_told(a: Algebra, new: Symbols, n: Value, now: Value) -> Value:
    """The index of answers about a node is this entry's."""
    return a.ite(new.node(n), new.node_index(n) == now, new.node_extinction_index() == now)


def node_told(a: Algebra, old: Symbols, new: Symbols, now: Value, x: Value) -> Value:
    """The node of an instance is as it was, or the service's index is this entry's."""
    same_node = unchanged(a, old, new, "node", a.rigid.at(x))
    return a.implies(new.instance(x), a.disj(same_node, told(a, new, new.name(x), now)))


def concerns(a: Algebra, t: Symbols, c: Value, x: Value) -> Value:
    """A check is one of an instance, or of its node."""
    return a.conj(t.check(c), a.ite(t.of_instance(c), t.subject(c) == x, a.rigid.home(c) == a.rigid.at(x)))


def check_told(a: Algebra, old: Symbols, new: Symbols, now: Value, c: Value, x: Value) -> Value:
    """A check that concerns an instance, or did, is as it was, or the service's index is this entry's."""
    concerned = a.conj(new.instance(x), a.disj(concerns(a, old, c, x), concerns(a, new, c, x)))
    same_check = unchanged(a, old, new, "check", c)
    return a.implies(concerned, a.disj(same_check, told(a, new, new.name(x), now)))


LISTED: Final = (
    ("node", NODE, ("nodes_index",)),
    ("instance", INSTANCE, ("services_index", "nodes_index")),
    ("check", CHECK, ("checks_index",)),
    ("session", SESSION, ("sessions_index",)),
)
"""Tables that are listed as a whole: their rows, the indexes of answers that list them."""


def lists_told(a: Algebra, old: Symbols, new: Symbols, now: Value) -> Value:
    """A table is as it was, or its index is this entry's."""

    def told_of(table: str, sort: Sort, indexes: tuple[str, ...]) -> Value:
        raised = a.conj(*(getattr(new, index)() == now for index in indexes))
        return a.forall((sort,), lambda x: a.disj(unchanged(a, old, new, table, x), raised))

    return a.conj(*(told_of(*listed) for listed in LISTED))


def buried(a: Algebra, old: Symbols, new: Symbols, now: Value, k: Value) -> Value:
    """A key that was deleted is under a tombstone of this entry, unless it went with all keys."""
    g = new.grave(k)
    stone = a.disj(a.rigid.root(g), a.conj(new.tombstone(g), new.tombstone_index(g) == now))
    return a.implies(a.conj(old.row(k), a.neg(new.row(k))), a.conj(a.rigid.covers(g, k), stone))


@state_property
def indexes_grow(a: Algebra, s: Symbols) -> Value:
    """The index of a table is what readers see, or this entry's."""
    t = read(a, s)
    return a.conj(
        *(a.disj(getattr(t, name)() == getattr(s, name)(), getattr(s, name)() == s.applying()) for name in INDEXES)
    )


@state_property
def keys_changed(a: Algebra, s: Symbols) -> Value:
    """A key is what readers see, or its index is this entry's."""
    t, now = read(a, s), s.applying()
    return a.forall((KEY, SESSION), lambda k, x: key_told(a, t, s, now, k, x))


@state_property
def instances_changed(a: Algebra, s: Symbols) -> Value:
    """An instance is what readers see, or the indexes of its services are this entry's."""
    t, now = read(a, s), s.applying()
    return a.forall((INSTANCE,), lambda x: instance_told(a, t, s, now, x))


@state_property
def nodes_changed(a: Algebra, s: Symbols) -> Value:
    """The node of an instance is what readers see, or the index of its service is this entry's."""
    t, now = read(a, s), s.applying()
    return a.forall((INSTANCE,), lambda x: node_told(a, t, s, now, x))


@state_property
def nodes_told(a: Algebra, s: Symbols) -> Value:
    """A node and the instances on it are what readers see, or the node's index is this entry's."""
    t, now = read(a, s), s.applying()

    def of_node(n: Value) -> Value:
        return a.disj(unchanged(a, t, s, "node", n), here_told(a, s, n, now))

    def of_instance(x: Value) -> Value:
        return a.disj(unchanged(a, t, s, "instance", x), here_told(a, s, a.rigid.at(x), now))

    return a.conj(a.forall((NODE,), of_node), a.forall((INSTANCE,), of_instance))


@state_property
def checks_changed(a: Algebra, s: Symbols) -> Value:
    """A check is what readers see, or the indexes of the services whose health it concerns are this entry's."""
    t, now = read(a, s), s.applying()
    return a.forall((CHECK, INSTANCE), lambda c, x: check_told(a, t, s, now, c, x))


@state_property
def tables_changed(a: Algebra, s: Symbols) -> Value:
    """A table is what readers see, or its index is this entry's."""
    return lists_told(a, read(a, s), s, s.applying())


@state_property
def keys_buried(a: Algebra, s: Symbols) -> Value:
    """A key that readers see and that was deleted is under a tombstone of this entry."""
    t, now = read(a, s), s.applying()
    return a.forall((KEY,), lambda k: buried(a, t, s, now, k))


LEMMAS: Final = (
    next_entry,
    bounded_indexes,
    nothing_between,
    *(worked_on(name) for name in INVARIANTS),
    *(copied(name) for name in INVARIANTS),
    holds_before,
    holds_recorded,
    holds_numbered,
    one_hold,
    indexes_grow,
    keys_changed,
    instances_changed,
    nodes_changed,
    nodes_told,
    checks_changed,
    tables_changed,
    keys_buried,
)
