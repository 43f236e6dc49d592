"""Anti-entropy: what an agent has comes into the catalog, and what it has not goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from impl.agent.local import registrations, sync
from impl.agent.local import state as local_state
from impl.agent.local.definitions import CheckDefinition, ServiceDefinition
from impl.agent.local.registrations import Registrations, Scripts
from impl.agent.local.state import LocalState
from impl.agent.local.sync import AntiEntropy
from impl.agent.logs import Log
from impl.agent.requests.api import NoClusterLeader, ReadOptions, ReadReply
from impl.catalog.commands import Deregister, Register, Write
from impl.catalog.queries import Query, answer_query
from impl.catalog.rows import CRITICAL, PASSING, SERF_HEALTH, Check, Node, Service, row_key
from impl.catalog.store import Store
from impl.catalog.transitions import Result
from impl.runtime.interfaces import NANOSECONDS
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk

SECOND = NANOSECONDS
OPEN: list[Local] = []
WEB = Service("", "web", "web", tags=("a",), port=80)
TTL = CheckDefinition(check_id="ttl", name="alive", service_id="web", ttl_ns=3600 * SECOND)


@pytest.fixture(autouse=True)
def _ended() -> Iterator[None]:
    """A task that is left alone would be collected in the middle of its wait."""
    yield
    while OPEN:
        local = OPEN.pop()
        local.own.stop()
        local.world.run_for(1)


class Local:
    """An agent's registrations beside a catalog in memory, in a virtual world."""

    def __init__(self) -> None:
        self.store = Store()
        self.world = VirtualWorld(1)
        self.written: list[Write] = []
        self.failures = 0
        self.size = 1
        self.while_writing: Callable[[], None] = lambda: None
        self.write_ns = 0
        runtime = self.world.process("n", VirtualDisk()).runtime
        anything: Any = self
        self.runtime = runtime
        self.lines: list[str] = []
        log = Log(self.lines.append, lambda: 0.0)
        node = Node("n", "10.0.0.1", "id", "dc1", {"lan": "10.0.0.1"}, {"rack": "1"})
        self.own = Registrations(runtime, anything, node, ("consul",), anything, Scripts(), log)
        OPEN.append(self)
        self.own.start()
        self.pass_time(1)
        self.written.clear()

    def pass_time(self, seconds: int) -> None:
        self.world.run_for(seconds * SECOND)

    def cluster_size(self) -> int:
        return self.size

    async def write(self, command: Write) -> Result:
        if self.write_ns:
            await self.runtime.clock.sleep(self.write_ns)
        if self.failures:
            self.failures -= 1
            raise NoClusterLeader()
        self.written.append(command)
        self.while_writing()
        return self.store.apply(command, len(self.written) + 100)

    async def read(self, query: Query, options: ReadOptions) -> ReadReply:
        return ReadReply(answer_query(self.store, query), True, 0)

    def until_synced(self, change: Callable[[Registrations], None]) -> Callable[[], bool]:
        """Somebody changes something and waits until the catalog has it: whether that is over."""
        over = []

        async def wait() -> None:
            change(self.own)
            await self.own.synced()
            over.append(True)

        self.runtime.tasks.spawn(wait(), "waits")
        return lambda: bool(over)

    def apply(self, command: Write) -> None:
        """Somebody else writes."""
        assert self.store.apply(command, 1000) is True

    def service(self, service_id: str) -> Service | None:
        return self.store.tables.services.get(row_key("n", service_id))

    def check(self, check_id: str) -> Check | None:
        return self.store.tables.checks.get(row_key("n", check_id))


def test_a_service_and_its_checks_are_in_the_catalog_at_once_and_in_one_write() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.pass_time(1)
    assert local.service("web") is not None and len(local.written) == 1
    check = local.check("ttl")
    assert check is not None and (check.status, check.service_name) == (CRITICAL, "web")
    local.own.set_ttl("ttl", PASSING, "fine")
    local.pass_time(1)
    check = local.check("ttl")
    assert check is not None and (check.status, check.output) == (PASSING, "fine")
    local.own.deregister_service("web")
    local.pass_time(1)
    assert local.service("web") is None and local.check("ttl") is None


def test_the_node_is_registered_as_its_agent_describes_it() -> None:
    node = Local().store.tables.nodes["n"]
    assert (node.id, node.datacenter, node.meta, node.tagged_addresses) == (
        "id",
        "dc1",
        {"rack": "1"},
        {"lan": "10.0.0.1"},
    )


def test_nothing_is_written_while_nothing_changes() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.own.maintain_node(True, "")
    local.pass_time(2)
    local.written.clear()
    local.pass_time(600)
    assert local.written == []


