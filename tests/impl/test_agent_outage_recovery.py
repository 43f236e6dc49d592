"""peers.json after a lost quorum: what it must look like, and what a server is after it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from impl.agent.logs import Log
from impl.agent.membership import outage_recovery
from impl.agent.membership.outage_recovery import BadPeersFile, recover_from_peers
from impl.agent.snapshots.lifecycle import load_store
from impl.catalog.commands import KvSet, encode_command
from impl.catalog.store import Store
from impl.raft.configuration import CONFIGURATION, Configuration, Member, decode_configuration, encode_configuration
from impl.raft.core import Core
from impl.raft.messages import Entry
from impl.raft.ready import Role
from impl.raft.settings import Restored, Settings
from impl.runtime.interfaces import Runtime
from impl.runtime.virtual import VirtualWorld
from impl.runtime.virtual_disk import VirtualDisk
from impl.storage.data_directory import DataDirectory, open_data_directory
from impl.storage.errors import StorageError
from impl.storage.records import Genesis, HardState, Voter

PEERS = "/data/raft/peers.json"
IDS = {f"s{number}": f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 6)}


class Machine:
    """A stopped server s1 of a cluster of five, whose log has 20 writes; the last one was never committed."""

    def __init__(self, *, empty: bool = False, formed: bool = True) -> None:
        self.disk = VirtualDisk()
        self.lines: list[str] = []
        data = self.open()
        self.storage_id = data.storage_id
        if formed:
            voters = [Voter(name, node_id, f"storage-{name}") for name, node_id in IDS.items()]
            voters[0] = Voter("s1", IDS["s1"], self.storage_id)
            data.log.append([Genesis("cluster", tuple(voters)), HardState(3, "s2")])
            if not empty:
                data.log.append([Entry(index, 3, write(index)) for index in range(1, 21)])
            data.log.sync()
        self.members = [Member(name, node_id, f"storage-{name}") for name, node_id in IDS.items()]
        self.members[0] = Member("s1", IDS["s1"], self.storage_id)
        data.close()

    @property
    def runtime(self) -> Runtime:
        return VirtualWorld(1).process("s1", self.disk).runtime

    def open(self) -> DataDirectory:
        return open_data_directory(self.disk, "/data", random.Random(1), 1, "s1", IDS["s1"], segment_bytes=2048)

    def write(self, peers: Any) -> None:
        self.disk.put(PEERS, peers if isinstance(peers, bytes) else msgspec.json.encode(peers))

    def recover(self) -> DataDirectory:
        data = self.open()
        try:
            return recover_from_peers(self.runtime, data, "/data", Log(self.lines.append, lambda: 0.0))
        finally:
            data.close()


def write(index: int) -> bytes:
    return encode_command(KvSet(f"key{index:02d}", b"v", 0))


def peer(name: str, /, **more: Any) -> dict[str, Any]:
    return {"id": IDS[name], "address": f"10.1.0.{name[1:]}:8300", **more}


def core_of(data: DataDirectory, members: Sequence[Member]) -> Core:
    recovered = data.recovered
    restored = Restored(
        recovered.hard_state.term, recovered.hard_state.voted_for, recovered.entries, recovered.snapshot
    )
    return Core(Settings(name="s1"), members, restored, random.Random(1), trace=False, now_ns=0)


def leads_alone(data: DataDirectory, members: Sequence[Member]) -> bool:
    core = core_of(data, members)
    for tick in range(1, 300):
        core.advance_clock(tick * 10_000_000)
        core.tick()
        while core.has_ready():
            ready = core.ready()
            if ready.write is not None:
                core.persisted(ready.write.number)
    return core.role is Role.LEADER


def test_a_server_alone_leads_again_with_everything_that_it_has() -> None:
    machine = Machine()
    assert not leads_alone(machine.open(), machine.members), "one of five is no quorum"
    machine.disk.process_crash()
    machine.write([peer("s1")])
    data = machine.recover()
    marker = data.recovered.snapshot
    assert marker is not None
    assert (marker.index, marker.term, marker.base, data.recovered.entries) == (20, 3, 20, ())
    configuration = decode_configuration(marker.configuration, marker.configuration_index)
    assert configuration.members == (Member("s1", IDS["s1"], machine.storage_id, "10.1.0.1:8300"),)
    assert not machine.disk.exists(PEERS)
    assert data.recovered.by_hand, "the trace must say so"
    store = Store()
    load_store(machine.runtime, "/data/raft/snapshots", marker, "cluster", store)
    assert [entry.key for entry in store.list_prefix("").entries] == [f"key{index:02d}" for index in range(1, 21)]
    assert leads_alone(data, machine.members)
    again = machine.open()
    assert (again.recovered.snapshot, again.recovered.entries) == (marker, ())
    assert leads_alone(again, machine.members)


def test_members_keep_their_names_and_storage_and_non_voters_do_not_vote() -> None:
    machine = Machine()
    machine.write([peer("s3", non_voter=True), peer("s1", name="s1"), peer("s2")])
    marker = machine.recover().recovered.snapshot
    assert marker is not None
    configuration = decode_configuration(marker.configuration, marker.configuration_index)
    assert (configuration.names, configuration.voters) == (("s1", "s2", "s3"), ("s1", "s2"))
    assert [member.storage_id for member in configuration.members][1:] == ["storage-s2", "storage-s3"]
    assert "the whole log counts as committed" in "".join(machine.lines)


def test_the_members_are_those_of_the_newest_configuration_of_the_log() -> None:
    machine = Machine()
    data = machine.open()
    smaller = encode_configuration(Configuration(tuple(machine.members[:3]), 20, 21))
    data.log.append([Entry(21, 3, smaller, CONFIGURATION), Entry(22, 3, write(22))])
    data.log.sync()
    data.close()
    machine.write([peer("s1"), peer("s4")])
    with pytest.raises(BadPeersFile, match=r"no member of the cluster; the members are s1 \(.*s2 \(.*s3 \([^,]*\)\."):
        machine.recover()
    machine.write([peer("s1"), peer("s2")])
    assert machine.recover().recovered.snapshot is not None


def test_recovery_can_be_repeated_on_what_it_left() -> None:
    machine = Machine()
    for peers in ([peer("s1"), peer("s2"), peer("s3")], [peer("s1"), peer("s2")], [peer("s1")]):
        machine.write(peers)
        data = machine.recover()
    assert leads_alone(data, machine.members)


BAD: list[tuple[Any, str]] = [
    (b"", "cannot be read"),
    (b"{", "cannot be read"),
    (b"\xff\xfe", "cannot be read"),
    ({"id": IDS["s1"]}, "cannot be read"),
    (["10.1.0.1:8300"], "cannot be read"),
    ([{"id": IDS["s1"]}], "cannot be read"),
    ([peer("s1", voter=True)], "cannot be read"),
    ([], "it names no servers"),
    ([peer("s1", non_voter=True)], "it names no voter"),
    ([peer("s2"), peer("s3")], "it does not name this server, s1"),
    ([peer("s1"), peer("s1") | {"address": "10.1.0.9:8300"}], "names the id .* twice"),
    ([peer("s1"), peer("s2") | {"address": "10.1.0.1:8300"}], "names the address 10.1.0.1:8300 twice"),
    ([peer("s1") | {"id": "nobody"}], "'nobody' is no member"),
    ([peer("s1", name="s2")], "is called s1, not s2"),
    ([peer("s1") | {"address": "10.1.0.1"}], "no address of the form ip:port"),
    ([peer("s1") | {"address": "10.1.0.1:99999"}], "no address of the form ip:port"),
    ([peer("s1") | {"address": ":8300"}], "no address of the form ip:port"),
]


@pytest.mark.parametrize(("peers", "text"), BAD)
def test_a_file_that_cannot_be_followed_is_refused_and_changes_nothing(peers: Any, text: str) -> None:
    machine = Machine()
    machine.write(peers)
    before = {name: machine.disk.content(f"/data/raft/{name}") for name in machine.disk.names("/data/raft")}
    with pytest.raises(BadPeersFile, match=rf"raft/peers.json: .*{text}.*It should look like \[\{{\"id\""):
        machine.recover()
    assert {name: machine.disk.content(f"/data/raft/{name}") for name in machine.disk.names("/data/raft")} == before
    assert machine.disk.names("/data/raft/snapshots") == []


def test_a_server_with_another_data_directory_is_not_the_member_that_the_file_means() -> None:
    machine = Machine()
    identity = msgspec.json.decode(machine.disk.content("/data/identity.json"))
    machine.disk.put("/data/identity.json", msgspec.json.encode(identity | {"storage_id": "another"}))
    machine.write([peer("s1")])
    with pytest.raises(BadPeersFile, match="does not name this server"):
        machine.recover()


@pytest.mark.parametrize(("how", "text"), [({"formed": False}, "never was part"), ({"empty": True}, "log is empty")])
def test_there_must_be_something_to_recover(how: dict[str, bool], text: str) -> None:
    machine = Machine(**how)
    machine.write([peer("s1")])
    with pytest.raises(BadPeersFile, match=text):
        machine.recover()


class PowerFailed(Exception):
    """The process is no more."""


def interrupted_recoveries() -> list[str]:
    """What goes wrong when the power fails before each sync of a recovery, and the server is started again."""
    problems: list[str] = []
    for crash in range(100):
        machine, left = Machine(), [crash]
        machine.write([peer("s1"), peer("s2")])

        class Failing(VirtualDisk):
            def _sync(self, covered: Any, left: list[int] = left) -> None:
                if left[0] == 0:
                    raise PowerFailed
                left[0] -= 1
                super()._sync(covered)

        whole = machine.disk.copy()
        machine.disk = Failing()
        machine.disk.__dict__.update(whole.__dict__)
        try:
            machine.recover()
            done = True
        except PowerFailed:
            done = False
        machine.disk.power_loss()
        left[0] = -1
        try:
            recovered = machine.recover().recovered
            assert recovered.snapshot is not None
            names = decode_configuration(recovered.snapshot.configuration, 20).names
            assert (recovered.snapshot.index, names) == (20, ("s1", "s2"))
        except (StorageError, AssertionError) as problem:
            problems.append(f"sync {crash}: {problem}")
        if done:
            return problems
    raise AssertionError("the recovery never ends")


def test_a_recovery_that_was_cut_anywhere_is_done_by_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interrupted_recoveries() == []
    replace_log = outage_recovery._replace_log

    def remove_first(runtime: Runtime, *rest: Any) -> Any:
        runtime.disk.remove(PEERS)
        runtime.disk.sync_directory("/data/raft")
        marker = replace_log(runtime, *rest)
        runtime.disk.put(PEERS, b"")  # type: ignore[attr-defined]
        return marker

    monkeypatch.setattr(outage_recovery, "_replace_log", remove_first)
    assert interrupted_recoveries(), "a file that is removed too early is not followed again"
