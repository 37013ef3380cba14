"""Packages that an environment needs and this Python lacks, told in one line with the command that installs them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import gymnasium

from ..runtime import InputError

# What to install for a module whose package has another name.
_INSTALLS = {
    "Box2D": '"gymnasium[box2d]"',
    "PIL": "pillow",
    "cv2": "opencv-python",
    "jax": '"gymnasium[jax]"',
    "mujoco": '"gymnasium[mujoco]"',
    "pygame": '"gymnasium[classic-control]"',
    "sklearn": "scikit-learn",
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


def missing_package(error: ImportError | gymnasium.error.DependencyNotInstalled) -> str:
    """Return what is missing and how to install it, as a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    if "pip install" in text:
        return text
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return f"the package {package!r} is not installed: pip install {_INSTALLS.get(package, package)}"
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
