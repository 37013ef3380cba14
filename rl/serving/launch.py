"""Starts serving: reads what is to be served, checks the numbers, starts the replicas, and listens."""

import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...envs import check_token, parse_address
from ...runtime import InputError, as_number
from ..engine import preload
from ..models.joint_spec import JointSpec
from ..runs.checkpoint import find_checkpoint, run_of
from ..settings import Bounds
from .policies import ServedPolicies
from .replica import PolicyReplica
from .served import Served
from .source import PolicySource, Savable, read_policies
from .texts.replica import TextReplica
from .texts.served import ServedTexts

_COUNT = Bounds(whole=True, at_least=1)
_BOUNDS = {
    "replicas": replace(_COUNT, at_most=1024),
    "max_batch_size": replace(_COUNT, optional=True),
    "batch_wait": Bounds(at_least=0, at_most=60),
    "max_waiting": _COUNT,
    "answer_timeout": Bounds(above=0, optional=True),
    "request_timeout": Bounds(above=0, optional=True),
    "max_sessions": _COUNT,
    "session_timeout": Bounds(above=0),
    "seed": Bounds(whole=True, at_least=0),
    "threads": replace(_COUNT, at_most=1024),
}


def serve(
    policy: Savable | str | Path,
    *,
    name: str | None = None,
    replicas: int = 1,
    http: str | None = None,
    grpc: str | None = None,
    token: str | None = None,
    max_batch_size: int | None = None,
    batch_wait: float = 0.0,
    max_waiting: int = 1024,
    answer_timeout: float | None = 10.0,
    request_timeout: float | None = 600.0,
    max_sessions: int = 1024,
    session_timeout: float = 600.0,
    seed: int = 0,
    threads: int = 1,
) -> Served | ServedPolicies | ServedTexts:
    """Serve a policy, those of several agents, or a language model, from replica actors behind one handle.

        with serve("runs/cartpole", replicas=2, http="127.0.0.1:8000") as served:
            action = served.act(observation)

    Args:
        policy: a `Policy`, an algorithm, or the folder of a run (its last weights are served).
        name: of several agents, which policy, by its name or an agent's; None: the only one, else all.
        replicas: number of actors of each policy; each loads it, and is restarted when it dies.
        http: "HOST:PORT" (or "PORT", on this machine alone) for ``POST /act`` and ``GET /health``, of a language model
            for OpenAI's ``/v1/completions`` and ``/v1/chat/completions``; None: no HTTP. Another address than this
            machine's own is open to whoever can reach it, unless there is a `token`.
        grpc: "HOST:PORT" (or "PORT") for simulators outside, which connect as to a training; None: no gRPC.
        token: what requests must bring as ``Authorization: Bearer TOKEN``; None: nothing over HTTP, and over gRPC that
            of the environment variable SHOAL_SIMULATOR_TOKEN, else a random one (`Served.grpc.token`).
        max_batch_size: most observations in one forward pass (None: 32), or answers that a language model samples side
            by side (None: 16); every pass is padded to this size.
        batch_wait: seconds that a batch waits for more requests. 0 suits small networks: requests join while the
            replicas are busy anyway (measured with 16 threads: 16,000 answers/s; 7,700 with 1 ms).
        max_waiting: most observations that wait; then `act` blocks, and HTTP answers 503. Of a language model, answers
            that wait; then HTTP answers 429.
        answer_timeout: seconds that a replica may take for a batch, or a step of a language model; then it is replaced,
            and another one answers. None: no limit.
        request_timeout: seconds after which what a language model has not answered is given up. None: no limit.
        max_sessions: most episodes that a policy with memory remembers at a time; then HTTP answers 503.
        session_timeout: seconds without a request after which a session is forgotten.
        seed: for actions that are drawn; threads: of torch in each replica.

    Returns the handle, once all replicas are ready; of several policies one with a handle for each, which answers at
    ``POST /policies/NAME/act``. Raises InputError for a folder without a policy, a damaged one, or a bad value.
    """
    given = {
        "replicas": replicas, "batch_wait": batch_wait, "max_waiting": max_waiting,
        "answer_timeout": _finite(answer_timeout), "max_sessions": max_sessions, "session_timeout": session_timeout,
        "seed": seed, "threads": threads, "request_timeout": _finite(request_timeout), "max_batch_size": max_batch_size,
    }  # fmt: skip
    settings: dict[str, Any] = {name: _BOUNDS[name].read(name, value) for name, value in given.items()}
    where = _listening(http, grpc, token)
    sources, spec = read_policies(policy, name)
    if spec is None and sources[""].is_language:
        return _started_texts(sources[""], settings, _name_of(policy), **where)
    return _started(sources, spec, settings, **where)


def _listening(http: str | None, grpc: str | None, token: str | None) -> dict[str, str | None]:
    """Where to listen, by name, and for which token; InputError for what cannot be, before anything is started."""
    for what, address in (("http", http), ("grpc", grpc)):
        if address is not None:
            parse_address(address, what)
    check_token(token)
    return {"http": http, "grpc": grpc, "token": token}


def _name_of(policy: Savable | str | Path) -> str:
    """What requests call a model: as its run is called."""
    return run_of(find_checkpoint(policy)).resolve().name if isinstance(policy, str | Path) else "policy"


def _started(
    sources: Mapping[str, PolicySource],
    spec: JointSpec | None,
    settings: Mapping[str, Any],
    *,
    http: str | None,
    grpc: str | None,
    token: str | None,
) -> Served | ServedPolicies:
    """Start the replicas of all policies, and listen; where something fails, end what was started."""
    if spec is not None and grpc is not None:
        known = ", ".join(spec.policies)
        raise InputError(f"grpc is for one policy, and there are several, {known}: say which by name=… (--policy)")
    preload(PolicyReplica, "torch")
    rows = settings["max_batch_size"] or 32
    own = {key: value for key, value in settings.items() if key != "request_timeout"} | {"max_batch_size": rows}
    with ExitStack() as until_all_listen:
        each = {name: until_all_listen.enter_context(Served(source, **own)) for name, source in sources.items()}
        served = each[""] if spec is None else until_all_listen.enter_context(ServedPolicies(each, spec))
        if http is not None:
            served.listen(http, token=token)
        if grpc is not None:
            each[""].listen_for_simulators(grpc, token=token)
        until_all_listen.pop_all()
    return served


def _started_texts(
    source: PolicySource,
    settings: Mapping[str, Any],
    name: str,
    *,
    http: str | None,
    grpc: str | None,
    token: str | None,
) -> ServedTexts:
    """Start the replicas of a language model, and listen; where something fails, end what was started."""
    preload(TextReplica, "torch")
    if grpc is not None:
        raise InputError("grpc is for simulators outside, which send no texts: serve a language model over http")
    known = ("replicas", "answer_timeout", "request_timeout", "seed", "threads")
    own: dict[str, Any] = {each: settings[each] for each in known}
    own |= {"places": settings["max_batch_size"] or 16, "most_waiting": settings["max_waiting"]}
    with ExitStack() as until_it_listens:
        served = ServedTexts(source, name=name, **own)
        until_it_listens.enter_context(served)
        if http is not None:
            served.listen(http, token=token)
        until_it_listens.pop_all()
    return served


def _finite(timeout: float | None) -> float | None:
    return None if as_number(timeout) == math.inf else timeout
