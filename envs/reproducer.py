"""What is said beside an exception that an environment raised: which copy, when, and a script that repeats it.

An episode is a function of its seed and actions, so that script needs neither the training nor the workers.
"""

import ast
import base64
import textwrap
import zlib
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec as GymnasiumSpec

from .spec import EnvSpec, entry_name

# Actions are listed as numbers up to this many characters, compressed beyond.
_LISTED = 1500


@dataclass(frozen=True)
class Moment:
    """Where in a run an environment is.

    Attributes:
        environment: logical index in the run.
        episode: how many episodes the environment began before this one.
        seed: what `reset` got; None before the first one.
        actions: [steps, …] what `step` got since then, the last one included.
        complete: whether `actions` reaches back to the reset.
    """

    environment: int
    episode: int = 0
    seed: int | None = None
    actions: np.ndarray | None = None
    complete: bool = True


def add_note(error: BaseException, spec: EnvSpec, moment: Moment, doing: str, steps: int = 0) -> None:
    """Add to an environment's exception, which keeps its type and traceback, what `note_on` says."""
    error.add_note(note_on(spec, moment, doing, steps))


_SCRIPT = " To repeat it alone:\n\n"


def script_in(error: BaseException) -> str | None:
    """Return the script that an environment's exception, or what led to this one, holds in a note; None without."""
    seen: BaseException | None = error
    while seen is not None:
        for note in getattr(seen, "__notes__", ()):
            _, marker, script = note.partition(_SCRIPT)
            if marker:
                return textwrap.dedent(script)
        seen = seen.__cause__ or seen.__context__
    return None


def note_on(spec: EnvSpec, moment: Moment, doing: str, steps: int = 0) -> str:
    """Return where an environment is and how to repeat it.

    Args:
        spec: what the environment is made from.
        moment: where it was.
        doing: "step", "reset" or "__init__".
        steps: which step of the episode, from 1.
    """
    when = f" at step {steps} of episode {moment.episode}" if doing == "step" else ""
    if doing == "reset":
        when = f" at the start of episode {moment.episode}"
    seed = "" if moment.seed is None else f" (reset seed {moment.seed})"
    note = f"in {doing} of environment {spec.id!r}, index {moment.environment}{when}{seed}."
    if moment.complete:
        note += _SCRIPT + textwrap.indent(reproducer(spec, moment), "    ")
    return note


def note_on_group(
    spec: EnvSpec, kind: str, *, size: int, first_index: int, run_seed: int, actions: np.ndarray | None
) -> str:
    """Return which environments, stepped together, have failed in `step`, and how to repeat it.

    Args:
        spec: what they are made from.
        kind: what steps them.
        size: how many.
        first_index: logical index in the run of the first.
        run_seed: seed of the run.
        actions: [steps, size, …] since the group's reset, the last ones included; None where they are not known.
    """
    last = first_index + size - 1
    note = f"in step() of environment {spec.id!r} ({kind}), indices {first_index}…{last}."
    if actions is None:
        return f"{note} They were reset too long ago for a script that repeats it"
    imports, entry, kwargs = _entry(spec)
    given = ", ".join(f"{name!r}: {value}" for name, value in kwargs.items())
    lines = [
        *_imports_of_actions(actions),
        "from shoal import envs",
        *imports,
        f"spec = envs.resolve({entry}, {{{given}}})",
        f"group = envs.make_group({kind!r}, spec, size={size}, first_index={first_index}, run_seed={run_seed})",
        "group.reset()",
        f"actions = {_literal(actions)}",
        "for action in actions:",
        "    group.step(action)",
    ]
    return note + _SCRIPT + textwrap.indent("\n".join(lines) + "\n", "    ")


def reproducer(spec: EnvSpec, moment: Moment) -> str:
    """Return a Python script that makes the environment and repeats its episode so far."""
    lines = []
    if moment.actions is not None:
        lines += _imports_of_actions(moment.actions)
    lines += ["from shoal import envs"]
    lines += _making(spec)
    if spec.generators:
        lines.append(f"env = envs.PrivateGenerators(env, {spec.generators!r})")
    if moment.seed is not None:
        lines.append(f"env.reset(seed={moment.seed})")
    if moment.actions is not None:
        lines += [f"actions = {_literal(moment.actions)}", "for action in actions:"]
        nested = moment.actions.dtype.names is not None
        lines += ["    env.step(envs.codec(env.action_space).unpack(action))" if nested else "    env.step(action)"]
    return "\n".join(lines) + "\n"


def _making(spec: EnvSpec) -> list[str]:
    imports, entry, kwargs = _entry(spec)
    given = "".join(f", {name}={value}" for name, value in kwargs.items())
    limit = "" if spec.max_episode_steps is None else f", max_episode_steps={spec.max_episode_steps}"
    return [*imports, f"env = envs.make({entry}{given}{limit})"]


def _entry(spec: EnvSpec) -> tuple[list[str], str, dict[str, str]]:
    """What a script imports first, what it names then, and its arguments as they are written."""
    lines: list[str] = []
    kwargs = {name: _written(value, name, lines) for name, value in spec.kwargs.items()}
    known = [f"import {spec.module}"] if spec.module not in ("", "__main__") else []
    if isinstance(spec.entry, str):
        return [*known, *lines], repr(spec.entry), kwargs
    if isinstance(spec.entry, GymnasiumSpec):
        known = known or [f"# first import what registers {spec.entry.id}"]
        return [*known, *lines], repr(spec.entry.id), kwargs
    return lines, _named(spec.entry, lines), kwargs


def _named(thing: Any, lines: list[str]) -> str:
    """The name of a class or function; `lines` get what must be known before."""
    module, name = getattr(thing, "__module__", "__main__"), entry_name(thing)
    here = module == "__main__" or "<" in name
    lines.append(f"# first define {name} as in your program" if here else f"from {module} import {name.split('.')[0]}")
    return name


def _written(value: Any, name: str, lines: list[str]) -> str:
    """An argument as a script writes it: classes and functions by their names, anything else that has no literal by
    `name`; `lines` get what must be known before."""
    if isinstance(value, list | tuple):
        inner = ", ".join(_written(each, name, lines) for each in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_written(each, name, lines)}' for key, each in value.items())}}}"
    if isinstance(value, type | FunctionType) and "<" not in value.__qualname__:
        return _named(value, lines)
    text = repr(value.item() if isinstance(value, np.generic) else value)
    try:
        ast.literal_eval(text)
    except (ValueError, SyntaxError):
        lines.append(f"# first make {name} as in your program: {' '.join(text.split()):.100}")
        return name
    return text


def _imports_of_actions(actions: np.ndarray) -> list[str]:
    if _can_be_listed(actions):
        return ["import numpy as np"]
    return ["import base64, zlib", "import numpy as np"]


def _can_be_listed(actions: np.ndarray) -> bool:
    if actions.dtype.names is not None:  # arrays within records have no literal
        return False
    if actions.dtype == object:  # texts
        return True
    return bool(np.isfinite(actions).all()) and len(str(actions.tolist())) <= _LISTED


def _literal(actions: np.ndarray) -> str:
    dtype = f"np.{actions.dtype.name}" if actions.dtype.names is None else repr(actions.dtype.descr)
    if actions.dtype == object:
        return repr(actions.tolist())
    if _can_be_listed(actions):
        return f"np.array({actions.tolist()!s}, dtype={dtype})"
    packed = base64.b85encode(zlib.compress(np.ascontiguousarray(actions).tobytes())).decode()
    shape = actions.shape
    return f"np.frombuffer(zlib.decompress(base64.b85decode({packed!r})), {dtype}).reshape({shape})"
