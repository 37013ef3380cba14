"""One episode of a training once more, from its seed and its actions: no policy is needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...envs import closing, codec, inspect_environment, make_copy, spec_from_json
from ...runtime import InputError
from ..runs.metrics import read_metrics
from ..runs.run_folder import read_config
from ..runs.run_lines import EPISODES, EXAMPLES, actions_of_line
from .video import check_video, filmed

_ENTRIES = {
    "environment": int,
    "index": int,
    "seed": int,
    "return": int | float | None,
    "length": int,
    "actions": object,
}
"""Of a line of an episode, and what each is."""


@dataclass(frozen=True, kw_only=True)
class ReplayedEpisode:
    """What an episode gave when it was played once more."""

    episode: int
    """Its number in the run, from 1, in the order in which episodes ended."""
    iteration: int
    """The one in which it ended."""
    environment: int
    """Logical index of its environment in the run."""
    index: int
    """How many episodes that environment had finished before."""
    seed: int
    """Of its reset."""
    steps: int
    """Taken now."""
    episode_return: float
    """Sum of rewards now."""
    ended: bool
    """Whether it ended with its last action, and not before."""
    recorded_steps: int
    recorded_return: float | None

    @property
    def same(self) -> bool:
        """Whether steps, return and end are those of the training, bit for bit."""
        return self.ended and (self.steps, self.episode_return) == (self.recorded_steps, self.recorded_return)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON-able values."""
        return asdict(self) | {"same": self.same}


def replay_episode(folder: str | Path, number: int, *, video: str | Path | None = None) -> ReplayedEpisode:
    """Play episode `number` of the run at `folder` once more, from 1 on, and film it if wanted.

    Raises InputError if the run has recorded no such episode, or its environment cannot be found, or filmed.
    """
    config = read_config(folder)
    line = _line_of(Path(folder), number, config)
    path = None if video is None else check_video(video)
    try:
        seed, environment = config["run"]["seed"], config["environment"]
    except KeyError as error:
        raise InputError(f"'{folder}/config.json' lacks the entry {error}: it is damaged. Restore the file") from None
    if not isinstance(seed, int):
        raise InputError(f"'{folder}/config.json' is damaged: the seed of its run is {seed!r}. Restore the file")
    described = spec_from_json(environment, folder=folder)
    spec = inspect_environment(described, run_seed=seed, mode="warn", step_timeout=None).spec
    place = {name: line[name] for name in ("iteration", "environment", "index", "seed")}
    if path is None:
        played = _play(make_copy(spec, seed, line["environment"]), spec.id, line)
    else:
        with filmed(spec, path, 1) as shown:
            played = _play(make_copy(shown, seed, line["environment"]), spec.id, line)
    steps, total, ended = played
    recorded = {"recorded_steps": line["length"], "recorded_return": line["return"]}
    return ReplayedEpisode(episode=number, **place, steps=steps, episode_return=total, ended=ended, **recorded)


def _line_of(folder: Path, number: int, config: dict[str, Any]) -> dict[str, Any]:
    if number < 1:
        raise InputError(f"episode is {number}, but episodes are counted from 1")
    found = next((line for index, line in enumerate(read_metrics(folder / EPISODES), 1) if index == number), None)
    if found is not None:
        wrong = [
            f"{name} is {found[name]!r:.80}" if name in found else f"{name} is missing"
            for name, kind in _ENTRIES.items()
            if name not in found or not isinstance(found[name], kind)
        ]
        if wrong:
            told = ", ".join(wrong)
            raise InputError(f"line {number} of '{folder / EPISODES}' is damaged: {told}. Restore the file")
        return found
    count = sum(1 for _ in read_metrics(folder / EPISODES))
    if count:
        raise InputError(f"run {str(folder)!r} has recorded {count} episodes, so there is none of number {number}")
    run = config.get("run", {})
    why = f"record is {run.get('record')!r}: with 'all' a training records actions of any size"
    if run.get("record") == "all":
        why = f"none has ended, or {config.get('algorithm')} chooses none in an environment"
    if (folder / EXAMPLES).exists():
        why = f"they are answers of a language model, of which {EXAMPLES} holds some; `shoal verify` repeats iterations"
    if run.get("vectorization", "sync") != "sync":
        why = f"its environments were stepped together ({run['vectorization']!r}), so that none has a seed of its own"
    raise InputError(f"run {str(folder)!r} has recorded no actions of episodes: {why}")


def _play(env: Any, name: str, line: dict[str, Any]) -> tuple[int, float, bool]:
    """Steps, sum of rewards, and whether the episode ended with the last action."""
    with closing(env, name):
        unpack = codec(env.action_space).unpack
        try:
            actions = actions_of_line(line, env.action_space)
        except (ValueError, TypeError) as error:
            raise InputError(f"the actions of the episode in {EPISODES} are damaged: {error}") from None
        env.reset(seed=line["seed"])
        steps, total, over = 0, 0.0, False
        for action in actions:
            _, reward, terminated, truncated, _ = env.step(unpack(action))
            steps, total, over = steps + 1, total + float(reward), bool(terminated or truncated)
            if over:
                break
    return steps, total, over
