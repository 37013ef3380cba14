"""What a driver or a worker is made of, put together in one place, and which message goes to which method.

user threads ──▶ waits, calls ── tasks, actor_calls       this process's calls
                   │  values (which process holds what)   store (shared memory)
                   │  links.reactor (which thread reads)
                   ├── node           leases, actors, names, deaths
                   └── peers          other processes: calls, replies, values, loans
"""

from __future__ import annotations

import os

from ..protocol import messages as m
from ..store.board import Board
from ..store.store import Store
from .actor_calls import ActorCalls
from .actors import Actors
from .blocked_waits import Makers
from .calls import Calls
from .cancelling import Cancelling
from .completion import Arrivals, Futures
from .environments import Environments
from .fetching import Fetching
from .group_calls import GroupCalls
from .lending import Lending
from .lineage import Lineage
from .links import Links
from .memory import Memory, NodeMemory
from .reactor import Handler
from .recovery import Recovery
from .reporting import Reporting
from .task_calls import TaskCalls
from .task_queues import TaskQueues
from .values import Values
from .waits import Waits


class Parts:
    """One process. Each part takes those above it that it needs.

    Args:
        links: its connections, not yet read.
        environments: the surroundings of what it starts.
    """

    def __init__(self, links: Links, environments: Environments) -> None:
        self.links = links
        self.environments = environments
        # Objects.
        self.fetching = Fetching(links)
        self.node_memory = NodeMemory(links)
        board = Board(links.board_fd, links.welcome.index)
        os.close(links.board_fd)
        self.store = Store(links.me, board, links.welcome, self.node_memory, self.fetching.view)
        self.lineage = Lineage(links.welcome.max_lineage_bytes)
        self.values = Values(links, self.store, self.lineage)
        self.recovery = Recovery(links, self.values, self.store, self.lineage)
        # Waiting.
        self.lending = Lending(links.reactor, links.lock, self.values.objects)
        self.waits = Waits(links, self.values, self.lending, self.store, self.fetching, self.recovery)
        self.arrivals = Arrivals(self.values)
        self.futures = Futures(self.arrivals, self.waits)
        # Calls.
        self.calls = Calls(links, self.values, self.lineage, self.recovery)
        self.groups = GroupCalls(links, self.values, self.store)
        self.task_queues = TaskQueues(links, environments, self.groups)
        self.tasks = TaskCalls(links, self.values, self.store, self.calls, self.task_queues)
        self.actor_calls = ActorCalls(links, self.values, self.store, self.calls)
        self.actors = Actors(links, self.values, self.store, self.actor_calls, environments, self.groups)
        self.cancelling = Cancelling(links, self.values, self.calls)
        self.memory = Memory(links, self.values, self.store, self.node_memory, self.actors)
        # How things are.
        self.makers = Makers(links, self.values.objects.records, self.calls.open)
        self.reporting = Reporting(links, self.values, self.waits, self.arrivals, self.tasks, self.actor_calls)
        self._listen()

    def _listen(self) -> None:
        """Connect events with the parts that act on them, in this order."""
        links = self.links
        links.reactor.before_poll = self.values.tidy
        links.reactor.after_messages = self.values.act
        self.values.make_again = self.recovery.act
        links.on_death += [
            self.values.on_death,
            self.tasks.on_death,
            self.actor_calls.on_death,
            self.actors.on_death,
        ]
        links.on_node_death += [self.fetching.on_node_death, self.tasks.on_node_death]
        links.on_node_lost += [self.values.on_node_lost, self.node_memory.on_node_lost]

    def handlers(self) -> dict[type, Handler]:
        """Return which message goes to which method; a worker has some more, for what it runs."""
        return {
            # Processes and nodes.
            m.Hello: self.links.on_hello,
            m.ProcessDied: self.links.on_process_died,
            m.NodeJoined: self.links.on_node_joined,
            m.NodeDied: self.links.on_node_died,
            m.Relay: self.links.on_relay,
            m.Answer: self.links.on_answer,
            # References and values.
            m.Lend: self.values.on_lend,
            m.Release: self.values.on_release,
            m.Request: self.values.on_request,
            m.Ready: self.values.on_ready,
            m.NotYet: self.lending.on_not_yet,
            m.Lost: self.recovery.on_lost,
            # Shared memory.
            m.Free: self.values.on_free,
            m.BlockRead: self.fetching.on_block_read,
            m.MemoryGranted: self.node_memory.on_memory_granted,
            m.MemoryRefused: self.node_memory.on_memory_refused,
            m.Trim: self.memory.on_trim,
            m.Spill: self.memory.on_spill,
            m.AskNeeded: self.memory.on_ask_needed,
            # Calls.
            m.Reply: self.calls.on_reply,
            m.TryAgain: self.calls.on_try_again,
            m.Item: self.calls.on_item,
            m.ArgumentLost: self.actors.on_argument_lost,
            m.CancelObject: self.cancelling.on_cancel_object,
            # Tasks.
            m.Leased: self.tasks.on_leased,
            m.Recall: self.task_queues.on_recall,
            m.Bounced: self.tasks.on_bounced,
            m.EnvironmentFailed: self.tasks.on_environment_failed,
            # Actors.
            m.ActorState: lambda node, message: self.actor_calls.on_state(message),
            m.StartActor: self.actors.on_start,
            m.Logged: self.actors.on_logged,
            m.Checkpointed: self.actors.on_checkpointed,
            m.Delivered: self.actors.on_delivered,
            # Placement groups.
            m.GroupState: self.tasks.on_group_state,
            # How things are.
            m.WhoMakes: self.makers.on_who_makes,
            m.ReportState: self.reporting.on_report_state,
        }

    def table_sizes(self) -> dict[str, int]:
        """Return how much this process remembers: all is 0 when nothing runs and no reference is left."""
        self.values.tidy()
        with self.links.lock:
            self.values.settle_drops()
            return {
                **self.values.table_sizes(),
                "calls": len(self.calls.open),
                "actors": len(self.actor_calls.queues),
                "lineage": self.lineage.table_size(),
                "blocks": self.store.holdings().blocks,
            }

    def busy(self) -> bool:
        """Whether this thread is in the middle of changing state: it must not be interrupted here."""
        lock = self.links.lock
        return lock._is_owned() or self.links.reactor.busy() or self.store.busy()  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close all connections, and let go of shared memory."""
        self.links.close()
        self.futures.close()
        self.store.close()
