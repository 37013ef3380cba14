"""From rollouts to the transitions that a replay buffer holds: n rewards summed, and the state where the sum ends.

    (s_t, a_t, Σ_{k<m} γ^k r_{t+k}, s_{t+m}, discount)          discount = γ^m, or 0 if step t + m − 1 terminated

m is n, or less where an episode ends before: no sum crosses an end, and a truncated one bootstraps with the γ^m of its
true length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .batch import Batch
from .rollout import Rollout
from .tree import Tree, leaves, tree_map

_NOTHING = np.float32(0)


def n_step_sums(
    *, rewards: np.ndarray, terminations: np.ndarray, ends: np.ndarray, gamma: float, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums and discounts (float32) of the n-step windows that begin at each step, their last steps, and whether they
    are complete: neither the n-th step nor the end of the episode is still to come. All arrays are [T, N].

    `ends` is true where the episode ended with that step, terminated or truncated.
    """
    steps = len(rewards)
    sums = rewards.astype(np.float64)
    discounts = np.where(terminations, 0.0, gamma)
    begins = np.broadcast_to(np.arange(steps)[:, np.newaxis], rewards.shape)
    last = begins.copy()
    for _ in range(min(n, steps) - 1):  # the k-step window of t is step t and the (k−1)-step window of t + 1
        going_on = ~ends[:-1]
        sums[:-1] = np.where(going_on, rewards[:-1] + gamma * sums[1:], rewards[:-1])
        discounts[:-1] = np.where(going_on, gamma * discounts[1:], discounts[:-1])
        last[:-1] = np.where(going_on, last[1:], begins[:-1])
    complete = (last - begins == n - 1) | np.take_along_axis(ends, last, axis=0)
    return sums.astype(np.float32), discounts.astype(np.float32), last, complete


