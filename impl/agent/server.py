"""A server agent from start to stop: data directory, listeners, formation, the driver, shutdown.

It decides nothing about Raft, formation or requests: `core`, `discovery` and `requests` do. What stands here is who
is made when, who is told what, and in which order it all ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from impl.agent.api import AgentError, DefiniteError, IndefiniteError
from impl.agent.changes import Watches
from impl.agent.config import Config
from impl.agent.describe import describe_server
from impl.agent.discovery import Conflict, Discovery, Refused
from impl.agent.driver import Driver, decode_message
from impl.agent.introductions import Introductions
from impl.agent.logs import Log
from impl.agent.peers import PeerLinks
from impl.agent.pool import Pool
from impl.agent.protocol import (
    DISCOVER,
    KV_READ,
    KV_WRITE,
    STATUS,
    Discover,
    Discovered,
    KvRead,
    KvWrite,
    ServerInfo,
    Status,
)
from impl.agent.requests import Requests
from impl.agent.tracer import Tracer
from impl.catalog.store import Store
from impl.raft.core import Core
from impl.raft.settings import Restored, Settings
from impl.rpc.framing import FrameKind, checksum
from impl.rpc.handshake import Hello, Purpose, Role
from impl.rpc.server import Reply, RpcServer
from impl.rpc.timings import Timings
from impl.runtime.interfaces import Future, Runtime, Task
from impl.storage.data_directory import DataDirectory
from impl.storage.records import Genesis

encode = msgspec.msgpack.Encoder().encode
_discover: msgspec.msgpack.Decoder[Discover] = msgspec.msgpack.Decoder(Discover)
_kv_write: msgspec.msgpack.Decoder[KvWrite] = msgspec.msgpack.Decoder(KvWrite)
_kv_read: msgspec.msgpack.Decoder[KvRead] = msgspec.msgpack.Decoder(KvRead)
