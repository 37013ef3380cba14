"""Rewards to be judged by processes of their own, which import this module alone: none of what tests import."""

import os
import signal
import time
from pathlib import Path


def length(prompt, answer):
    return float(len(answer))


def same(prompt, answer):
    return float(prompt == answer)


def pid(prompt, answer):
    return os.getpid()


class Once:
    """Judges lengths; the first time that it meets `answer`, while there is a file `marker`, it does `what`."""

    def __init__(self, marker, answer, what, batched=False):
        self.marker, self.answer, self.what, self.batched = str(marker), answer, what, batched

    def __call__(self, prompts, answers):
        if not self.batched:
            return self._one(answers)
        return [self._one(answer) for answer in answers]

    def _one(self, answer):
        if answer == self.answer and Path(self.marker).exists():
            if self.what != "always raise":
                Path(self.marker).unlink()
            if self.what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.what == "hang":
                time.sleep(1000)
            raise ZeroDivisionError("the judge fell over")
        return float(len(answer))
