"""`shoal record`: episodes of a policy, or of random play, as a Minari dataset."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rl import new_dataset_id, policy_metadata, record, run_of, three_digits
from ..runtime import InputError
from .environments import known_environment, look_in_current_folder
from .flags import parse
from .output import result_output
from .session import running_runtime


@dataclass(frozen=True, kw_only=True)
class RecordFlags:
    """What to record, and how."""

    source: str | None = field(default=None, metadata={"positional": True, "metavar": "RUN|ENV"})
    """Run folder (its last weights), checkpoint folder or saved policy; or an environment, which is played at
    random."""
    dataset: str | None = field(default=None, metadata={"metavar": "ID"})
    """Minari id to write, below MINARI_DATASETS_PATH. Default: ENV/expert-vN, ENV/mixed-vN or ENV/random-vN, the first
    that is free."""
    episodes: int = 100
    """Number of episodes."""
    seed: int = 0
    """The episodes' starts and all that is drawn derive from it."""
    workers: int = 1
    """Processes that play; they have no influence on what is recorded."""
    env: str | None = field(default=None, metadata={"metavar": "ENV"})
    """Environment to play in. Default: the one that the policy was trained in."""
    env_kwargs: dict[str, Any] | None = field(default=None, metadata={"example": '{"gravity": 9.8}'})
    """Arguments of the environment's constructor. Default: those of the training."""
    stochastic: bool = field(default=False, metadata={"switch": True})
    """Draw actions from the policy's distribution. Default: greedy, the most likely action."""
    random_share: float = 0.0
    """Share of the episodes that are played at random."""
    epsilon: float = 0.0
    """How often an action is random in the other episodes."""
    overwrite: bool = field(default=False, metadata={"switch": True})
    """Replace a dataset of that id."""
    check: str = field(default="error", metadata={"choices": ("error", "warn")})
    """What follows when an observation lies outside the bounds of its space: error, or warn: it is said once."""
    step_timeout: float | None = None
    """Seconds after which a step, a reset or a constructor of the environment that has not returned ends the
    recording. Default: no limit."""
    engine: str | None = field(default=None, metadata={"choices": ("native", "serial", "ray")})
    """Where workers run, as with `shoal train`."""
    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """Of the Ray cluster, such as auto or HOST:6379."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


def run(arguments: Sequence[str]) -> int:
    """Run `shoal record` and return the exit code."""
    about = "Record episodes of a trained policy, or of random play, as a Minari dataset."
    flags: RecordFlags = parse("shoal record", about, {"recording": RecordFlags}, arguments).build(RecordFlags)
    if flags.source is None:
        raise InputError("nothing is given to record. Write for example: shoal record runs/cartpole")
    for name, value, least in (("episodes", flags.episodes, 1), ("seed", flags.seed, 0), ("workers", flags.workers, 1)):
        if value < least:
            raise InputError(f"--{name} is {value}, but must be at least {least}")
    policy = flags.source if Path(flags.source).exists() else None
    env = flags.env if policy is not None else flags.source
    if policy is None and flags.env is not None:
        raise InputError(f"{flags.source!r} is no folder, so it is the environment: --env {flags.env} would be another")
    with result_output(flags.json) as print_result:
        if policy is not None:
            described = policy_metadata(policy)["env"]
            look_in_current_folder(run_of(Path(policy)))
            name = env or (described["id"] if described else "")
        else:
            name = flags.source
        made = None if env is None else known_environment(env)
        kind = "random" if policy is None else "mixed" if flags.random_share or flags.epsilon else "expert"
        dataset = flags.dataset or new_dataset_id(name, kind)
        with running_runtime(flags.engine, flags.address):
            found = record(
                policy,
                made,
                dataset=dataset,
                episodes=flags.episodes,
                seed=flags.seed,
                deterministic=not flags.stochastic,
                random_share=flags.random_share,
                epsilon=flags.epsilon,
                workers=flags.workers,
                env_kwargs=flags.env_kwargs,
                overwrite=flags.overwrite,
                check=flags.check,
                step_timeout=flags.step_timeout,
            )
        mean, deviation = three_digits(found.episode_return_mean), three_digits(found.episode_return_std)
        text = (
            f"{found.dataset}: {found.episodes} episodes of {found.env}, {found.steps:,} steps, mean return {mean} ± "
            f"{deviation} (standard deviation); {found.path}"
        )
        print_result(found.to_json(), text)
    return 0
