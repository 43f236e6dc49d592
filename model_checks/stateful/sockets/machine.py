"""Hypothesis as the client: a rule for each kind of request, at a random agent, in a random mode.

Each example is a run. Real processes are not deterministic, so nothing is shrunk: a failing run is known by its
history.
"""

from __future__ import annotations

from random import Random
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from model_checks.catalog.http_requests import Asked, Mode, Read, ReadTransaction, Renew, Write
from model_checks.stateful.sockets.conversation import Conversation
from model_checks.stateful.sockets.draws import DATACENTER, DELAY_NS, Choice, Names
from spec.catalog.commands import Command, CreateSession, DestroySession, Get, Lock, Register
from spec.catalog.queries import query
from spec.catalog.state import Behavior, Check, Node, Session, State, Status
from spec.catalog.transitions import apply

NUMBERS = st.integers(0, (1 << 32) - 1)
"""What a step's choices are made of."""
SESSIONS_MAX = 4
WATCHES_MAX = 6
CHANGES_TRIED_MAX = 20
WATCH_MS = 60_000
"""How long a blocking query may wait that is to be woken."""
IN_VAIN_MS = 10


class SocketMachine(RuleBasedStateMachine):
    """One run of the client. The conversation goes on from run to run."""

    conversation: ClassVar[Conversation]

    def __init__(self) -> None:
        super().__init__()
        self._failed = True
        self.conversation.begin_run()
        self._names = Names(self.conversation.run, self.conversation.system.agents)
        self._failed = False
        self._step = 0

    def check_invariants(self, *arguments: Any) -> None:
        """The judge has compared every answer."""

    def teardown(self) -> None:
        """The run undoes what it did, unless it failed."""
        if not self._failed:
            self.conversation.end_run()

    def _choice(self, number: int) -> Choice:
        """Each step's own, even if Hypothesis draws the same number for many."""
        self._step += 1
        seed = f"{self.conversation.seed}/{self.conversation.run}/{self._step}/{number}"
        return Choice(Random(seed), self._names, self._state)

    @property
    def _state(self) -> State:
        return self.conversation.judge.state

    def _ask(self, choice: Choice, asked: Asked) -> None:
        self._failed = True
        self.conversation.ask(choice.of(self.conversation.system.agents), asked)
        self._failed = False
        choice.state = self._state

    def _write(self, choice: Choice, command: Command) -> None:
        self._ask(choice, Write(command))

    @rule(number=NUMBERS)
    def anything(self, number: int) -> None:
        """Any of the others. Hypothesis begins with what is simplest, its first rule only: it shall not be wasted."""
        rules = (
            self.write_keys,
            self.register,
            self.deregister,
            self.use_session,
            self.write_transaction,
            self.read_transaction,
            self.read,
            self.read_one_thing_everywhere,
            self.watch,
            self.watch_and_change,
            self.wait_in_vain,
            self.lose_a_lock,
        )
        self._choice(number).of(rules)(number)

    @rule(number=NUMBERS)
    def write_keys(self, number: int) -> None:
        """Set, delete, lock, unlock, with and without a condition."""
        choice = self._choice(number)
        for _ in range(choice.of((1, 2, 3))):
            self._write(choice, choice.key_command())

    @rule(number=NUMBERS)
    def register(self, number: int) -> None:
        """A node, an instance, checks."""
        choice = self._choice(number)
        self._write(choice, choice.registration())

    @rule(number=NUMBERS)
    def deregister(self, number: int) -> None:
        """A node, an instance, a check; of a node that is there, if one is."""
        choice = self._choice(number)
        known = any(name in self._state.nodes for name in self._names.nodes)
        self._write(choice, choice.deregistration() if known else choice.registration())

    @rule(number=NUMBERS)
    def use_session(self, number: int) -> None:
        """A session begins, has its time again, or ends, and with it its locks."""
        choice = self._choice(number)
        session, count = choice.session_id(), len(self._state.sessions)
        if count == 0 or (count < SESSIONS_MAX and choice.truth()):
            self._write(choice, choice.new_session())
        elif choice.truth():
            self._write(choice, DestroySession(session))
        else:
            self._ask(choice, Renew(session))

    @rule(number=NUMBERS)
    def write_transaction(self, number: int) -> None:
        """Operations of all kinds, all or none."""
        choice = self._choice(number)
        self._write(choice, choice.written_transaction(self.conversation.judge.counts["command Transaction"]))

    @rule(number=NUMBERS)
    def read_transaction(self, number: int) -> None:
        """A transaction that goes past the log."""
        choice = self._choice(number)
        self._ask(choice, ReadTransaction(choice.read_transaction(), choice.of(list(Mode))))

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        """Anything."""
        choice = self._choice(number)
        for _ in range(choice.of((1, 2, 3))):
            self._ask(choice, choice.read())

    @rule(number=NUMBERS)
    def read_one_thing_everywhere(self, number: int) -> None:
        """In every mode, at random agents, one after the other."""
        choice = self._choice(number)
        asked = choice.read()
        for mode in Mode:
            self._ask(choice, Read(asked.request, mode, as_list=asked.as_list))

    @rule(number=NUMBERS)
    def watch(self, number: int) -> None:
        """A blocking query from the index of now, or from an older one; the client goes on meanwhile."""
        choice = self._choice(number)
        self._watch(choice, choice.read(), choice.of((0, 0, 0, 1)))

    @rule(number=NUMBERS)
    def watch_and_change(self, number: int) -> None:
        """A blocking query, and at once a command that changes its answer."""
        choice = self._choice(number)
        asked = choice.read()
        self._watch(choice, asked, 0)
        before = query(self._state, asked.request)[1]
        for _ in range(CHANGES_TRIED_MAX):
            command = choice.of((choice.key_command, choice.registration, choice.deregistration))()
            after, _ = apply(self._state, command, self.conversation.judge.accounted + 1)
            if query(after, asked.request)[1] != before:
                self._write(choice, command)
                return

    def _watch(self, choice: Choice, asked: Read, behind: int) -> None:
        """Begin a blocking query from an index that is so much older than that of now."""
        if self.conversation.watching >= WATCHES_MAX:
            return
        index = max(query(self._state, asked.request)[0] - behind, 1)
        self._failed = True
        agent = choice.of(self.conversation.system.agents)
        self.conversation.watch(agent, Read(asked.request, asked.mode, index, WATCH_MS, asked.as_list))
        self._failed = False

    @rule(number=NUMBERS)
    def wait_in_vain(self, number: int) -> None:
        """A blocking query whose time is over before anything changes."""
        choice = self._choice(number)
        asked = choice.read()
        index = query(self._state, asked.request)[0] + choice.of((0, 1000))
        self._ask(choice, Read(asked.request, asked.mode, index, IN_VAIN_MS, asked.as_list))

    @rule(number=NUMBERS)
    def lose_a_lock(self, number: int) -> None:
        """A session's check turns critical while it holds a lock: the lock is free, after its delay if it has one."""
        choice = self._choice(number)
        if len(self._state.sessions):
            self._write(choice, DestroySession(choice.session_id()))
            return
        node = Node(self._names.nodes[2], "10.1.1.2", datacenter=DATACENTER)
        key, delay = choice.of(self._names.keys), choice.of((0, DELAY_NS))
        lost = Session("", node.node, "", delay, choice.of(list(Behavior)), node_checks=("c",))
        self._write(choice, Register(node, None, (Check(node.node, "c", "check c", Status.PASSING),)))
        self._write(choice, CreateSession(lost))
        for session, _ in self._state.sessions.items():
            self._write(choice, Lock(key, b"held", 0, session))
        self._write(choice, Register(node, None, (Check(node.node, "c", "check c", Status.CRITICAL),)))
        self._ask(choice, Read(Get(key), choice.of(list(Mode))))
        self._write(choice, CreateSession(Session("", node.node, "", 0)))
        for session, _ in self._state.sessions.items():
            self._write(choice, Lock(key, b"mine", 0, session))
