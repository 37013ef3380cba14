"""Atari games as the field trains on them: Machado et al., 2018 (arXiv 1709.06009), with the switches of Mnih et al.,
2015."""

import importlib
from typing import Any, ClassVar, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TransformReward

#: Beginnings of ids: with the preprocessing, and ale-py's own.
PREPROCESSED, PLAIN = "Atari/", "ALE/"


class Atari(gymnasium.Wrapper):
    """A game of ale-py with the standard preprocessing, under the id "Atari/Pong-v5"; "ALE/Pong-v5" is without.

    Observations: uint8 [frame_stack, screen_size, screen_size], gray, of every `frame_skip`-th frame the larger value
    of it and of the one before. Names and defaults are those of gymnasium's `AtariPreprocessing` where it has them.

    Args:
        game: id of the game, such as "ALE/Pong-v5".
        frame_stack: frames in an observation.
        frame_skip: frames for which an action is repeated, and whose rewards are summed.
        noop_max: an episode begins with up to so many steps that do nothing, drawn from its seed.
        screen_size: height and width.
        terminal_on_life_loss: whether a lost life ends the episode. The next one begins a new game, so that an episode
            depends on its seed alone; Stable-Baselines3's wrapper lets the old game go on.
        clip_reward: whether rewards become their sign.
        fire_reset: whether an episode begins with FIRE, in games that wait for it.
        repeat_action_probability: that a frame takes the last action instead ("sticky actions").
        full_action_space: all 18 actions instead of those that the game uses.
        render_mode: as in gymnasium.make.

    Raises:
        ImportError: ale-py is not installed.
        gymnasium.error.DependencyNotInstalled: OpenCV is not.
    """

    #: An evaluation counts the points of whole games.
    evaluation_kwargs: ClassVar[dict[str, Any]] = {"terminal_on_life_loss": False, "clip_reward": False}

    def __init__(
        self,
        game: str,
        *,
        frame_stack: int = 4,
        frame_skip: int = 4,
        noop_max: int = 30,
        screen_size: int = 84,
        terminal_on_life_loss: bool = True,
        clip_reward: bool = True,
        fire_reset: bool = True,
        repeat_action_probability: float = 0.25,
        full_action_space: bool = False,
        render_mode: str | None = None,
    ) -> None:
        gymnasium.register_envs(importlib.import_module("ale_py"))
        env: gymnasium.Env = gymnasium.make(
            game,
            frameskip=1,
            repeat_action_probability=repeat_action_probability,
            full_action_space=full_action_space,
            render_mode=render_mode,
            disable_env_checker=True,
        )
        fire = _fire(env) if fire_reset else None
        env = AtariPreprocessing(
            env,
            noop_max=noop_max,
            frame_skip=frame_skip,
            screen_size=screen_size,
            terminal_on_life_loss=terminal_on_life_loss,
        )
        if fire is not None:
            env = _FireReset(env, fire)
        if clip_reward:
            env = TransformReward(env, _sign)
        super().__init__(FrameStackObservation(env, frame_stack))


def _sign(reward: SupportsFloat) -> float:
    return float(np.sign(float(reward)))


def _fire(env: gymnasium.Env) -> int | None:
    """The action FIRE of a game that has it by itself, without a direction."""
    meanings: list[str] = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
    return meanings.index("FIRE") if "FIRE" in meanings else None


class _FireReset(gymnasium.Wrapper):
    """Begins each episode with FIRE."""

    def __init__(self, env: gymnasium.Env, fire: int) -> None:
        super().__init__(env)
        self.fire = fire

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.env.reset(seed=seed, options=options)
        observation, _, terminated, truncated, info = self.env.step(self.fire)
        return self.env.reset(options=options) if terminated or truncated else (observation, info)
