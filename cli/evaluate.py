"""`shoal evaluate`: episodes with a trained policy."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rl import evaluate, evaluate_model, holds_model, policy_metadata, run_of, three_digits
from ..runtime import InputError
from .environments import known_environment, look_in_current_folder
from .flags import parse
from .output import in_words, note, result_output


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
    against: str | None = field(default=None, metadata={"metavar": "WHO"})
    """Of several agents, who plays all but one: random, or another run or policy of the same agents. Which one the
    policy plays changes from environment to environment. Default: all are played by the run's policies."""
    dataset: str | None = field(default=None, metadata={"metavar": "TABLE"})
    """Of a model of a table, the file to predict and compare with, or package.module:function, which returns a
    shoal.data.Dataset. Default: the rows that its training held out."""
    samples: int = 1
    """Of a language model: draw so many answers to each of --episodes prompts, and print how likely one of k is right
    (pass@k). Default: one, the most likely."""
    video: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Film the episodes of the first environment, into a .mp4 or .gif file."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


_OF_MODELS = {"run", "dataset", "json"}
"""What can be said of the evaluation of a model of a table."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal evaluate` and return the exit code."""
    about = (
        "Run episodes with a trained policy and print the mean and standard deviation of their returns; or, with a "
        "model of a table, print its scores on rows that it has not learned from."
    )
    parsed = parse("shoal evaluate", about, {"evaluation": EvaluateFlags}, arguments)
    flags: EvaluateFlags = parsed.build(EvaluateFlags)
    if flags.run is None:
        raise InputError("no run is given. Write for example: shoal evaluate runs/cartpole")
    if flags.episodes < 1:
        raise InputError(f"--episodes is {flags.episodes}, but must be at least 1")
    if flags.seed < 0:
        raise InputError(f"--seed is {flags.seed}, but must be at least 0")
    if holds_model(flags.run):
        if playing := sorted(parsed.given - _OF_MODELS):
            flag = "--" + playing[0].replace("_", "-")
            raise InputError(f"{flag} is for policies, and {flags.run!r} holds a model of a table: give --dataset")
        look_in_current_folder(run_of(Path(flags.run)))
        return _evaluate_model(flags)
    if flags.dataset is not None:
        raise InputError(f"--dataset is for models of tables, and {flags.run!r} holds a policy: it plays in --env")
    with result_output(flags.json) as print_result:
        policy = policy_metadata(flags.run)
        env = flags.env or (policy["env"]["id"] if policy["env"] else None)
        look_in_current_folder(run_of(Path(flags.run)))
        if flags.env is not None:
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
            video=flags.video,
            against=flags.against,
            samples=flags.samples,
        )
        mean, deviation = three_digits(result.episode_return_mean), three_digits(result.episode_return_std)
        text = f"{env}: mean return {mean} ± {deviation} (standard deviation) over {result.episodes} episodes"
        if result.agents:
            text += "; " + ", ".join(f"{agent} {three_digits(value)}" for agent, value in result.agents.items())
        if result.pass_at:
            text += "; " + ", ".join(f"pass@{k} {chance:.3f}" for k, chance in result.pass_at.items())
        if result.scores:
            counts = {name: result.to_json()[name] for name in ("won", "drawn", "lost")}
            text = f"{env} against {flags.against}: {', '.join(f'{n} {name}' for name, n in counts.items())}"
        if flags.video is not None:
            note(f"video: {flags.video}")
        print_result(result.to_json(), text)
    return 0


def _evaluate_model(flags: EvaluateFlags) -> int:
    assert flags.run is not None
    with result_output(flags.json) as print_result:
        found = evaluate_model(flags.run, flags.dataset)
        print_result(found, f"{flags.dataset or 'held-out rows'}: {in_words(found)}")
    return 0
