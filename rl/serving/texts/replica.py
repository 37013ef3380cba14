"""One replica of a served language model: an actor that says the next token of all its answers at each call."""

import os
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ....envs import own_generators
from ...language.asked import Asked, Said
from ...language.tokens import ANSWER, BEGIN
from ...lazy import load, torch
from ...threads import limit_threads, limit_torch_threads


class TextReplica:
    """Actor class; it imports torch, so it is constructed in a process of its own.

    What begins, and what nobody waits for any more, comes with the next call of `advance`, which is a step. It returns
    when tokens are chosen; that they are read, which is most of a step, goes on in a thread beside it while they, and
    the next call, are on their way. An answer stays with the weights with which it began: after `load`, the earlier
    ones go on as long as they are needed.
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
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shoal-read")
        self._reading: Future[None] | None = None
        self._version = 0
        self.load(files)

    def describe(self) -> dict[str, Any]:
        """Return the version of the weights, the process id, and what tells this replica from one that was restarted;
        it also says that the replica is alive."""
        return {"version": self._version, "pid": os.getpid(), "life": self._life}

    def load(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Take the weights of these files for answers that begin from now on, and return what `describe` does."""
        self._finish_reading()
        limit_torch_threads(self._threads)
        with own_generators(0):
            policy = load("policy_from_files")(files)
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
        self._finish_reading()
        limit_torch_threads(self._threads)
        for key in dropped:
            for decoding in self._decodings:
                decoding.drop(key)
        for key, asked in begin:
            self._decodings[-1].add(key, asked)
        self._decodings = [each for each in self._decodings[:-1] if each.busy] + self._decodings[-1:]
        going = [decoding for decoding in self._decodings if decoding.busy]
        with torch.inference_mode():
            said = [each for decoding in going for each in decoding.say()]
        self._reading = self._beside.submit(self._read, going)
        return said

    def _read(self, going: Sequence[Any]) -> None:
        limit_torch_threads(self._threads)
        with torch.inference_mode():
            for decoding in going:
                decoding.read()

    def _finish_reading(self) -> None:
        """Wait for it; raises what it did."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.result()
