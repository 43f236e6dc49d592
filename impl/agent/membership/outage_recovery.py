"""Outage recovery: `raft/peers.json`, written by hand when a quorum is lost for good, names the members from now on.

    [{"id": "9d9a...", "address": "10.1.0.1:8300", "non_voter": false}, ...]

It is read once, at the start, before this server speaks to anybody, and then removed: everything in this server's log
counts as committed, whether it was or not, and a snapshot of that with the new members replaces the log. The same file
must be given to every server that it names, all of them stopped: what they do not have is lost. It can name members
only, by their node ids (a server whose data directory was lost is not one any more: leave it out, and let it join
again). This breaks Raft's rules by intent, and the trace's header says so (`recovered`): such a run proves nothing.

Source: Consul, "Disaster recovery", manual recovery using peers.json; hashicorp/raft, `RecoverCluster`.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from impl.agent.logs import Log
from impl.agent.membership.discovery import configuration_of
from impl.agent.snapshots.lifecycle import load_store
from impl.catalog.commands import UnknownCommand, decode_command
from impl.catalog.snapshot import StoreView, encode_blocks
from impl.catalog.store import Store
from impl.raft.configuration import (
    COMMAND,
    CONFIGURATION,
    Configuration,
    Member,
    decode_configuration,
    encode_configuration,
)
from impl.raft.log import DIGEST_OF_NOTHING, chain_digest
from impl.raft.ready import SnapshotMarker
from impl.runtime.interfaces import Runtime
from impl.storage.data_directory import DataDirectory
from impl.storage.errors import StorageError, write_error
from impl.storage.files import SMALL_BYTES_MAX, read_file
from impl.storage.records import Genesis, Recovered
from impl.storage.snapshots import SnapshotFile, SnapshotHeader, SnapshotWriter

NAME = "peers.json"
EXAMPLE = '[{"id": "<node id>", "address": "10.1.0.1:8300", "non_voter": false}]'


class BadPeersFile(StorageError):
    """peers.json cannot be followed. Nothing was changed."""

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(
            f"{path}: {cause}. It should look like {EXAMPLE}, with one object for each server that is left, this one "
            "among them and at least one of them a voter; or remove the file to start without recovery"
        )


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One server of the file."""

    id: str
    address: str
    non_voter: bool = False
    name: str = ""
    """Only for people: if it is given, it must be the member's."""


def recover_from_peers(runtime: Runtime, data: DataDirectory, directory: str, log: Log) -> DataDirectory:
    """Do as the file says, if there is one; the data directory as it is then.

    `directory` is that of the agent. Blocks. Raises BadPeersFile, and StorageError for what the disk does.
    """
    path = f"{directory}/raft/{NAME}"
    if not runtime.disk.exists(path):
        return data
    recovered, genesis = data.recovered, data.recovered.genesis
    if genesis is None:
        raise BadPeersFile(path, "this server never was part of a cluster: there is nothing to recover")
    if not recovered.entries and recovered.snapshot is None:
        raise BadPeersFile(path, "this server's log is empty: there is nothing to recover")
    known = latest_configuration(recovered, genesis)
    members = read_peers(runtime, path, known, data)
    log.warn("recovering from peers.json: the whole log counts as committed", members=[m.name for m in members])
    marker = _replace_log(runtime, data, f"{directory}/raft/snapshots", genesis, members)
    try:
        runtime.disk.remove(path)
        runtime.disk.sync_directory(f"{directory}/raft")
    except OSError as error:
        raise write_error(path, error) from error
    log.warn("recovered", index=marker.index, term=marker.term, snapshot=marker.file)
    return replace(data, recovered=replace(recovered, entries=(), snapshot=marker, by_hand=True))


def latest_configuration(recovered: Recovered, genesis: Genesis) -> Configuration:
    """The newest configuration of the log, committed or not."""
    for entry in reversed(recovered.entries):
        if entry.kind == CONFIGURATION:
            return decode_configuration(entry.payload, entry.index)
    marker = recovered.snapshot
    if marker is not None and marker.configuration:
        return decode_configuration(marker.configuration, marker.configuration_index)
    return configuration_of(genesis)


