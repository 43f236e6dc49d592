"""Hypothesis as the client: a rule for each kind of request, at a random agent, in a random mode.

Each example is a run. Real processes are not deterministic, so nothing is shrunk: a failing run is known by its history.
"""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from model_checks.catalog.http_requests import Mode, Read, ReadTransaction, Renew, Write
from model_checks.stateful.sockets import draws
from model_checks.stateful.sockets.conversation import Conversation
from spec.catalog.commands import Command, CreateSession, DestroySession, Lock, Register, Set
from spec.catalog.queries import query
from spec.catalog.state import Behavior, Check, Node, Session, Status

PICK = st.integers(0, 99)
"""An agent, modulo their number."""
PICKS = st.lists(PICK, min_size=1, max_size=3)
SESSIONS_MAX = 4
WATCHES_MAX = 4
WATCH_MS = 60_000
"""How long a blocking query may wait that is to be woken."""
IN_VAIN_MS = 10


class SocketMachine(RuleBasedStateMachine):
    """One run of the client. The conversation goes on from run to run."""

    conversation: ClassVar[Conversation]

    def __init__(self) -> None:
        super().__init__()
        self._over = True
        self.conversation.begin_run()
        self.names = draws.Names(self.conversation.run, self.conversation.system.agents)
        self._over = False
        """Or it failed."""

    def check_invariants(self, *arguments: Any) -> None:
        """The judge has compared every answer."""

    def teardown(self) -> None:
        """The run undoes what it did, unless it failed."""
        if not self._over:
            self.conversation.end_run()

    def _agent(self, pick: int) -> str:
        agents = self.conversation.system.agents
        return agents[pick % len(agents)]

    def _ask(self, pick: int, asked: Write | Read | ReadTransaction | Renew) -> None:
        self._over = True
        self.conversation.ask(self._agent(pick), asked)
        self._over = False

    def _write(self, pick: int, command: Command) -> None:
        self._ask(pick, Write(command))

    @rule(data=st.data(), picks=PICKS)
    def write_keys(self, data: st.DataObject, picks: list[int]) -> None:
        """Set, delete, lock, unlock, with and without a condition."""
        for pick in picks:
            self._write(pick, data.draw(draws.key_commands(self.names, self.conversation.judge.state)))

    @rule(data=st.data(), pick=PICK)
    def register(self, data: st.DataObject, pick: int) -> None:
        """A node, an instance, checks."""
        self._write(pick, data.draw(draws.registrations(self.names)))

    @precondition(lambda self: self.names.nodes[0] in self.conversation.judge.state.nodes)
    @rule(data=st.data(), pick=PICK)
    def deregister(self, data: st.DataObject, pick: int) -> None:
        """A node, an instance, a check."""
        self._write(pick, data.draw(draws.deregistrations(self.names)))

    @precondition(lambda self: len(self.conversation.judge.state.sessions) < SESSIONS_MAX)
    @rule(data=st.data(), pick=PICK)
    def create_session(self, data: st.DataObject, pick: int) -> None:
        """A session, which may be refused."""
        self._write(pick, data.draw(draws.new_sessions(self.names, self.conversation.judge.state)))

    @precondition(lambda self: len(self.conversation.judge.state.sessions) > 0)
    @rule(data=st.data(), pick=PICK, destroy=st.booleans())
    def use_session(self, data: st.DataObject, pick: int, destroy: bool) -> None:
        """A session has its time again, or ends, and with it its locks."""
        session = data.draw(draws.session_ids(self.conversation.judge.state))
        self._ask(pick, Write(DestroySession(session)) if destroy else Renew(session))

    @rule(data=st.data(), pick=PICK)
    def write_transaction(self, data: st.DataObject, pick: int) -> None:
        """Operations of all kinds, all or none."""
        self._write(pick, data.draw(draws.written_transactions(self.names, self.conversation.judge.state)))

    @rule(data=st.data(), pick=PICK, mode=draws.MODES)
    def read_transaction(self, data: st.DataObject, pick: int, mode: Mode) -> None:
        """A transaction that goes past the log."""
        transaction = data.draw(draws.read_transactions(self.names, self.conversation.judge.state))
        self._ask(pick, ReadTransaction(transaction, mode))

    @rule(data=st.data(), picks=PICKS)
    def read(self, data: st.DataObject, picks: list[int]) -> None:
        """Anything."""
        for pick in picks:
            self._ask(pick, data.draw(draws.reads(self.names, self.conversation.judge.state)))

    @precondition(lambda self: self.conversation.watching < WATCHES_MAX)
    @rule(data=st.data(), pick=PICK)
    def watch(self, data: st.DataObject, pick: int) -> None:
        """A blocking query from the index of now, or from an older one; the client goes on meanwhile."""
        state = self.conversation.judge.state
        asked = data.draw(draws.reads(self.names, state))
        now = query(state, asked.request)[0]
        index = data.draw(st.sampled_from([now, now, now, max(now - 1, 1)]))
        self._over = True
        self.conversation.watch(self._agent(pick), Read(asked.request, asked.mode, index, WATCH_MS, asked.as_list))
        self._over = False

    @rule(data=st.data(), pick=PICK)
    def wait_in_vain(self, data: st.DataObject, pick: int) -> None:
        """A blocking query whose time is over before anything changes."""
        state = self.conversation.judge.state
        asked = data.draw(draws.reads(self.names, state))
        index = query(state, asked.request)[0] + data.draw(st.sampled_from([0, 1000]))
        self._ask(pick, Read(asked.request, asked.mode, index, IN_VAIN_MS, asked.as_list))

    @precondition(lambda self: len(self.conversation.judge.state.sessions) == 0)
    @rule(pick=PICK, behavior=st.sampled_from(list(Behavior)), delayed=st.booleans())
    def lose_a_lock(self, pick: int, behavior: Behavior, delayed: bool) -> None:
        """A session's check turns critical while it holds a lock: the lock is free, after its delay if it has one."""
        node = Node(self.names.nodes[1], "10.1.1.2", datacenter=draws.DATACENTER)
        check = Check(node.node, "c", "check c", Status.PASSING)
        key, delay = self.names.keys[0], draws.DELAY_NS if delayed else 0
        self._write(pick, Register(node, None, (check,)))
        self._write(pick, CreateSession(Session("", node.node, "", delay, behavior, node_checks=("c",))))
        holder = [session for session, _ in self.conversation.judge.state.sessions.items()]
        if not holder:
            return
        self._write(pick, Lock(key, b"held", 0, holder[0]))
        self._write(pick + 1, Register(node, None, (Check(node.node, "c", "check c", Status.CRITICAL),)))
        self._write(pick + 2, CreateSession(Session("", node.node, "", 0)))
        for session, _ in self.conversation.judge.state.sessions.items():
            self._write(pick + 3, Lock(key, b"mine", 0, session))
            self._write(pick + 3, Set(key, b"after", 0))
