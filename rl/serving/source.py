"""Where a served policy comes from: a Policy, an algorithm or a folder, all turned into the files of a saved policy."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gymnasium import Space

from ...runtime import InputError
from ..checkpoint import read_policy


class Savable(Protocol):
    """What has a `save(folder)`: a Policy or an algorithm."""

    save: Callable[[Path], Any]


class PolicySource:
    """The files of a saved policy and what they say about it. Torch is not imported for it.

    Attributes:
        files: file name to content.
        observation_space: of the environment that the policy was trained in.
        action_space: likewise.
    """

    files: dict[str, bytes]
    observation_space: Space
    action_space: Space

    def __init__(self, policy: Savable | str | Path) -> None:
        """Read a policy.

        Args:
            policy: a `Policy`, an algorithm, or the folder of a run, checkpoint or saved policy.

        Raises:
            InputError: something else, or a folder without a policy or with a damaged one.
        """
        if isinstance(policy, str | Path):
            self._read(Path(policy))
        elif callable(getattr(policy, "save", None)):
            with tempfile.TemporaryDirectory(prefix="shoal-policy-") as folder:
                policy.save(Path(folder))
                self._read(Path(folder))
        else:
            raise InputError(
                f"serve takes a Policy, an algorithm or the folder of a run, not a {type(policy).__name__} "
                f"({policy!r:.80})"
            )

    def _read(self, folder: Path) -> None:
        saved = read_policy(folder)  # here, so that a damaged one is reported before anything is started
        self.observation_space, self.action_space = saved.spec.observation_space, saved.spec.action_space
        self.files = saved.files
