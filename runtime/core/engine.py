"""What an engine must be able to do: the seam between the public API and the machinery that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, cast

from . import current
from .options import ActorOptions, MethodOptions, TaskOptions, limits_of_groups
from .refs import ObjectRef, value_of
from .reports.events import Event
from .reports.metric_table import MetricTable
from .reports.rows import NodeReport, PlacementGroupState
from .runtime_env import RuntimeEnv
from .scheduling import PlacementGroup
from .signatures import is_async

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike


@dataclass(frozen=True)
class Function:
    """A remote function or an actor's class as engines see it.

    Attributes:
        name: for messages.
        id: a hash of `payload`, so that a function redefined in a notebook is a new one.
        payload: the callable, serialised.
        target: the callable itself.
        captured: the references in it.
    """

    name: str
    id: bytes
    payload: bytes
    target: Callable
    captured: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True)
class ActorId:
    """An actor as a handle holds it.

    Attributes:
        id: its id.
        lifetime: the reference that keeps it alive; None if it is detached, or the handle is a weak one.
        class_name: its class, for messages.
        methods: the methods that can be called, with their options.
        groups: its concurrency groups; None: whoever made the handle does not know them.
        max_task_retries: how many times a call may be made again after a crash of the actor; -1: without limit.
        max_pending_calls: how many calls of one process may be unanswered; -1: without limit.
        checkpointed: whether it comes back with its state.
        lineage: whether values that its methods returned are made again when they are lost.
        limits: of a concurrent actor: how many calls run at a time, by concurrency group ("": of no other group). A
            call whose arguments are missing holds up later ones only in its group, if that runs one call at a time.
            Empty: all calls run in order.
    """

    id: bytes
    lifetime: ObjectRef | None
    class_name: str
    methods: Mapping[str, MethodOptions] = field(default_factory=dict)
    groups: tuple[str, ...] | None = ()
    max_task_retries: int = 0
    max_pending_calls: int = -1
    checkpointed: bool = False
    lineage: bool = True
    limits: Mapping[str, int] = field(default_factory=dict)

    def __reduce__(self) -> Any:
        return ActorId, tuple(getattr(self, f.name) for f in fields(self))

    @classmethod
    def of(
        cls,
        key: bytes,
        lifetime: ObjectRef | None,
        made_of: Function,
        methods: Mapping[str, MethodOptions],
        options: ActorOptions,
    ) -> ActorId:
        """Return the id of a new actor."""
        groups = tuple(options.concurrency_groups)
        limits = limits_of_groups(is_async(made_of.target), options.max_concurrency, options.concurrency_groups)
        return cls(
            key,
            lifetime,
            made_of.name,
            methods,
            groups,
            options.max_task_retries,
            options.max_pending_calls,
            bool(options.checkpoint_every),
            options.lineage,
            {} if limits == {"": 1} else limits,
        )


@dataclass(frozen=True)
class Host:
    """An actor as the code inside it sees it; `actor` is a weak handle: an actor does not keep itself alive."""

    actor: ActorId
    name: str | None
    namespace: str
    restarts: int


@dataclass(frozen=True)
class Whereabouts:
    """What this process is part of: ids as hexadecimal text."""

    job: str
    namespace: str
    node: str
    worker: str


class RunningCall(Protocol):
    """A task, or a call of an actor's method, while it runs."""

    @property
    def task_id(self) -> bytes | None:
        """Its id; None for the constructor of an actor."""

    @property
    def name(self) -> str:
        """Its name for messages: the option, or that of the function or method."""

    @property
    def function_name(self) -> str:
        """The function's, or ``Class.method``."""

    @property
    def host(self) -> Host | None:
        """The actor, if it is a call of one."""


#: What runs in this thread or asyncio task; set by whoever begins a call.
running: ContextVar[RunningCall | None] = ContextVar("shoal_running", default=None)


@dataclass(frozen=True)
class Running:
    """A `RunningCall` for engines that need to know no more of it."""

    task_id: bytes | None
    name: str
    function_name: str
    host: Host | None = None


@dataclass(frozen=True)
class Holding:
    """What a task or actor was given.

    Attributes:
        resources: by name.
        gpus: which ones.
        group: the placement group that it runs in.
        captures: whether what it starts runs in that group, too.
    """

    resources: dict[str, float] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)
    group: PlacementGroup | None = None
    captures: bool = False


#: One that has not been made yet counts as alive: its calls wait.
ActorState = Literal["alive", "restarting", "dead"]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class ReadyQueue(Protocol):
    """References in the order in which their values arrive."""

    def add(self, ref: ObjectRef) -> None:
        """Add a reference; `pop` returns it once its value is there."""

    def pop(self, timeout: float | None) -> ObjectRef | None:
        """Return the next reference that is ready; None if there is none within `timeout` seconds."""


class RunsTasks(Protocol):
    """What runs functions."""

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[ObjectRef]:
        """Run a function as a task; return one reference for each of its return values."""


