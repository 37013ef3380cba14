"""Packages that an environment needs and this Python lacks, told in one line with the command that installs them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import gymnasium

from ..runtime import InputError

# What to install for a module whose package has another name.
_INSTALLS = {
    "Box2D": '"shoal[box2d]"',
    "PIL": "pillow",
    "ale_py": '"shoal[atari]"',
    "cv2": '"shoal[atari]"',
    "envpool": '"shoal[envpool]"',
    "h5py": '"shoal[minari]"',
    "imageio": '"shoal[video]"',
    "imageio_ffmpeg": '"shoal[video]"',
    "jax": '"gymnasium[jax]"',
    "minari": '"shoal[minari]"',
    "mpe2": '"shoal[agents]"',
    "mujoco": '"shoal[mujoco]"',
    "pygame": '"shoal[video]"',
    "reasoning_gym": '"shoal[reasoning]"',
    "sklearn": "scikit-learn",
    "tokenizers": '"shoal[lm]"',
    "transformers": '"shoal[lm]"',
    "vaderSentiment": '"shoal[reasoning]"',
    "yaml": "pyyaml",
}

# Beginnings of ids, and the module that registers them with gymnasium.
_REGISTERED_BY = {
    "ALE/": "ale_py",
    "BabyAI-": "minigrid",
    "Fetch": "gymnasium_robotics",
    "HandManipulate": "gymnasium_robotics",
    "MiniGrid-": "minigrid",
    "Panda": "panda_gym",
    "PointMaze_": "gymnasium_robotics",
    "AntMaze_": "gymnasium_robotics",
    "dm_control/": "shimmy",
    "highway-": "highway_env",
    "mo-": "mo_gymnasium",
}

# Packages of gymnasium's and PettingZoo's environments, and the modules that they import.
_NEEDED = {
    "gymnasium.envs.box2d": ("Box2D",),
    "gymnasium.envs.mujoco": ("mujoco",),
    "gymnasium.envs.phys2d": ("jax",),
    "gymnasium.envs.tabular": ("jax",),
    "pettingzoo": ("pygame",),
    "pettingzoo.atari": ("multi_agent_ale_py",),
    "pettingzoo.butterfly.pistonball": ("pymunk",),
    "pettingzoo.classic.chess": ("chess",),
    "pettingzoo.classic.hanabi": ("shimmy",),
    "pettingzoo.classic.rlcard_envs": ("rlcard",),
    "pettingzoo.sisl.multiwalker": ("Box2D",),
    "pettingzoo.sisl.pursuit": ("scipy",),
}


def install_line(module: str) -> str:
    """Return the command that installs what a module is in."""
    package = module.partition(".")[0]
    return f"pip install {_INSTALLS.get(package, package)}"


def is_installed(module: str) -> bool:
    """Whether a module could be imported, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # what sys.modules holds for it is no module
        return False


def missing_for(entry_point: str) -> str | None:
    """Return a module that is not installed and that an environment of gymnasium's or PettingZoo's needs, if there is
    one.

    Args:
        entry_point: such as "gymnasium.envs.box2d.lunar_lander:LunarLander".
    """
    parts = entry_point.partition(":")[0].split(".")
    packages = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    needed = [module for package in packages for module in _NEEDED.get(package, ())]
    return next((module for module in needed if not is_installed(module)), None)


def missing_package(error: ImportError | gymnasium.error.DependencyNotInstalled) -> str:
    """Return what is missing and how to install it, as a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    lacking = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    if isinstance(lacking, ModuleNotFoundError) and lacking.name:
        package = lacking.name.partition(".")[0]
        if lacking is error or package in _INSTALLS:  # gymnasium's own advice would fetch other versions, or needs swig
            return f"the package {package!r} is not installed: {install_line(package)}"
    if "pip install" in text:
        return text
    project = re.search(r"github\.com/[\w.-]+/([\w.-]+)", text)
    return f"{text}: pip install {project[1]}" if project else text


@contextmanager
def missing_packages_named(environment_id: str) -> Iterator[None]:
    """Turn an error about a package that is missing into one line; all else passes.

    Raises:
        InputError: names the environment, the package and the command.
    """
    try:
        yield
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise InputError(f"environment {environment_id!r} cannot be made: {missing_package(error)}") from error


def registering_module(environment_id: str) -> str | None:
    """Return the module known to register an id with gymnasium when it is imported, or None."""
    return next((module for start, module in _REGISTERED_BY.items() if environment_id.startswith(start)), None)


def registering_modules() -> list[str]:
    """Return all modules known to register ids, sorted."""
    return sorted(set(_REGISTERED_BY.values()))
