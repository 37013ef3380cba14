"""`shoal check`: does an environment keep gymnasium's contract?"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..envs import Inspection, JointSpace, describe, inspect_environment, resolve
from ..runtime import InputError
from .environments import known_environment
from .flags import parse
from .output import note


@dataclass(frozen=True, kw_only=True)
class CheckFlags:
    """What to check, and how."""

    env: str | None = field(default=None, metadata={"positional": True, "metavar": "ENV"})
    """A registered id, or module:Class from the current folder."""
    env_kwargs: dict[str, Any] | None = field(default=None, metadata={"example": '{"gravity": 9.8}'})
    """Arguments of the environment's constructor."""
    step_timeout: float | None = None
    """Seconds after which a step, a reset or a constructor of the environment that has not returned ends the check.
    Default: no limit."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal check` and return the exit code."""
    about = (
        "Check an environment as a training does before it starts: spaces, what reset and step return, 64 random "
        "steps, and whether the same seed and actions give the same again."
    )
    flags: CheckFlags = parse("shoal check", about, {"check": CheckFlags}, arguments).build(CheckFlags)
    if flags.env is None:
        raise InputError("no environment is given. Write for example: shoal check CartPole-v1")
    if flags.step_timeout is not None and not flags.step_timeout > 0:
        raise InputError(f"--step-timeout is {flags.step_timeout}, but must be above 0")
    spec = resolve(known_environment(flags.env), flags.env_kwargs)
    found = inspect_environment(spec, step_timeout=flags.step_timeout)
    for text in found.notes:
        note(f"note: {text}")
    print(f"{found.spec.id} keeps the contract")
    for line in _spaces(found):
        print(line)
    limit = found.spec.max_episode_steps
    print(
        f"episodes      {'truncated after ' + str(limit) + ' steps' if limit else 'the environment ends them itself'}"
    )
    return 0


def _spaces(found: Inspection) -> list[str]:
    """What the agent sees and does, or the agents, those with the same spaces together."""
    space = found.observation_space
    if not isinstance(space, JointSpace):
        return [f"observations  {describe(space)}", f"actions       {describe(found.action_space)}"]
    alike: dict[tuple[str, str], list[str]] = {}
    for agent, seen in space.agent_spaces.items():
        alike.setdefault((describe(seen), describe(found.action_space[agent])), []).append(agent)  # type: ignore[index]
    lines = [f"agents        {len(space.agent_spaces)}, which act {'in turns' if space.turns else 'together'}"]
    for (seen_text, taken), agents in alike.items():
        lines += [f"{', '.join(agents)}:", f"observations  {seen_text}", f"actions       {taken}"]
    return lines
