"""`shoal train`: flags → algorithm → run folder."""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..algorithms import ALGORITHMS
from ..envs import resolve
from ..rl import (
    FREE,
    RUNS,
    Algorithm,
    Callback,
    ProgressDisplay,
    RunFolder,
    RunFolderError,
    RunSettings,
    Training,
    TrainingDivergedError,
    TrainingResult,
    check_unlocked,
    check_vacant,
    check_writable,
    choose_settings,
    claimed_run_dir,
    find_run,
    make_loggers,
    read_config,
    read_loggers,
    read_result,
    settings_elsewhere,
)
from ..runtime import InputError, nearest
from .elsewhere import as_flag, instead
from .environments import known_environment, look_in_current_folder
from .flags import Parsed, parse
from .output import note, result_output
from .resuming import Keeper, algorithm_of_run, check_total, refuse_changes
from .seeds import Seeds, check_seeds, parallel_trainings, summary, without_flags
from .session import running_runtime
from .signals import STOP_WITH_STDIN, STOPPED, Stop, stop_as_interrupt, stop_with

_DEFAULT_TIMESTEPS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TrainFlags:
    """What the command knows beside the run's and the algorithm's settings."""

    env: str | None = field(default=None, metadata={"positional": True, "metavar": "ENV"})
    """Environment: an id registered with gymnasium, or module:Class from the current folder. An algorithm that learns
    from a --dataset needs none."""
    total_timesteps: int | None = None
    """Environment steps to train for, over all environments (resumed parts included), rounded up to whole iterations;
    with a --dataset, gradient steps. Default: 1,000,000."""
    seeds: int | None = None
    """Train so many seeds, from --seed on, side by side on the free cores, each in a run folder seed-N of the run
    folder; result.json there holds the interquartile mean of their mean returns, and its bootstrap interval."""
    stop_return: float | None = None
    """Stop as soon as the mean return (sum of rewards) of the last 100 episodes reaches this. Default: train to the
    end."""
    run_dir: str | None = field(default=None, metadata={"metavar": "FOLDER"})
    """Run folder to write. Default: runs/ALGORITHM-ENV-N."""
    overwrite: bool = field(default=False, metadata={"switch": True})
    """Replace the run that is in the run folder; with --resume CHECKPOINT, what the run did after that checkpoint."""
    resume: str | None = field(default=None, metadata={"metavar": "RUN"})
    """Continue the run in this folder from its last checkpoint, or from one of its checkpoints that is named, bit for
    bit as if it had not been stopped (but a replay buffer that was not saved, by --save-replay, fills again)."""
    preset: str = field(default="auto", metadata={"metavar": "NAME"})
    """Tuned settings for an environment: auto (those for ENV, if there are any), none, or the id whose preset to use.
    Flags override a preset."""
    env_kwargs: dict[str, Any] = field(default_factory=dict, metadata={"example": '{"gravity": 9.8}'})
    """Arguments of the environment's constructor."""
    engine: str | None = field(default=None, metadata={"choices": ("native", "serial", "ray")})
    """Where workers run: native (processes of this machine), serial (all in this process, for debugging) or
    ray (a Ray cluster). Default: what SHOAL_ENGINE says, else native on Linux."""
    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """Of the Ray cluster, such as auto or HOST:6379. Default: what SHOAL_ADDRESS or RAY_ADDRESS says, else a Ray of its
    own on this machine."""
    checkpoint_seconds: float = 60.0
    """Seconds between two checkpoints; one is always saved at the end, and when the training is stopped."""
    log: str = field(default="", metadata={"metavar": "NAMES"})
    """Further loggers, separated by commas: csv (metrics.csv in the run folder), wandb, mlflow. The last two must be
    installed, and send where their own settings say. Default: none; metrics.jsonl and TensorBoard are always there."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print the result as one line of JSON on standard output; everything else goes to standard error."""


#: Settings that a resumed run may change.
_FREE = {*FREE, "save_replay"}


