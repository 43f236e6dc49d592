"""What is proved of the catalog: theorems about what readers see, and about what they see next.

They have the names of the readable properties (`spec/catalog/properties.py`) where there are such. Each has a mutant
that breaks it from the initial state (`catalog_runs`). Must not: be weakened.
"""

from __future__ import annotations

from typing import Final

from model_checks.proofs.algebra import (
    Algebra,
    Change,
    Sort,
    Symbols,
    System,
    Value,
    change_property,
    state_property,
)
from model_checks.proofs.catalog import ACTIONS, at_most
from model_checks.proofs.catalog_lemmas import (
    LEMMAS,
    LISTED,
    ROWS,
    buried,
    concerns,
    held_keys,
    initial,
    instances_exist,
    nodes_exist,
    one_holder,
    ordered,
    read,
    same_tables,
    session_nodes,
    sessions_rest,
    unchanged,
)
from model_checks.proofs.catalog_signature import RIGID, SIGNATURE

KEY, SESSION, INDEX = Sort.KEY, Sort.SESSION, Sort.INDEX
NODE, INSTANCE, CHECK = Sort.NODE, Sort.INSTANCE, Sort.CHECK


@state_property
def references_exist(a: Algebra, s: Symbols) -> Value:
    """Instances and sessions have their node, checks their node and instance, sessions their checks, none critical."""
    t = read(a, s)
    return a.conj(nodes_exist(a, t), instances_exist(a, t), session_nodes(a, t), sessions_rest(a, t))


@state_property
def only_sessions_hold_locks(a: Algebra, s: Symbols) -> Value:
    """A session that ended holds nothing; a key that is held was acquired."""
    return held_keys(a, read(a, s))


@state_property
def a_lock_has_one_holder(a: Algebra, s: Symbols) -> Value:
    """At most one session holds a key."""
    return one_holder(a, read(a, s))


@state_property
def holds_are_numbered(a: Algebra, s: Symbols) -> Value:
    """(Key, CreateIndex, LockIndex) names one hold of all that ever were, but for those that a restore has undone."""
    seen = a.rigid.seen()

    def body(k: Value, c: Value, n: Value, x: Value, y: Value) -> Value:
        return a.implies(a.conj(s.held_as(seen, k, c, n, x), s.held_as(seen, k, c, n, y)), x == y)

    return a.forall((KEY, INDEX, INDEX, SESSION, SESSION), body)


@state_property
def indexes_are_ordered(a: Algebra, s: Symbols) -> Value:
    """0 < CreateIndex <= ModifyIndex <= the table's index <= the last applied index, in every table."""
    t = read(a, s)
    return a.conj(*(ordered(*row)(a, t) for row in ROWS), at_most(a, t, s.applied()))


@state_property
def refused_changes_nothing(a: Algebra, s: Symbols) -> Value:
    """Between entries the tables are what readers see: of an entry that was refused nothing is left."""
    return a.disj(s.open(), same_tables(a, s, read(a, s)))


THEOREMS: Final = (
    references_exist,
    only_sessions_hold_locks,
    a_lock_has_one_holder,
    holds_are_numbered,
    indexes_are_ordered,
    refused_changes_nothing,
)

REPLACED: Final = frozenset({"restore"})
"""Puts other tables in the place of all: no promise about two states holds across it."""

PUT_BACK: Final = REPLACED | {"refuse"}


