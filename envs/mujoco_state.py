"""The state of gymnasium's MuJoCo environments, and of those that are made like them: they have none of their own.

It is what MuJoCo calls the integration state (time, positions, velocities, actuators, warm start: all that its next
step depends on), what the last step derived from it, which environments read before they step again (an Ant its place,
a Humanoid its centre of mass: that follows from where the step began, so not from where it ended), and what attributes
the environment has that are numbers and arrays, such as a goal.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np

_DERIVED = (
    *("xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "subtree_com"),
    *("cinert", "cvel", "cacc", "cfrc_ext", "cfrc_int", "subtree_linvel", "subtree_angmom"),
    *("actuator_force", "actuator_length", "actuator_velocity", "qfrc_actuator", "qfrc_constraint", "qfrc_passive"),
    *("qacc", "qacc_smooth", "sensordata", "ten_length", "ten_velocity"),
)


class MujocoState:
    """`get_state` and `set_state` of such an environment."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def get_state(self) -> dict[str, Any]:
        """A tree of arrays and numbers."""
        mujoco, env = sys.modules["mujoco"], self._env
        physics = np.empty(mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_INTEGRATION))
        mujoco.mj_getState(env.model, env.data, physics, mujoco.mjtState.mjSTATE_INTEGRATION)
        return {
            "physics": physics,
            "derived": {name: getattr(env.data, name).copy() for name in _DERIVED},
            "attributes": {name: value for name, value in vars(env).items() if _is_plain(value)},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` returned."""
        mujoco, env = sys.modules["mujoco"], self._env
        mujoco.mj_setState(env.model, env.data, state["physics"], mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(env.model, env.data)  # whatever else follows from it; then what did not, as it was
        mujoco.mj_setState(env.model, env.data, state["physics"], mujoco.mjtState.mjSTATE_INTEGRATION)
        for name, array in state["derived"].items():
            getattr(env.data, name)[:] = array
        for name, value in state["attributes"].items():
            setattr(env, name, value)


def mujoco_state(env: gymnasium.Env) -> MujocoState | None:
    """The state of an environment without wrappers, if it simulates one model by MuJoCo; None if it does not."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is None:  # then nothing here is of it
        return None
    own = vars(env)
    is_one = isinstance(own.get("model"), mujoco.MjModel) and isinstance(own.get("data"), mujoco.MjData)
    return MujocoState(env) if is_one else None


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | np.ndarray | np.generic)
