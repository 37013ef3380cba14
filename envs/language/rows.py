"""The environments of a group of rows that are answered together: every call checked, in bounded time, and told of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from ..checked import Calls, CheckedEnvironment
from ..closing import close_all
from ..copies import make_copy
from ..generators import PrivateGenerators
from ..spec import EnvSpec


class TextEnvironments:
    """`size` copies of an environment between texts, each of which plays an episode at a time.

    `check` and `step_timeout` as in `RunSettings`; `samples` rows in a row answer the same prompt. A call raises what
    the environment raises, with a note that names prompt and answer; EnvContractError on a result that is not
    gymnasium's; EnvTimeoutError.
    """

    def __init__(
        self,
        spec: EnvSpec,
        size: int,
        *,
        run_seed: int,
        check: str = "error",
        step_timeout: float | None = None,
        samples: int = 1,
    ) -> None:
        self._samples = samples
        self._spec, self._calls = spec, Calls(spec, step_timeout)
        self._copies: list[CheckedEnvironment] = []
        self._taken: list[list[np.ndarray]] = [[] for _ in range(size)]
        self._seeds: list[int | None] = [None] * size
        self._seen: list[str] = [""] * size
        try:
            for row in range(size):
                with self._calls("__init__"):
                    env: gymnasium.Env = make_copy(spec, run_seed, row)
                own = PrivateGenerators(env, spec.generators) if spec.generators else env
                self._copies.append(CheckedEnvironment(spec, own, self._calls, check))
        except BaseException:
            self.close()
            raise

    def reset(self, row: int, seed: int) -> str:
        """Begin an episode; return its prompt."""
        self._calls.taken = self._taken[row]
        self._seen[row] = prompt = self._copies[row].reset(seed)
        self._taken[row], self._seeds[row] = self._calls.taken, seed
        return str(prompt)

    def anticipate(self, answers: Mapping[int, str]) -> None:
        """Tell the environments of these rows how they will be answered, before the first of them is: those with a
        method `anticipate` can have it judged together."""
        for row, answer in answers.items():
            tell = getattr(self._copies[row].env.unwrapped, "anticipate", None)
            if tell is not None:
                tell(answer)

    def step(self, row: int, answer: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Answer; return what the environment says to it."""
        self._calls.taken, self._calls.seed = self._taken[row], self._seeds[row]
        try:
            observation, reward, terminated, truncated, info = self._copies[row].step(answer)
        except Exception as error:
            prompt, sample = divmod(row, self._samples)
            error.add_note(
                f"It judged the answer {answer!r:.200} to {self._seen[row]!r:.200} "
                f"(row {row} of its group: prompt {prompt}, sample {sample})"
            )
            raise
        self._seen[row] = str(observation)
        return self._seen[row], float(reward), bool(terminated), bool(truncated), info

    def close(self) -> None:
        """Close all of them."""
        copies, self._copies = self._copies, []
        close_all([copy.env for copy in copies], self._spec.id)
        self._calls.close()
