"""The state of a simulation group between two rollouts: what a recovery or a resume continues from, bit for bit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..runtime import InputError
from .trees import tree_from_arrays, tree_to_arrays

#: How the environments are put back: by their own `set_state`, from a pickle, by replaying each episode from its seed
#: and actions, or not at all: a new episode begins.
Recovery = Literal["own_state", "snapshot", "replay", "restart"]

#: Actions that a group keeps for the script that repeats a crash, where recovery doesn't need them.
KEPT_FOR_MESSAGES = 10_000

_ARRAYS = ("observations", "episodes", "seeds", "lengths", "returns", "actions")
_FIELDS = ("environment_id", "run_seed", "first_index", "size", "steps", "replayable")


@dataclass(frozen=True, eq=False)
class GroupState:
    """Everything that `EnvGroup.restore` needs; can be pickled, and holds large parts as arrays.

    Attributes:
        environment_id: id of the environment's spec.
        run_seed: seed of the run.
        first_index: logical index of the group's first environment.
        size: number of environments.
        steps: steps that each environment has taken in the run.
        recovery: how the environments are put back.
        replayable: whether seed and actions alone lead back to the same place.
        observations: [size, …] current observations, as rows of the space's codec.
        episodes: int64 [size] index of each environment's current episode.
        seeds: int64 [size] what its reset got.
        lengths: int64 [size] steps taken in it.
        returns: float64 [size] sum of its rewards so far.
        actions: [max(lengths), size, …] environment actions of the last steps; the current episode of environment i is
            the last `lengths[i]` rows of column i.
        payload: own states, one per environment; or a pickle of all environments; None for replay and restart.
        memory: [size, …] each: what the policy remembers of the episodes in progress; empty if it has no memory.
    """

    environment_id: str
    run_seed: int
    first_index: int
    size: int
    steps: int
    recovery: Recovery
    replayable: bool
    observations: np.ndarray
    episodes: np.ndarray
    seeds: np.ndarray
    lengths: np.ndarray
    returns: np.ndarray
    actions: np.ndarray
    payload: Any = None
    memory: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return the state as named arrays and values that JSON can hold, without pickle, for checkpoints.

        Own states are kept if they are made of numbers, texts, lists, dicts and arrays. Otherwise seed and actions
        are, if they lead back to the same place; if not even that, the resumed group begins new episodes.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        description: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        arrays |= {f"memory/{name}": array for name, array in self.memory.items()}
        has_all_actions = len(self.actions) == self.lengths.max()
        description["recovery"] = "replay" if self.replayable and has_all_actions else "restart"
        if self.recovery == "own_state":
            own: dict[str, np.ndarray] = {}
            try:
                description["own_states"] = tree_to_arrays(list(self.payload), "own_states", own)
            except TypeError:  # some part is neither number nor array, so that seed and actions have to do
                pass
            else:
                description["recovery"] = "own_state"
                arrays |= own
        return arrays, description

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], description: dict[str, Any]) -> "GroupState":
        """Return the state that `to_arrays` described.

        Raises:
            InputError: something is missing; names it.
        """
        try:
            fields = {name: description[name] for name in (*_FIELDS, "recovery")}
            fields |= {name: arrays[name] for name in _ARRAYS}
            memory = {name: array for name, array in arrays.items() if name.startswith("memory/")}
            fields["memory"] = {name.removeprefix("memory/"): array for name, array in memory.items()}
            own = fields["recovery"] == "own_state"
            return cls(**fields, payload=tree_from_arrays(description["own_states"], arrays) if own else None)
        except KeyError as error:
            raise InputError(f"the state of a simulation group lacks {error}: the checkpoint is damaged") from None

    def check_fits(self, environment_id: str, run_seed: int, first_index: int, size: int) -> None:
        """Refuse to continue another group's episodes.

        Raises:
            InputError: names what differs, and both values.
        """
        wanted = {"environment_id": environment_id, "run_seed": run_seed, "first_index": first_index, "size": size}
        for name, value in wanted.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"this state belongs to another simulation group: its {name.replace('_', ' ')} is "
                    f"{getattr(self, name)!r}, this group's is {value!r}"
                )
