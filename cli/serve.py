"""`shoal serve`: a trained policy over HTTP and gRPC, until Ctrl-C or SIGTERM."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from gymnasium import Space

from ..envs import codec
from ..rl import ServedPolicies, ServedTexts, find_checkpoint, run_of, serve
from ..runtime import InputError
from .environments import look_in_current_folder
from .flags import parse
from .output import note
from .session import running_runtime
from .signals import stop_as_event
from .tokens import read_token


@dataclass(frozen=True, kw_only=True)
class ServeFlags:
    """What to serve, where, and with how many processes."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder (its last weights), checkpoint folder or saved policy."""
    policy: str | None = field(default=None, metadata={"metavar": "NAME"})
    """Of several agents, which policy to serve, by its name or an agent's. Default: all, each at
    /policies/NAME/act."""
    http: str = field(default="127.0.0.1:8000", metadata={"metavar": "HOST:PORT"})
    """Where to listen; port 0 takes any free one. An address other than this machine's own is open to whoever can reach
    it, unless there is a token."""
    grpc: str | None = field(default=None, metadata={"metavar": "HOST:PORT"})
    """Where to listen for simulators outside by gRPC, too, as a training with --listen does: for one policy. They
    always need a token. Default: nowhere."""
    token_file: str | None = field(default=None, metadata={"metavar": "FILE"})
    """File with a token that requests must bring: "Authorization: Bearer TOKEN". Default: the environment variable
    SHOAL_SERVE_TOKEN, else none; over gRPC that of SHOAL_SIMULATOR_TOKEN, else a random one, which is told."""
    replicas: int = 1
    """Processes that hold the policy and answer, of each policy."""
    reload: float | None = None
    """Of a language model: seconds between two looks for a newer checkpoint of the run, whose weights then say what is
    asked from there on. Default: the last weights of now are served."""
    request_timeout: float | None = 600.0
    """Seconds after which a language model's answer is given up. none: no limit."""
    max_batch_size: int | None = None
    """Most observations in one forward pass (default: 32), or answers that a language model samples side by side
    (default: 16)."""
    batch_wait: float = 0.0
    """Seconds that a batch waits for more requests; 0 suits small networks."""
    max_waiting: int = 1024
    """Most observations that wait; beyond, requests are answered with 503 (by a language model with 429)."""
    answer_timeout: float | None = 10.0
    """Seconds that a replica may take for a batch; then it is replaced, and another one answers. none: no limit."""
    max_sessions: int = 1024
    """Most episodes that a policy with memory remembers at a time; beyond, requests are answered with 503."""
    session_timeout: float = 600.0
    """Seconds without a request after which such a session is forgotten."""
    threads: int = 1
    """Threads of torch in each replica."""
    seed: int = 0
    """Actions that are drawn (requests with "deterministic": false) derive from it."""
    engine: str | None = field(default=None, metadata={"choices": ("native", "serial", "ray")})
    """Where replicas run: native (processes of this machine), serial (all in this process, for debugging) or
    ray (a Ray cluster). Default: what SHOAL_ENGINE says, else native on Linux."""
    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """Of the Ray cluster, such as auto or HOST:6379. Default: what SHOAL_ADDRESS or RAY_ADDRESS says, else a Ray of its
    own on this machine."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal serve` and return the exit code."""
    about = (
        "Serve a trained policy over HTTP: POST /act and GET /health; a language model as OpenAI's clients expect it: "
        "POST /v1/completions and /v1/chat/completions. Ctrl-C or SIGTERM ends it."
    )
    flags: ServeFlags = parse("shoal serve", about, {"serving": ServeFlags}, arguments).build(ServeFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal serve runs/cartpole --replicas 2")
    if flags.reload is not None and not flags.reload > 0:
        raise InputError(f"--reload is {flags.reload}, but must be above 0")
    look_in_current_folder(run_of(Path(flags.run)))  # for networks of the user's own
    token = read_token(flags.token_file, "SHOAL_SERVE_TOKEN")
    with (
        stop_as_event() as stopped,
        running_runtime(flags.engine, flags.address),
        serve(
            flags.run,
            name=flags.policy,
            replicas=flags.replicas,
            http=flags.http,
            grpc=flags.grpc,
            token=token,
            max_batch_size=flags.max_batch_size,
            batch_wait=flags.batch_wait,
            max_waiting=flags.max_waiting,
            answer_timeout=flags.answer_timeout,
            request_timeout=flags.request_timeout,
            max_sessions=flags.max_sessions,
            session_timeout=flags.session_timeout,
            threads=flags.threads,
            seed=flags.seed,
        ) as served,
    ):
        note(f"serving {flags.run} with {flags.replicas} replica(s) at {served.http_address}   (Ctrl-C ends it)")
        bearer = "" if token is None else "-H 'Authorization: Bearer …' "
        if isinstance(served, ServedTexts):
            body = json.dumps({"model": served.name, "messages": [{"role": "user", "content": "…"}]})
            note(f"try: curl {bearer}{served.http_address}/v1/chat/completions -d '{body}'")
            _follow(served, flags.run, flags.reload, stopped)
            note("stopping")
            return 0
        handles = served.policies if isinstance(served, ServedPolicies) else {"": served}
        for name, handle in handles.items():
            body = example_body(handle.observation_space, in_session=handle.has_memory)
            path = f"/policies/{name}/act" if name else "/act"
            note(f"try: curl {bearer}{served.http_address}{path} -d '{body}'")
        stopped.wait()
        note("stopping")
    return 0


def _follow(served: ServedTexts, run: str, seconds: float | None, stopped: Event) -> None:
    """Until it is to stop, look every so many seconds for a newer checkpoint of the run, and serve its weights."""
    known = find_checkpoint(run)
    while not stopped.wait(seconds):
        try:
            newest = find_checkpoint(run)
            if newest == known:
                continue
            served.update(newest)
            note(f"serving {newest} now")
        except InputError as error:  # also one that is being replaced at this moment: it is looked for again
            note(f"the weights are those of before: {error}")
            continue
        known = newest


def example_body(space: Space, *, in_session: bool = False) -> str:
    """Return the body of a request with some observation of a space, `in_session` the first one of a session."""
    session = {"session": "one", "episode_start": True} if in_session else {}
    return json.dumps({"observation": codec(space).example()} | session, default=lambda array: array.tolist())
