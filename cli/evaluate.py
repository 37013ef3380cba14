"""`shoal evaluate`: episodes with a trained policy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rl import evaluate, policy_metadata, run_of, three_digits
from ..runtime import InputError
from .environments import known_environment, look_in_current_folder
from .flags import parse
from .output import result_output


@dataclass(frozen=True, kw_only=True)
class EvaluateFlags:
    """What to evaluate, and how."""

    run: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN"})
    """Run folder (its last weights), checkpoint folder or saved policy."""
    episodes: int = 20
    """Number of episodes."""
    seed: int = 0
    """The episodes' starts, and the actions if they are drawn, derive from it."""
    env: str | None = field(default=None, metadata={"metavar": "ENV"})
    """Environment to evaluate in. Default: the one that the policy was trained in."""
    env_kwargs: dict[str, Any] | None = field(default=None, metadata={"example": '{"gravity": 9.8}'})
    """Arguments of the environment's constructor. Default: those of the training."""
    stochastic: bool = field(default=False, metadata={"switch": True})
    """Draw actions from the policy's distribution. Default: greedy, the most likely action."""
    check: str = field(default="error", metadata={"choices": ("error", "warn")})
    """What follows when an observation lies outside the bounds of its space: error, or warn: it is said once."""
    step_timeout: float | None = None
    """Seconds after which a step, a reset or a constructor of the environment that has not returned ends the
    evaluation. Default: no limit."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal evaluate` and return the exit code."""
    about = "Run episodes with a trained policy and print the mean and standard deviation of their returns."
    flags: EvaluateFlags = parse("shoal evaluate", about, {"evaluation": EvaluateFlags}, arguments).build(EvaluateFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal evaluate runs/cartpole")
    if flags.episodes < 1:
        raise InputError(f"--episodes is {flags.episodes}, but must be at least 1")
    if flags.seed < 0:
        raise InputError(f"--seed is {flags.seed}, but must be at least 0")
    with result_output(flags.json) as print_result:
        policy = policy_metadata(flags.run)
        env = flags.env or (policy["env"]["id"] if policy["env"] else None)
        if flags.env is None:
            look_in_current_folder(run_of(Path(flags.run)))
        else:
            env = known_environment(flags.env)
        result = evaluate(
            flags.run,
            None if flags.env is None else env,
            episodes=flags.episodes,
            seed=flags.seed,
            deterministic=not flags.stochastic,
            env_kwargs=flags.env_kwargs,
            check=flags.check,
            step_timeout=flags.step_timeout,
        )
        mean, deviation = three_digits(result.episode_return_mean), three_digits(result.episode_return_std)
        text = f"{env}: mean return {mean} ± {deviation} (standard deviation) over {result.episodes} episodes"
        print_result(result.to_json(), text)
    return 0
