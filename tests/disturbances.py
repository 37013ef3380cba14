"""What ends or interrupts processes at a given update of a training."""

import os
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path


def disturb(events, update):
    """Do what the first line of the file `events` says, if it is of this update: "40 kill" ends this process, and
    "110 interrupt PID" interrupts another one. The line is taken off before."""
    lines = events.read_text().splitlines()
    if lines and update == int(lines[0].split()[0]):
        events.write_text("\n".join(lines[1:]))
        what, *whom = lines[0].split()[1:]
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(int(whom[0]), signal.SIGINT)


def disturbed(algorithm, before="update"):
    """The algorithm, which does what the file `events` says before each of its updates, or before each call of the
    learner's method `before`; see `disturb`."""

    @dataclass(frozen=True, kw_only=True)
    class Config(algorithm.config_class):
        events: str = ""

    class Disturbed(algorithm):
        config_class = Config

        @staticmethod
        def update(learner, rollout, config, clock):
            if before == "update":
                disturb(Path(config.events), learner.n_updates)
            else:
                setattr(learner, before, partial(_disturbed, learner, before, Path(config.events)))
            return algorithm.update(learner, rollout, config, clock)

    return Disturbed


def trained_through(training, total):
    """Train until there are `total` steps, on after each interrupt; return the hash of the weights, and how often that
    was."""
    interrupts = 0
    while True:
        try:
            return training.train(total - training.timesteps).weights_sha256, interrupts
        except KeyboardInterrupt:
            interrupts += 1
            assert 0 < training.timesteps < total


def _disturbed(learner, method, events, *arguments, **options):
    disturb(events, learner.n_updates)
    return getattr(type(learner), method)(learner, *arguments, **options)