def test_rows_of_this_node_that_the_agent_does_not_have_are_removed() -> None:
    local = Local()
    local.apply(
        Register(Node("n", ""), Service("n", "old", "old"), (Check("n", "c"), Check("n", "o", service_id="old")), True)
    )
    local.written.clear()
    local.pass_time(130)
    assert local.service("old") is None and local.check("c") is None and local.check("o") is None
    assert local.written == [Deregister("n", service_id="old"), Deregister("n", check_id="c")], "o went with old"


def test_an_id_that_changes_its_case_stays_registered() -> None:
    local = Local()
    upper = replace(WEB, id="WEB"), replace(TTL, check_id="TTL", service_id="WEB")
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.pass_time(1)
    local.own.deregister_service("web")
    local.own.register_service(ServiceDefinition(upper[0], (upper[1],)))
    local.pass_time(1)
    shown = local.service("web"), local.check("ttl")
    assert [row is not None and row.node for row in shown] == ["n", "n"]
    assert shown[0] is not None and shown[1] is not None
    assert (shown[0].id, shown[1].check_id, shown[1].service_id) == ("WEB", "TTL", "WEB")


def test_of_two_ids_that_differ_in_case_the_one_that_is_left_stays_registered() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, ()))
    local.pass_time(1)
    other = replace(TTL, check_id="other", service_id="WEB")
    local.own.register_service(ServiceDefinition(replace(WEB, id="WEB"), (other,)))
    local.pass_time(1)
    local.own.deregister_service("web")
    local.pass_time(1)
    found = local.service("web")
    assert found is not None and found.id == "WEB" and local.check("other") is not None


def test_of_two_checks_that_differ_in_case_the_one_that_is_left_stays_registered() -> None:
    local = Local()
    local.own.register_check(replace(TTL, service_id=""))
    local.pass_time(1)
    local.own.register_check(replace(TTL, check_id="TTL", service_id=""))
    local.pass_time(1)
    local.own.deregister_check("ttl")
    local.pass_time(1)
    found = local.check("ttl")
    assert found is not None and found.check_id == "TTL"


def test_what_the_leader_registers_stays() -> None:
    local = Local()
    local.apply(Register(Node("n", ""), Service("n", "consul", "consul"), (Check("n", SERF_HEALTH),), True))
    local.pass_time(130)
    assert local.service("consul") is not None and local.check(SERF_HEALTH) is not None


def test_what_others_changed_is_put_right() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.pass_time(1)
    local.apply(Register(Node("n", "10.0.0.1"), replace(WEB, node="n", port=81)))
    local.apply(Deregister("n", check_id="ttl"))
    local.pass_time(130)
    service, node = local.service("web"), local.store.tables.nodes["n"]
    assert service is not None and service.port == 80
    assert local.check("ttl") is not None and node.meta == {"rack": "1"}


def test_tags_may_be_overridden_where_the_service_allows_it() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(replace(WEB, enable_tag_override=True)))
    local.pass_time(1)
    local.apply(Register(Node("n", ""), replace(WEB, node="n", enable_tag_override=True, tags=("b",)), (), True))
    local.pass_time(130)
    service = local.service("web")
    assert service is not None and service.tags == ("b",)
    assert local.own.state.services["web"].tags == ("b",)


def test_a_node_that_was_deregistered_comes_back_with_all_it_has() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.pass_time(1)
    local.apply(Deregister("n"))
    local.pass_time(130)
    assert local.service("web") is not None and local.check("ttl") is not None


def test_what_cannot_be_written_is_tried_again() -> None:
    local = Local()
    local.failures = 3
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(40)
    assert local.service("web") is not None


def test_why_nothing_can_be_written_is_said_once() -> None:
    local = Local()
    local.failures = 3
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(40)
    assert len([line for line in local.lines if "cannot sync with the catalog" in line]) == 1


def test_new_metadata_of_the_node_are_in_the_catalog_at_once_alone_or_with_what_else_is_new() -> None:
    local = Local()
    local.own.state.set_node_meta({"rack": "2"})
    local.pass_time(1)
    assert local.store.tables.nodes["n"].meta == {"rack": "2"} and len(local.written) == 1
    local.own.state.set_node_meta({"rack": "3"})
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(1)
    assert local.store.tables.nodes["n"].meta == {"rack": "3"} and len(local.written) == 2