class MakesActors(Protocol):
    """What makes actors, and finds those that have names."""

    def create(
        self, cls: Function, arguments: Arguments, options: ActorOptions, methods: Mapping[str, MethodOptions]
    ) -> ActorId:
        """Start an actor; InputError at once if its name is taken and `get_if_exists` is not set."""

    def find(self, name: str, namespace: str | None) -> ActorId | None:
        """Return a weak handle of the living actor of that name; None: in the namespace of this job."""

    def names(self) -> list[tuple[str, str]]:
        """Return the namespace and name of each named actor that lives."""


class CallsActors(Protocol):
    """What calls the methods of actors, and ends these."""

    def call(self, actor: ActorId, method: str, arguments: Arguments, options: MethodOptions) -> list[ObjectRef]:
        """Call a method of an actor; calls from one process run in the order in which they were made."""

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """End an actor without letting it finish."""

    def state(self, actor: ActorId) -> ActorState:
        """Return how an actor is, as far as this process has heard."""


class KeepsValues(Protocol):
    """What holds values, and counts references to them."""

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""

    def adopt(self, object_id: bytes) -> ObjectRef:
        """Return a reference for an id that arrived inside a value."""

    def keep(self, ref: ObjectRef) -> bytes:
        """Keep a reference until this process leaves the runtime; return what `borrow` makes one of anywhere."""

    def borrow(self, kept: bytes) -> ObjectRef:
        """Return a reference to what `keep` has kept."""


class Engine(current.Backend, Protocol):
    """One way of running tasks and actors. All engines give the same results and the same errors.

    Attributes:
        name: as `init` is given it.
        tasks, actors, actor_calls, values, waits: its parts, which do what most lines of a program ask for; the last
            is told of by `Backend`, as are a few of its methods.
        metrics: what `util.metrics` counts in this process.
        address, token: where and with which secret further nodes may join; "" where they cannot.
    """

    name: str
    tasks: RunsTasks
    actors: MakesActors
    actor_calls: CallsActors
    values: KeepsValues
    metrics: MetricTable
    address: str = ""
    token: str = ""

    async def value(self, ref: ObjectRef) -> Any:
        return await value_of(ref, self)

    def ready_queue(self) -> ReadyQueue:
        """Return a queue of references in the order in which their values arrive."""

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Cancel the task that makes an object, if it has not ended."""

    @property
    def whereabouts(self) -> Whereabouts:
        """What this process is part of."""

    def host(self) -> Host | None:
        """Return the actor that this process is, if it is one."""

    def running(self) -> RunningCall | None:
        """Return the task or call that runs in this thread or asyncio task."""
        return running.get()

    def is_cancelled(self) -> bool:
        """Return whether what `running` returns has been cancelled, which needs somebody beside it."""
        return False

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The surroundings of the code that runs, which what it starts inherits."""

    def exit_actor(self) -> NoReturn:
        """End the actor that this process is."""

    def holding(self) -> Holding:
        """Return what the running task or this actor holds."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a writable array that lies in the object store."""

    def store_memory(self) -> int | None:
        """Return the bytes that this node's object store may take; None where arrays of `empty` lie outside of it."""

    def publish(self, key: str, payload: bytes) -> None:
        """Make a serialised value known to every process under `key`."""

    def lookup(self, key: str) -> bytes | None:
        """Return what was published under `key`."""

    def preload(self, modules: Sequence[str]) -> None:
        """Import modules where new workers are made, before more of them are made, if the engine makes them."""
        return

    def cluster_resources(self) -> dict[str, float]:
        """Return the resources of all nodes together."""

    def available_resources(self) -> dict[str, float]:
        """Return those not in use."""

    def state(self, sections: Sequence[str], limit: int) -> list[NodeReport]:
        """Return what every node and process knows, with at most `limit` rows of each section from each process.

        `sections`: which of `rows.SECTIONS` are wanted beside waits, what is executed, and counts.
        """

    def create_group(
        self, bundles: list[Mapping[str, float]], strategy: str, name: str, detached: bool
    ) -> PlacementGroup:
        """Reserve the bundles of a placement group as soon as they are free; InfeasibleError if they never can be."""

    def remove_group(self, group: PlacementGroup) -> None:
        """Give the bundles back, and end what runs in them."""

    def placement_groups(self) -> list[PlacementGroupState]:
        """Return all placement groups; those that were removed, too, the latest of them."""

    def note(self, event: Event) -> None:
        """Remember something that has happened in this process, if the engine tells stories."""
        return

    def guard_signals(self) -> None:
        """Guard the handlers of Ctrl-C and SIGTERM that the program has installed since the engine began."""
        return

    def shutdown(self) -> bool:
        """End everything that the engine started; return whether it is ended: in a worker it goes on."""


# The same functions, for all who know what an engine can do: a wrapper would be paid for with every call.
current_engine = cast(Callable[[], Engine], current.current_engine)
running_engine = cast(Callable[[], Engine | None], current.running_engine)