def _algorithm_name(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return the algorithm's name and the other arguments; with --resume alone, the name is the run's."""
    rest = list(arguments)
    if rest and not rest[0].startswith("-"):
        if rest[0].lower() not in ALGORITHMS:
            raise InputError(_no_algorithm(rest[0], rest[1:]))
        return rest[0].lower(), rest[1:]
    return algorithm_of_run("train", rest), rest


def _no_algorithm(word: str, others: Sequence[str]) -> str:
    known = ", ".join(ALGORITHMS)
    if any(mark in word for mark in "-:./"):
        name = next((other for other in others if other in ALGORITHMS), next(iter(ALGORITHMS)))
        return f"the algorithm comes before the environment: shoal train {name} {word}. There are: {known}"
    hint = nearest(word, ALGORITHMS)
    return f"unknown algorithm {word!r}. {hint if hint.startswith('Did') else f'There are: {known}'}"


def _who_has_what() -> dict[str, list[str]]:
    """Settings of algorithms → which have them."""
    owners: dict[str, list[str]] = {}
    for other, algorithm_class in ALGORITHMS.items():
        for item in fields(algorithm_class.config_class):
            owners.setdefault(item.name, []).append(other)
    return owners


def _elsewhere() -> dict[str, str]:
    return settings_elsewhere(as_flag)


def run(arguments: Sequence[str]) -> int:
    """Run `shoal train` and return the exit code."""
    name, rest = _algorithm_name(arguments)
    if name is None:
        known = ", ".join(ALGORITHMS)
        later = [word for word in rest if word in ALGORITHMS]
        if later and not instead("train", rest[0], _elsewhere()):
            raise InputError(f"the algorithm comes first, then flags: shoal train {later[0]} ENV {rest[0]} …")
        about = f"Train a policy. Algorithms: {known}; `shoal train ALGORITHM --help` shows the settings of one, too."
        parse("shoal train ALGORITHM", about, {"training": TrainFlags, "run": RunSettings}, rest, elsewhere=_elsewhere)
        raise InputError(f"no algorithm is given; there are: {known}. Write for example: shoal train ppo CartPole-v1")
    algorithm_class = ALGORITHMS[name]
    groups = {"training": TrainFlags, "run": RunSettings, name: algorithm_class.config_class}
    about = f"Train a policy with {name.upper()} and write a run folder."
    parsed = parse(f"shoal train {name}", about, groups, rest, of_others=_who_has_what, elsewhere=_elsewhere)
    flags: TrainFlags = parsed.build(TrainFlags)
    _check_flags(flags)
    if flags.seeds is not None:
        return _train_seeds(name, parsed, flags, rest)
    if os.environ.pop(STOP_WITH_STDIN, None) is not None:
        stop_with(sys.stdin.fileno())
    with result_output(flags.json) as print_result, stop_as_interrupt() as stop, contextlib.ExitStack() as stack:
        plan = _plan_resumed if flags.resume is not None else _plan_new
        try:
            return plan(algorithm_class, parsed, flags, stack).run(print_result, stop)
        except (RunFolderError, TrainingDivergedError) as error:  # a traceback would say no more
            note(f"error: {error}")
            return 1


def _train_seeds(name: str, parsed: Parsed, flags: TrainFlags, arguments: Sequence[str]) -> int:
    env = flags.env if ALGORITHMS[name].needs_environment else flags.env or "dataset"
    if env is None or flags.resume is not None:
        raise InputError("--seeds begins new runs: it wants an environment, and no --resume")
    assert flags.seeds is not None
    check_seeds(flags.seeds, flags.run_dir, flags.overwrite)
    # Here, rather than by each seed.
    trained = "" if flags.env is None else resolve(known_environment(flags.env), flags.env_kwargs).id
    kind = ALGORITHMS[name]
    given = parsed.only_given(RunSettings) | parsed.only_given(kind.config_class)
    run = choose_settings(kind, given, flags.preset, trained).run
    if run.listen is not None:
        raise InputError("--seeds trains several side by side, and --listen is one address: simulators connect to one")
    with result_output(flags.json) as print_result, stop_as_interrupt(), contextlib.ExitStack() as stack:
        folder = Path(flags.run_dir) if flags.run_dir else stack.enter_context(claimed_run_dir(name, env))
        seeds = Seeds(
            algorithm=name,
            env=env,
            arguments=without_flags(arguments),
            first=run.seed,
            count=flags.seeds,
            folder=folder,
            parallel=parallel_trainings(flags.seeds, run.workers),
        )
        code, result = seeds.run()
        if result:
            print_result(result, summary(result, folder))
    return code


def _check_flags(flags: TrainFlags) -> None:
    if flags.total_timesteps is not None and flags.total_timesteps < 1:
        raise InputError(f"--total-timesteps is {flags.total_timesteps}, but must be at least 1")
    if flags.checkpoint_seconds < 0:
        raise InputError(f"--checkpoint-seconds is {flags.checkpoint_seconds:g}, but must be at least 0")
    read_loggers(flags.log)


class _Announcement(Callback):
    """Tells where the run is written, once it is."""

    def __init__(self, folder: RunFolder, chaos: str) -> None:
        self._folder, self._chaos = folder, chaos

    def on_training_start(self, training: Training, total_timesteps: int) -> None:
        note(f"run folder: {self._folder.path}")
        if self._chaos != "none":
            note(f"chaos: {self._chaos}")
        if training.timesteps:
            note(f"resumed at {training.timesteps:,} steps")


@dataclass(frozen=True)
class _Plan:
    """A training that is ready to begin."""

    algorithm: Algorithm
    folder: RunFolder
    total_timesteps: int
    stop_return: float | None
    loggers: Sequence[Callback] = ()

    def run(self, print_result: Callable[[Mapping[str, Any], str], None], stop: Stop) -> int:
        """Train; return the exit code."""
        began_at = self.algorithm.timesteps
        if self.algorithm.has_reached(self.stop_return):
            note(f"solved at {began_at:,} steps, nothing is left to do: a higher --stop-return trains on")
            earlier = read_result(self.folder.path)
            if earlier is not None:
                print_result(earlier.to_json(), _summary(earlier, self.folder.path))
                return 0
        keeper = Keeper("train", "steps", self.algorithm, self.folder, began_at)
        stop.at_risk = keeper.unsaved
        with self.folder, ProgressDisplay() as display:
            callbacks = [self.folder, *self.loggers, _Announcement(self.folder, self.algorithm.run.chaos), display]
            try:
                result = self.algorithm.train(
                    max(1, self.total_timesteps - began_at), stop_return=self.stop_return, callbacks=callbacks
                )
            except KeyboardInterrupt:
                keeper.save("stopped")
                return STOPPED
            except RunFolderError:
                raise
            except Exception:
                keeper.rescue(stop)
                raise
        print_result(result.to_json(), _summary(result, self.folder.path))
        return 0


def _summary(result: TrainingResult, folder: Path) -> str:
    curve = folder / "learning_curve.png"
    drawn = f"curve: {curve}" if curve.exists() else "no curve: no episode ended"
    deaths = "".join(f"\n{name.replace('_', ' ')}: {count}" for name, count in result.chaos.items())
    return f"weights_sha256 {result.weights_sha256}{deaths}\n{drawn}"


def _plan_new(
    algorithm_class: type[Algorithm], parsed: Parsed, flags: TrainFlags, stack: contextlib.ExitStack
) -> _Plan:
    if flags.env is None and algorithm_class.needs_environment:
        raise InputError("no environment is given. Write for example: shoal train ppo CartPole-v1")
    if flags.run_dir:
        check_vacant(flags.run_dir, overwrite=flags.overwrite)
    else:
        check_writable(RUNS)
    # Before the runtime: workers look for modules where this process did by then.
    env = None if flags.env is None else known_environment(flags.env)
    settings = parsed.only_given(RunSettings) | parsed.only_given(algorithm_class.config_class)
    named = [*settings.get("policy_kwargs", {}).values(), settings.get("dataset", ""), settings.get("policies", "")]
    if any(":" in str(value) for value in named):  # a network, or a function, of the user's own
        look_in_current_folder()
    # As early as can be: workers' modules load while this process checks the environment and the settings.
    stack.enter_context(running_runtime(flags.engine, flags.address))
    algorithm = stack.enter_context(
        algorithm_class(env, engine=flags.engine, env_kwargs=flags.env_kwargs, preset=flags.preset, **settings)
    )
    if algorithm.preset:
        chosen = ", ".join(f"{name}={value}" for name, value in algorithm.preset.items())
        note(f"preset for {algorithm.env_id}: {chosen}   (--preset none switches it off)")
    rules = {
        item.name: item.metadata["derived"].words for item in fields(algorithm.config) if item.name in algorithm.derived
    }
    for name, value in algorithm.derived.items():
        note(f"default for {algorithm.run.n_envs} environments: {name}={value} ({rules[name]})")
    if flags.run_dir:
        run_dir = Path(flags.run_dir)
    else:
        run_dir = stack.enter_context(claimed_run_dir(algorithm_class.name, flags.env or algorithm.env_id))
    folder = RunFolder(
        run_dir,
        overwrite=flags.overwrite,
        stop_return=flags.stop_return,
        reward_threshold=algorithm.spec.reward_threshold,
        checkpoint_seconds=flags.checkpoint_seconds,
    )
    total = _DEFAULT_TIMESTEPS if flags.total_timesteps is None else flags.total_timesteps
    return _Plan(algorithm, folder, total, flags.stop_return, make_loggers(flags.log, run_dir))


def _plan_resumed(
    algorithm_class: type[Algorithm], parsed: Parsed, flags: TrainFlags, stack: contextlib.ExitStack
) -> _Plan:
    assert flags.resume is not None
    run_dir, checkpoint = find_run(flags.resume)
    check_unlocked(run_dir)
    check_writable(run_dir)
    config = read_config(run_dir)
    _check_unchanged(algorithm_class, parsed, flags, config)
    total = flags.total_timesteps or int(config["total_timesteps"])
    stop_return = flags.stop_return if "stop_return" in parsed.given else config.get("stop_return")
    look_in_current_folder(run_dir)
    if flags.env is not None:
        known_environment(flags.env)
    stack.enter_context(running_runtime(flags.engine, flags.address))
    changed = {name: parsed.values[name] for name in _FREE if name in parsed.given}
    if flags.env != config["env"]:  # the same one by another name: what it was called cannot be found any more
        changed["env"] = flags.env
    algorithm = stack.enter_context(algorithm_class.load(checkpoint, engine=flags.engine, **changed))
    check_total(algorithm, total, int(config["total_timesteps"]))
    if algorithm.timesteps >= total and not algorithm.has_reached(stop_return):
        ended = algorithm.scheduled(algorithm.config)
        longer = "a program can: load(…).train(…)" if ended else "give a larger --total-timesteps"
        raise InputError(
            f"run {str(run_dir)!r} has done {algorithm.timesteps} of {total} steps: there is nothing left to do. "
            f"To train on, {longer}"
        )
    folder = RunFolder(
        run_dir,
        overwrite=flags.overwrite,
        resume=True,
        stop_return=stop_return,
        reward_threshold=algorithm.spec.reward_threshold,
        checkpoint_seconds=flags.checkpoint_seconds,
    )
    return _Plan(algorithm, folder, total, stop_return, make_loggers(flags.log, run_dir))


def _check_unchanged(
    algorithm_class: type[Algorithm], parsed: Parsed, flags: TrainFlags, config: Mapping[str, Any]
) -> None:
    refuse_changes(parsed, (RunSettings, algorithm_class.config_class), _FREE, {"run_dir", "preset", "env_kwargs"})
    if config["algorithm"] != algorithm_class.name:
        raise InputError(f"run {flags.resume!r} is of {config['algorithm']!r}, not of {algorithm_class.name!r}")
    names = {config["env"], str(config.get("environment", {}).get("entry", {}).get("python", ""))}
    if flags.env is not None and flags.env.rpartition(":")[2] not in {name.rpartition(":")[2] for name in names}:
        raise InputError(f"run {flags.resume!r} is of environment {config['env']!r}, not of {flags.env!r}")