def test_a_check_that_goes_with_its_service_during_a_write_is_not_deregistered_by_itself() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(1)
    local.written.clear()

    def go() -> None:
        local.while_writing = lambda: None
        local.own.deregister_service("web")

    local.while_writing = go
    local.own.register_check(replace(TTL, check_id="alive", service_id=""))
    local.own.register_check(TTL)
    local.pass_time(2)
    assert [type(each) for each in local.written] == [Register, Deregister]
    assert local.written[1] == Deregister("n", service_id="web") and local.check("alive") is not None


def test_what_changes_while_it_is_being_written_is_written_again() -> None:
    local = Local()

    def change_once() -> None:
        local.while_writing = lambda: None
        local.own.register_service(ServiceDefinition(replace(WEB, port=82)))

    local.while_writing = change_once
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(2)
    service = local.service("web")
    assert service is not None and service.port == 82


def test_a_check_that_changes_while_its_service_is_being_written_is_written_again() -> None:
    local = Local()

    def change_once() -> None:
        local.while_writing = lambda: None
        local.own.set_ttl("ttl", PASSING, "")

    local.while_writing = change_once
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.pass_time(2)
    check = local.check("ttl")
    assert check is not None and check.status == PASSING


def test_a_check_that_changes_while_it_is_being_written_is_written_again() -> None:
    local = Local()

    def change_once() -> None:
        local.while_writing = lambda: None
        local.own.set_ttl("ttl", PASSING, "")

    local.while_writing = change_once
    local.own.register_check(replace(TTL, service_id=""))
    local.pass_time(2)
    check = local.check("ttl")
    assert check is not None and check.status == PASSING


def test_a_change_of_output_alone_waits_for_minutes() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.own.set_ttl("ttl", PASSING, "1")
    local.pass_time(1)
    local.written.clear()
    for second in range(149):
        local.own.set_ttl("ttl", PASSING, f"output {second}")
        local.pass_time(1)
    assert local.written == []
    local.pass_time(303)
    check = local.check("ttl")
    assert check is not None and check.output == "output 148" and len(local.written) == 1


