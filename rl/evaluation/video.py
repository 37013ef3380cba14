"""A video of episodes, written while they are played: of the first environment of an evaluation."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from ...envs import EnvSpec, install_line, is_installed, missing_packages_named, resolve
from ...runtime import InputError
from ..runs.run_place import file_problem

_SUFFIXES = {".mp4": ("imageio", "imageio_ffmpeg"), ".gif": ("imageio",)}
_DEFAULT_FPS = 30


def check_video(path: str | Path) -> Path:
    """The path of a video that can be written; InputError says what to change."""
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"video is {str(path)!r}, but must end in {' or '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"video is {str(path)!r}, but there is no folder {str(path.parent)!r}")
    problem = file_problem(path)
    if problem is not None:
        raise InputError(f"video {str(path)!r} cannot be written: {problem}")
    for module in _SUFFIXES[path.suffix.lower()]:
        if not is_installed(module):
            raise InputError(f"a video needs the package {module!r}, which is not installed: {install_line(module)}")
    return path


@contextmanager
def filmed(spec: EnvSpec, path: Path, episodes: int) -> Iterator[EnvSpec]:
    """A spec whose first copy is filmed; the video appears under its name once the block is done.

    Args:
        spec: what is to be played.
        path: from `check_video`.
        episodes: how many of the copy's episodes are shown.

    Raises:
        InputError: the environment cannot be rendered to arrays, or lacks what it renders with.
    """
    film = _Film(path, episodes)
    try:
        yield replace(spec, entry=_Filming(spec, film), kwargs={}, max_episode_steps=None)
        film.finish()
    finally:
        film.discard()


class _Film:
    """Frames on their way into a file."""

    def __init__(self, path: Path, episodes: int) -> None:
        self.path, self.episodes = path, episodes
        # The suffix stays last, since it says how to encode; one name, so the next one removes what a kill left.
        self._partial = path.with_name(f".{path.stem}.tmp{path.suffix}")
        self._writer: Any = None

    def show(self, frame: np.ndarray, fps: float) -> None:
        """Add a frame, uint8 [height, width, 3]."""
        if self._writer is None:
            module = importlib.import_module("imageio.v2")
            if self.path.suffix.lower() == ".gif":
                self._writer = module.get_writer(self._partial, mode="I", duration=1000 / fps, loop=0)
            else:
                self._writer = module.get_writer(self._partial, fps=fps, macro_block_size=1)
        rows, columns = (size + size % 2 for size in frame.shape[:2])  # H.264 halves the colours' resolution
        padding = ((0, rows - frame.shape[0]), (0, columns - frame.shape[1]), (0, 0))
        self._writer.append_data(np.pad(frame, padding, mode="edge"))

    def finish(self) -> None:
        """Give the file its name."""
        self._close()
        self._partial.replace(self.path)

    def discard(self) -> None:
        """Remove what is not finished."""
        self._close()
        self._partial.unlink(missing_ok=True)

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


class _Filming:
    """Makes copies of an environment, of which the first is filmed."""

    def __init__(self, spec: EnvSpec, film: _Film) -> None:
        self.spec, self.film = spec, film
        self._begun = False

    def __call__(self) -> gymnasium.Env:
        if self._begun:
            return self.spec.make()
        self._begun = True
        try:
            env = resolve(self.spec, {"render_mode": "rgb_array"}).make()
        except InputError as error:
            if "render_mode" not in str(error):
                raise
            raise InputError(f"{_cannot_film(self.spec)}: its constructor takes no render_mode") from error
        if env.render_mode != "rgb_array" or "rgb_array" not in (env.metadata or {}).get("render_modes", ()):
            modes = (env.metadata or {}).get("render_modes", [])
            env.close()
            raise InputError(f"{_cannot_film(self.spec)}: its metadata has render_modes {modes!r}")
        return _Filmed(env, self.spec, self.film)


def _cannot_film(spec: EnvSpec) -> str:
    return f"no video can be made of environment {spec.id!r}, since it has no render_mode 'rgb_array'"


class _Filmed(gymnasium.Wrapper):
    """Renders after each reset and step, until enough episodes have ended."""

    def __init__(self, env: gymnasium.Env, spec: EnvSpec, film: _Film) -> None:
        super().__init__(env)
        self._spec_id, self._film, self._left = spec.id, film, film.episodes
        self._fps = float((env.metadata or {}).get("render_fps") or _DEFAULT_FPS)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(**kwargs)
        self._show()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self.env.step(action)
        self._show()
        self._left -= bool(result[2] or result[3])
        return result

    def _show(self) -> None:
        if self._left <= 0:
            return
        frame = self._rendered()
        if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.shape[2:] != (3,):
            seen = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise InputError(
                f"environment {self._spec_id!r}: render() returned {seen}; wanted uint8 [height, width, 3]"
            )
        self._film.show(frame, self._fps)

    def _rendered(self) -> Any:
        try:
            with missing_packages_named(self._spec_id):
                return self.env.render()
        except InputError:
            raise
        except Exception as error:
            if not type(self.env.unwrapped).__module__.startswith("gymnasium.envs.mujoco"):
                raise  # the user's own, told with its traceback
            raise InputError(
                f"environment {self._spec_id!r} cannot be rendered: {type(error).__name__}. Without a display, MuJoCo "
                "needs the environment variable MUJOCO_GL=egl or MUJOCO_GL=osmesa, and the library of that name"
            ) from error
