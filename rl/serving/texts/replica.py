"""One replica of a served language model: an actor that says the next token of all its answers at each call."""

import os
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....envs import own_generators
from ...language.asked import Asked, Said
from ...language.tokens import ANSWER, BEGIN
from ...lazy import load, torch
from ...threads import limit_threads, limit_torch_threads


class TextReplica:
    """Actor class; it imports torch, so it is constructed in a process of its own.

    It does nothing between two calls of `advance`: what begins, and what nobody waits for any more, comes with the next
    one. An answer stays with the weights with which it began: after `load`, the earlier ones go on as long as they are
    needed.
    """

    def __init__(self, files: Mapping[str, bytes], *, places: int, threads: int) -> None:
        """Load the model.

        Args:
            files: a saved policy, name to content: it reaches every machine, whatever disks hold.
            places: answers that are sampled side by side.
            threads: threads of torch and BLAS.
        """
        limit_threads(threads)
        self._places, self._threads = places, threads
        self._life = secrets.token_hex(8)
        self._decodings: list[Any] = []  # that of the newest weights last
        self._version = 0
        self.load(files)

    def describe(self) -> dict[str, Any]:
        """Return the version of the weights, the process id, and what tells this replica from one that was restarted;
        it also says that the replica is alive."""
        return {"version": self._version, "pid": os.getpid(), "life": self._life}

    def load(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Take the weights of these files for answers that begin from now on, and return what `describe` does."""
        limit_torch_threads(self._threads)
        with tempfile.TemporaryDirectory(prefix="shoal-policy-") as folder, own_generators(0):
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            policy = load("load_policy")(folder)
        decoding = load("ContinuousDecoding")(policy.model, self._places)
        decoding.add(None, Asked(prompt=(BEGIN, ANSWER), max_new_tokens=2))  # torch prepares its kernels now
        with torch.inference_mode():
            while decoding.busy:
                decoding.step()
        self._decodings = [each for each in self._decodings if each.busy] + [decoding]
        self._version = policy.version
        return self.describe()

    def advance(
        self, life: str, begin: Sequence[tuple[int, Asked]], dropped: Sequence[int]
    ) -> list[tuple[int, Said]] | None:
        """Begin answers by their keys, say no more of those that are `dropped`, and return the next token of each that
        has one now. None, and nothing is done, if `life` is another's: that of a replica which died between two calls,
        and took its answers along."""
        if life != self._life:
            return None
        limit_torch_threads(self._threads)
        for key in dropped:
            for decoding in self._decodings:
                decoding.drop(key)
        for key, asked in begin:
            self._decodings[-1].add(key, asked)
        self._decodings = [each for each in self._decodings[:-1] if each.busy] + self._decodings[-1:]
        with torch.inference_mode():
            return [each for decoding in self._decodings if decoding.busy for each in decoding.step()]