def test_agents_do_not_write_outputs_all_at_once() -> None:
    due = []
    for chance in (0.0, 0.999):
        state = LocalState(Node("n", ""), (), lambda: 0, lambda: None, partial(float, chance))
        state.put_check(Check("", "c", status=PASSING))
        state.pending_checks.clear()
        state.update_check("c", PASSING, "new")
        due.append((state.due_ns() or 0) // SECOND)
    assert due == [150, 449]


class Book:
    """The state of an agent alone, at a time that is set."""

    def __init__(self) -> None:
        self.now = 0
        self.state = LocalState(Node("n", ""), (), lambda: self.now, lambda: None)

    def written(self) -> None:
        self.state.pending_services.clear()
        self.state.pending_checks.clear()


def test_an_output_is_written_after_its_first_change_however_often_it_changes() -> None:
    book = Book()
    book.state.put_check(Check("", "c", status=PASSING))
    book.written()
    book.state.update_check("c", PASSING, "1")
    due = book.state.due_ns()
    book.now = 5 * SECOND
    book.state.update_check("c", PASSING, "2")
    assert book.state.due_ns() == due == 300 * SECOND


def test_an_output_is_not_deferred_that_is_about_to_be_written() -> None:
    book = Book()
    book.state.put_check(Check("", "c", status=PASSING))
    book.state.update_check("c", PASSING, "1")
    assert book.state.due_ns() is None
    book.written()
    book.state.update_check("c", PASSING, "2")
    book.state.put_check(Check("", "c", status=PASSING))
    assert book.state.due_ns() is None and book.state.pending_checks == {"c"}


def test_a_check_that_is_registered_anew_and_well_has_not_been_critical() -> None:
    book = Book()
    book.state.put_check(Check("", "c", status=PASSING))
    book.state.update_check("c", CRITICAL, "")
    assert book.state.critical_since == {"c": 0}
    book.state.put_check(Check("", "c", status=CRITICAL))
    assert book.state.critical_since == {"c": 0}
    book.state.put_check(Check("", "c", status=PASSING))
    assert book.state.critical_since == {}


def test_a_check_stays_registered_whose_id_is_that_of_one_that_went_but_for_its_case() -> None:
    book = Book()
    book.state.put_service(WEB)
    book.state.put_check(Check("", "c", service_id="web"))
    book.state.put_check(Check("", "C"))
    book.written()
    assert book.state.drop_service("web") == ["c"]
    assert (book.state.pending_services, book.state.pending_checks) == ({"web"}, {"C"})


# ----------------------------------------------------------------------------------------- waiting for the catalog


def test_whoever_waits_is_answered_when_the_catalog_has_it_and_not_before() -> None:
    local = Local()
    local.write_ns = 2 * SECOND
    over = local.until_synced(lambda own: own.register_service(ServiceDefinition(WEB)))
    local.pass_time(1)
    assert not over() and local.service("web") is None
    local.pass_time(2)
    assert over() and local.service("web") is not None


def test_what_changes_during_an_attempt_is_waited_for_until_the_next() -> None:
    local = Local()
    local.write_ns = 2 * SECOND
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(1)
    over = local.until_synced(lambda own: own.register_service(ServiceDefinition(replace(WEB, port=82))))
    local.pass_time(2)
    written = local.service("web")
    assert written is not None and written.port == 80 and not over()
    local.pass_time(2)
    written = local.service("web")
    assert over() and written is not None and written.port == 82


def test_a_failure_of_an_attempt_that_began_before_is_not_the_answer() -> None:
    local = Local()
    local.write_ns, local.failures = 2 * SECOND, 1
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(1)
    over = local.until_synced(lambda own: own.register_check(replace(TTL, service_id="")))
    local.pass_time(2)
    assert not over()
    local.pass_time(4)
    assert over() and local.check("ttl") is not None, "it did not wait for the pause after a failure"


def test_whoever_waits_is_answered_when_an_attempt_has_failed() -> None:
    local = Local()
    local.failures = 1
    over = local.until_synced(lambda own: own.register_service(ServiceDefinition(WEB)))
    local.pass_time(1)
    assert over() and local.service("web") is None
    local.pass_time(10)
    assert local.service("web") is not None


def test_shortly_after_a_failure_a_change_is_tried_at_once() -> None:
    local = Local()
    local.failures = 1
    local.own.register_service(ServiceDefinition(WEB))
    local.pass_time(1)
    over = local.until_synced(lambda own: own.register_check(replace(TTL, service_id="")))
    local.pass_time(1)
    assert over() and local.service("web") is not None and local.check("ttl") is not None


def test_nobody_waits_for_longer_than_the_hold_timeout() -> None:
    local = Local()
    local.write_ns = 3600 * SECOND
    over = local.until_synced(lambda own: own.register_service(ServiceDefinition(WEB)))
    local.pass_time(6)
    assert not over()
    local.pass_time(2)
    assert over()


def test_nobody_waits_for_an_output_alone_nor_for_an_agent_that_ends() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (TTL,)))
    local.own.set_ttl("ttl", PASSING, "1")
    local.pass_time(1)
    over = local.until_synced(lambda own: own.set_ttl("ttl", PASSING, "2"))
    local.world.run_for(1)
    assert over()
    local.write_ns = 3600 * SECOND
    over = local.until_synced(lambda own: own.deregister_service("web"))
    local.pass_time(1)
    assert not over()
    local.own.stop()
    local.world.run_for(1)
    assert over()


# ---------------------------------------------------------------------------------------------- critical for too long


def test_a_service_that_is_critical_for_too_long_is_deregistered_with_its_checks() -> None:
    local = Local()
    local.own.register_service(
        ServiceDefinition(WEB, (replace(TTL, ttl_ns=10 * SECOND, deregister_after_ns=90 * SECOND),))
    )
    local.pass_time(99)
    assert local.service("web") is not None
    local.pass_time(32)
    assert local.service("web") is None and local.check("ttl") is None and not local.own.definitions


def test_no_service_is_deregistered_within_a_minute() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (replace(TTL, ttl_ns=SECOND, deregister_after_ns=SECOND),)))
    local.pass_time(60)
    assert local.service("web") is not None
    local.pass_time(33)
    assert local.service("web") is None


def test_a_service_is_not_deregistered_before_its_check_was_found_critical() -> None:
    local = Local()
    local.own.register_service(
        ServiceDefinition(WEB, (replace(TTL, ttl_ns=600 * SECOND, deregister_after_ns=60 * SECOND),))
    )
    local.pass_time(655)
    assert local.service("web") is not None, "its TTL has been over for less than a minute"
    local.pass_time(40)
    assert local.service("web") is None


def test_a_service_that_was_well_meanwhile_has_its_full_time_again() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB, (replace(TTL, deregister_after_ns=90 * SECOND),)))
    local.own.set_ttl("ttl", CRITICAL, "")  # as it was registered, which was no finding
    local.pass_time(80)
    local.own.set_ttl("ttl", PASSING, "")
    local.own.set_ttl("ttl", CRITICAL, "")
    local.pass_time(85)
    assert local.service("web") is not None
    local.pass_time(40)
    assert local.service("web") is None