@change_property
def commands_are_atomic(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """What readers see stays, or becomes all that an entry has done, when it ends: nothing between is ever seen."""
    old, new = read(a, s), read(a, after)
    ends = a.conj(s.open(), a.neg(after.open()), same_tables(a, new, s))
    return a.disj(same_tables(a, new, old), ends)


@change_property
def nobody_is_robbed(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A key passes from one session to another only through nobody, or by the end of the first."""

    def body(k: Value, x: Value, y: Value) -> Value:
        passed = a.conj(s.holds(k, x), after.holds(k, y), x != y)
        return a.implies(passed, a.neg(after.session(x)))

    return a.forall((KEY, SESSION, SESSION), body)


@change_property
def unchanged_moves_no_index(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """An operation raises a key's ModifyIndex only if it changes the value, or who holds the key."""

    def body(k: Value) -> Value:
        raised = a.conj(s.row(k), after.row(k), s.modify(k) != after.modify(k))
        same_holds = a.forall((SESSION,), lambda x: s.holds(k, x) == after.holds(k, x))
        return a.implies(raised, a.neg(a.conj(s.value(k) == after.value(k), same_holds)))

    return a.forall((KEY,), body)


def later(a: Algebra, i: Value, j: Value) -> Value:
    """The later of two indexes."""
    return a.ite(a.le(i, j), j, i)


def key_index(a: Algebra, t: Symbols, k: Value) -> Value:
    """The index of the answer about one key."""
    return a.ite(t.row(k), t.modify(k), later(a, t.rows_index(), t.tombstones_index()))


def health_index(a: Algebra, t: Symbols, m: Value) -> Value:
    """The index of the answer about the health of a service."""
    tables = later(a, t.services_index(), later(a, t.nodes_index(), t.checks_index()))
    never = t.extinction_index() == a.genesis
    return a.ite(t.populated(m), t.service_index(m), a.ite(never, tables, t.extinction_index()))


@change_property
def key_change_is_announced(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """If the answer about a key changes, its index grows: a blocking query misses nothing."""
    old, new = read(a, s), read(a, after)

    def body(k: Value, x: Value) -> Value:
        same_answer = a.conj(unchanged(a, old, new, "row", k), old.holds(k, x) == new.holds(k, x))
        return a.disj(same_answer, a.lt(key_index(a, old, k), key_index(a, new, k)))

    return a.forall((KEY, SESSION), body)


@change_property
def key_index_never_goes_back(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """The index of a read of one key never goes back."""
    old, new = read(a, s), read(a, after)
    return a.forall((KEY,), lambda k: a.le(key_index(a, old, k), key_index(a, new, k)))


@change_property
def health_change_is_announced(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """If an instance changes, or its node, or a check of either, the index of its service's health grows."""
    old, new = read(a, s), read(a, after)

    def grows(m: Value) -> Value:
        return a.lt(health_index(a, old, m), health_index(a, new, m))

    def of_instance(x: Value) -> Value:
        both = a.conj(a.implies(old.instance(x), grows(old.name(x))), a.implies(new.instance(x), grows(new.name(x))))
        return a.disj(unchanged(a, old, new, "instance", x), both)

    def of_node(x: Value) -> Value:
        return a.implies(new.instance(x), a.disj(unchanged(a, old, new, "node", a.rigid.at(x)), grows(new.name(x))))

    def of_check(c: Value, x: Value) -> Value:
        concerned = a.conj(new.instance(x), a.disj(concerns(a, old, c, x), concerns(a, new, c, x)))
        return a.implies(concerned, a.disj(unchanged(a, old, new, "check", c), grows(new.name(x))))

    return a.conj(
        a.forall((INSTANCE,), of_instance), a.forall((INSTANCE,), of_node), a.forall((CHECK, INSTANCE), of_check)
    )


@change_property
def node_change_is_announced(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """If a node changes, or an instance on it, the index of the answer about this node grows."""
    old, new = read(a, s), read(a, after)

    def index(t: Symbols, n: Value) -> Value:
        return a.ite(t.node(n), t.node_index(n), t.node_extinction_index())

    def grows(n: Value) -> Value:
        return a.lt(index(old, n), index(new, n))

    def of_instance(x: Value) -> Value:
        return a.disj(unchanged(a, old, new, "instance", x), grows(a.rigid.at(x)))

    return a.conj(
        a.forall((NODE,), lambda n: a.disj(unchanged(a, old, new, "node", n), grows(n))),
        a.forall((INSTANCE,), of_instance),
    )


@change_property
def list_change_is_announced(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """If a node, an instance, a check or a session changes, the index of its table grows."""
    old, new = read(a, s), read(a, after)

    def grows(table: str, sort: Sort, indexes: tuple[str, ...]) -> Value:
        grown = a.conj(*(a.lt(getattr(old, index)(), getattr(new, index)()) for index in indexes))
        return a.forall((sort,), lambda x: a.disj(unchanged(a, old, new, table, x), grown))

    return a.conj(*(grows(*listed) for listed in LISTED))


@change_property
def deletions_are_remembered(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """A key that is deleted leaves a tombstone: of its name, or of the prefix that it was deleted under, if any."""
    old, new = read(a, s), read(a, after)
    return a.forall((KEY,), lambda k: buried(a, old, new, after.applied(), k))


@change_property
def entries_are_applied_in_order(a: Algebra, s: Symbols, after: Symbols) -> Value:
    """The applied index never goes back."""
    return a.le(s.applied(), after.applied())


def except_for(change: Change, actions: frozenset[str]) -> Change:
    """The theorem, without these actions."""
    return Change(change.name, change.text, change.formula, actions)


CHANGES: Final = (
    except_for(commands_are_atomic, REPLACED),
    except_for(nobody_is_robbed, PUT_BACK),
    except_for(unchanged_moves_no_index, PUT_BACK),
    except_for(key_change_is_announced, REPLACED),
    except_for(key_index_never_goes_back, REPLACED),
    except_for(health_change_is_announced, REPLACED),
    except_for(node_change_is_announced, REPLACED),
    except_for(list_change_is_announced, REPLACED),
    except_for(deletions_are_remembered, REPLACED),
    entries_are_applied_in_order,
)

CATALOG: Final = System(
    signature=SIGNATURE,
    rigid=RIGID,
    initial=initial,
    actions=ACTIONS,
    lemmas=LEMMAS,
    theorems=THEOREMS,
    changes=CHANGES,
    steps=(),
    majorities=(),
)
"""The catalog."""