def read_peers(runtime: Runtime, path: str, known: Configuration, data: DataDirectory) -> tuple[Member, ...]:
    """The members that the file names, sorted. Raises BadPeersFile, with what is wrong."""
    content = read_file(runtime.disk, path, SMALL_BYTES_MAX)
    try:
        peers = msgspec.json.decode(content, type=list[Peer])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadPeersFile(path, f"it cannot be read ({error})") from error
    if not peers:
        raise BadPeersFile(path, "it names no servers")
    members = tuple(sorted(_member(path, peer, known) for peer in peers))
    for what, values in (("id", [peer.id for peer in peers]), ("address", [peer.address for peer in peers])):
        if repeated := sorted({value for value in values if values.count(value) > 1}):
            raise BadPeersFile(path, f"it names the {what} {repeated[0]} twice")
    if not any(member.voter for member in members):
        raise BadPeersFile(path, "it names no voter")
    myself = next((member for member in members if member.node_id == data.node_id), None)
    if myself is None or myself.storage_id != data.storage_id:
        raise BadPeersFile(path, f"it does not name this server, {data.node_name} ({data.node_id})")
    return members


def _member(path: str, peer: Peer, known: Configuration) -> Member:
    host, _, port = peer.address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadPeersFile(path, f"{peer.address!r} is no address of the form ip:port")
    member = next((member for member in known.members if member.node_id == peer.id.lower()), None)
    if member is None:
        names = ", ".join(f"{member.name} ({member.node_id})" for member in known.members)
        raise BadPeersFile(path, f"{peer.id!r} is no member of the cluster; the members are {names}")
    if peer.name not in ("", member.name):
        raise BadPeersFile(path, f"{peer.id} is called {member.name}, not {peer.name}")
    return msgspec.structs.replace(member, address=peer.address, voter=not peer.non_voter, staging=False)


def _replace_log(
    runtime: Runtime, data: DataDirectory, snapshots: str, genesis: Genesis, members: tuple[Member, ...]
) -> SnapshotMarker:
    """A snapshot of everything, with the new members; its marker is durable when this returns."""
    recovered = data.recovered
    last, term, digest = _end_of(recovered)
    configuration = encode_configuration(Configuration(members, allowed_by=last, index=last))
    header = SnapshotHeader(genesis.cluster_id, last, term, configuration, last, digest)
    file = _write(runtime, snapshots, header, _rebuild(runtime, snapshots, recovered, genesis))
    marker = SnapshotMarker(
        last, term, last, term, configuration, last, file.name, file.checksum, file.size, digest, digest
    )
    data.log.append([marker])
    data.log.sync()
    data.log.remove_forgotten()
    return marker


def _end_of(recovered: Recovered) -> tuple[int, int, str]:
    """Index, term and digest of the log's last entry."""
    marker = recovered.snapshot
    digest = bytes.fromhex(marker.base_digest) if marker is not None and marker.base_digest else DIGEST_OF_NOTHING
    for entry in recovered.entries:
        digest = chain_digest(digest, entry)
    if recovered.entries:
        return recovered.entries[-1].index, recovered.entries[-1].term, digest.hex()
    return (marker.base, marker.base_term, digest.hex()) if marker is not None else (0, 0, digest.hex())


def _rebuild(runtime: Runtime, snapshots: str, recovered: Recovered, genesis: Genesis) -> Store:
    """The state machine with the whole log applied."""
    store, applied = Store(), 0
    if recovered.snapshot is not None:
        load_store(runtime, snapshots, recovered.snapshot, genesis.cluster_id, store)
        applied = recovered.snapshot.index
    for entry in recovered.entries:
        if entry.index > applied and entry.kind == COMMAND:
            try:
                store.apply(decode_command(entry.payload), entry.index)
            except UnknownCommand as error:
                raise StorageError(f"cannot apply entry {entry.index}: {error}") from error
    return store


def _write(runtime: Runtime, snapshots: str, header: SnapshotHeader, store: Store) -> SnapshotFile:
    writer = SnapshotWriter(runtime.disk, snapshots, header, runtime.random.randbytes(4).hex())
    try:
        view = StoreView(store)
        while not view.done:
            for block in encode_blocks(view.rows()):
                writer.add(block)
        return writer.finish()
    except StorageError:
        writer.abort()
        raise