def test_the_check_of_a_node_deregisters_nothing() -> None:
    local = Local()
    local.own.register_service(ServiceDefinition(WEB))
    local.own.register_check(replace(TTL, service_id="", ttl_ns=SECOND, deregister_after_ns=60 * SECOND))
    local.pass_time(300)
    assert local.service("web") is not None and local.check("ttl") is not None


def test_big_clusters_compare_more_rarely() -> None:
    assert [sync.scale(nodes) for nodes in (1, 128, 129, 256, 257, 512, 8192)] == [1, 1, 2, 2, 3, 3, 7]


def _keeps_foreign_rows(patch: pytest.MonkeyPatch) -> None:
    compare = LocalState.compare

    def without_the_foreign(self: LocalState, found: Any, checks: Any) -> None:
        compare(self, found, checks)
        self.pending_services &= self.services.keys()
        self.pending_checks &= self.checks.keys()

    patch.setattr(LocalState, "compare", without_the_foreign)


def _removes_consul(patch: pytest.MonkeyPatch) -> None:
    made = LocalState.__init__
    patch.setattr(LocalState, "__init__", lambda self, node, kept, *rest: made(self, node, (), *rest))


def _defers_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(local_state, "OUTPUT_DEFERRED_NS", 0)


def _never_compares(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sync, "FULL_NS", 10**18)


def _counts_from_registration(patch: pytest.MonkeyPatch) -> None:
    put = LocalState.put_check

    def put_and_count(self: LocalState, check: Check) -> None:
        put(self, check)
        self.critical_since.setdefault(check.check_id, self._now_ns())

    patch.setattr(LocalState, "put_check", put_and_count)


def _knows_no_minimum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(registrations, "DEREGISTER_NS_MIN", 0)


def _never_looks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(registrations, "REAP_NS", 10**18)


def _knows_case(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(local_state, "_alike", lambda identity, others: set())


def _counts_the_attempt_under_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AntiEntropy, "_next_attempt", lambda self: self._ended + 1)


def _pauses_for_all_its_time(patch: pytest.MonkeyPatch) -> None:
    async def pause(self: AntiEntropy, duration_ns: int) -> None:
        await self._runtime.clock.sleep(duration_ns)

    patch.setattr(AntiEntropy, "_pause", pause)


def _waits_for_ever(patch: pytest.MonkeyPatch) -> None:
    synced = AntiEntropy.synced
    patch.setattr(AntiEntropy, "synced", lambda self, limit_ns: synced(self, 10**18))


def _waits_for_nothing(patch: pytest.MonkeyPatch) -> None:
    async def nothing(self: AntiEntropy, limit_ns: int) -> None:
        pass

    patch.setattr(AntiEntropy, "synced", nothing)


def _waits_for_success(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AntiEntropy, "_next_attempt", lambda self: 10**18)


def _registers_first(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sync, "sorted", lambda each, key: sorted(each), raising=False)


@pytest.mark.parametrize(
    ("mutant", "sentence"),
    [
        (_counts_from_registration, test_a_service_is_not_deregistered_before_its_check_was_found_critical),
        (_knows_no_minimum, test_no_service_is_deregistered_within_a_minute),
        (_never_looks, test_a_service_that_is_critical_for_too_long_is_deregistered_with_its_checks),
        (_never_looks, test_a_service_that_was_well_meanwhile_has_its_full_time_again),
        (_registers_first, test_an_id_that_changes_its_case_stays_registered),
        (_knows_case, test_of_two_ids_that_differ_in_case_the_one_that_is_left_stays_registered),
        (_knows_case, test_of_two_checks_that_differ_in_case_the_one_that_is_left_stays_registered),
        (_keeps_foreign_rows, test_rows_of_this_node_that_the_agent_does_not_have_are_removed),
        (_removes_consul, test_what_the_leader_registers_stays),
        (_waits_for_nothing, test_whoever_waits_is_answered_when_the_catalog_has_it_and_not_before),
        (_counts_the_attempt_under_way, test_a_failure_of_an_attempt_that_began_before_is_not_the_answer),
        (_waits_for_success, test_whoever_waits_is_answered_when_an_attempt_has_failed),
        (_pauses_for_all_its_time, test_shortly_after_a_failure_a_change_is_tried_at_once),
        (_waits_for_ever, test_nobody_waits_for_longer_than_the_hold_timeout),
        (_defers_nothing, test_a_change_of_output_alone_waits_for_minutes),
        (_never_compares, test_what_others_changed_is_put_right),
    ],
)
def test_mutants_are_killed(
    mutant: Callable[[pytest.MonkeyPatch], None], sentence: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        sentence()