class TransitionMaker:
    """Turns the consecutive rollouts of the same environments into transitions.

    A step whose window is not complete is kept until the next rollouts complete it: at most n − 1 steps for each
    environment (`pending`, beside whether each of its steps has been given out; None at the beginning and for n = 1).
    Where agents take turns, each row has a maker of its own, from one of its turns to the next.
    """

    def __init__(self, *, gamma: float, n: int) -> None:
        self._gamma, self._n, self._discount = gamma, n, np.float32(gamma)
        self.pending: tuple[Rollout, np.ndarray] | None = None
        self._rows: dict[int, TransitionMaker] = {}

    def transitions(self, rollout: Rollout) -> Batch:
        """Transitions that the rollout completes, in the order of their first steps, then of environments.

        Columns `observations`, `actions`, `rewards`, `next_observations`, `discounts`; of rollouts with the records
        `values` and `next_values`, those of the weights that acted, also `errors`: the sum with the value after its
        last step, without the value of the first.
        """
        if self._n == 1:
            return self._of_single_steps(rollout)
        if rollout.in_turns:
            return self._of_turns(rollout)
        given = rollout.steps["resets"] if "resets" in rollout.steps else np.zeros(rollout.shape, np.bool_)
        if self.pending is not None:
            before, given_before = self.pending
            rollout = Rollout.end_to_end([_without_gaps(before, rollout), rollout])
            given = np.concatenate([given_before, given])
        terminations, truncations = rollout.steps["terminations"], rollout.steps["truncations"]
        sums, discounts, last, complete = n_step_sums(
            rewards=rollout.steps["rewards"],
            terminations=terminations,
            ends=terminations | truncations,
            gamma=self._gamma,
            n=self._n,
        )
        size = rollout.shape[1]
        chosen = np.flatnonzero(complete & ~given)
        following = (last * size + np.arange(size)).reshape(-1)[chosen]
        after = tree_map(lambda leaf: _rows_of(leaf)[following], rollout.next_observations())
        self._keep(rollout, given | complete)
        steps = rollout.steps.only(["observations", "actions"]).flat().take(chosen)
        made = {"rewards": sums.reshape(-1)[chosen], "discounts": discounts.reshape(-1)[chosen]}
        if "next_values" in rollout.steps:
            values, ahead = (rollout.steps[name].reshape(-1) for name in ("values", "next_values"))
            made["errors"] = made["rewards"] + made["discounts"] * ahead[following] - values[chosen]
        return steps.plus(**made, next_observations=after)

    def _of_single_steps(self, rollout: Rollout) -> Batch:
        """As `transitions`: each step is one, and none waits for others."""
        steps = rollout.steps
        found = {name: steps[name] for name in ("observations", "actions", "rewards")}
        found["discounts"] = np.where(steps["terminations"], _NOTHING, self._discount)
        found["next_observations"] = rollout.next_observations()
        if "next_values" in steps:
            found["errors"] = found["rewards"] + found["discounts"] * steps["next_values"] - steps["values"]
        made = Batch({name: tree_map(_rows_of, tree) for name, tree in found.items()})
        return made if rollout.transitions is None else made.take(rollout.transitions.reshape(-1))

    def _of_turns(self, rollout: Rollout) -> Batch:
        """As `transitions`, row after row: another row's turns lie between two of one, and no step is everybody's."""
        steps, finals, size = rollout.steps, rollout.finals, rollout.shape[1]
        names = [name for name in steps if name != "resets"]
        counts = (~steps["resets"]).sum(0)
        made = []
        for row in np.flatnonzero(counts).tolist():
            own = finals.take(finals["rows"] % size == row)
            turns = {name: tree_map(lambda leaf, r=row: leaf[: counts[r], r : r + 1], steps[name]) for name in names}
            alone = Rollout(Batch(turns, 2), own.plus(rows=own["rows"] // size), rollout.version)
            maker = self._rows.setdefault(row, TransitionMaker(gamma=self._gamma, n=self._n))
            made.append(maker.transitions(alone))
        return Batch.end_to_end(made) if made else self._of_single_steps(rollout)

    def state(self) -> dict[str, Any]:
        """Steps whose window is not complete, a tree of arrays; empty where there are none."""
        if self._rows:
            return {"rows": {str(row): maker.state() for row, maker in self._rows.items()}}
        if self.pending is None:
            return {}
        rollout, given = self.pending
        return {"steps": dict(rollout.steps), "finals": dict(rollout.finals), "given": given}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        for row, own in state.get("rows", {}).items():
            self._rows[int(row)] = TransitionMaker(gamma=self._gamma, n=self._n)
            self._rows[int(row)].load(own)
        if "steps" in state:
            self.pending = Rollout(Batch(state["steps"], 2), Batch(state["finals"]), 0), state["given"]

    def _keep(self, rollout: Rollout, given: np.ndarray) -> None:
        first = max(0, len(given) - (self._n - 1))
        if first == len(given):
            return
        names = ["observations", "actions", "rewards", "terminations", "truncations"]
        names += [name for name in ("values", "next_values") if name in rollout.steps]
        offset = first * rollout.shape[1]
        finals = rollout.finals.take(rollout.finals["rows"] >= offset)
        kept = Rollout(rollout.steps.only(names).take(slice(first, None)), finals.plus(rows=finals["rows"] - offset), 0)
        self.pending = kept, given[first:]


def _rows_of(leaf: np.ndarray) -> np.ndarray:
    return leaf.reshape(-1, *leaf.shape[2:])


def _without_gaps(before: Rollout, after: Rollout) -> Rollout:
    """`before`, with its last step truncated in environments that do not go on in `after` from where it ended.

    So it is where an environment could not be put back after a loss and began a new episode.
    """
    size = before.shape[1]
    last = before.finals.take(before.finals["rows"] >= before.steps.rows - size)
    gone = np.zeros(size, np.bool_)
    for (_, end), (_, begin) in zip(leaves(last["observations"]), leaves(_first(after)), strict=True):
        gone |= (end != begin).reshape(size, -1).any(axis=1)
    truncations = before.steps["truncations"].copy()
    truncations[-1] |= gone & ~before.steps["terminations"][-1]
    return Rollout(before.steps.plus(truncations=truncations), before.finals, before.version)


def _first(rollout: Rollout) -> Tree:
    return tree_map(lambda leaf: leaf[0], rollout.steps["observations"])
