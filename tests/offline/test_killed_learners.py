"""A learner that is killed between draws from a dataset larger than its memory, and again while it repeats them: the
weights are those of an undisturbed training. Real processes."""

import numpy as np
import pytest
from datasets import episode, write_dataset
from disturbances import disturbed
from gymnasium import spaces

from shoal import BC, MARWIL, runtime
from shoal.rl import Callback

pytestmark = pytest.mark.usefixtures("datasets")

BOX, CHOICE = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)


SETTINGS = {"batch_size": 16, "buffer_size": 60, "normalize": "obs", "policy_kwargs": {"net_arch": [8]}}


def many_episodes():
    """More than a block holds."""
    played = [episode(BOX, CHOICE, length, seed=length, rewards=np.arange(length)) for length in range(5, 30)]
    return write_dataset("drawn/many-v0", played, BOX, CHOICE)


class KillReaderAndLearner(Callback):
    """Ends who reads for all learners after the second iteration, and a learner after the fourth."""

    def on_iteration_end(self, training, report):
        run = training.actors
        if report.iteration == 2:
            runtime.kill(run._reader, no_restart=False)
        if report.iteration == 4:
            runtime.kill(run.learner.members[0])


@pytest.mark.slow
def test_what_is_read_once_for_all_learners_is_what_one_reads_also_when_they_and_the_reader_are_killed(native):
    name, digests = many_episodes(), []
    for count, callbacks in ((1, ()), (2, (KillReaderAndLearner(),))):
        with BC(dataset=name, gradient_steps=20, gradient_shards=2, learners=count, **SETTINGS) as training:
            result = training.train(160, callbacks=callbacks)
        digests.append(result.weights_sha256)
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_kills_change_no_weight(native, tmp_path):
    name, events = many_episodes(), tmp_path / "events"
    settings = {"gradient_steps": 300, "beta": 0.5, "moving_average_sqd_adv_norm_update_rate": 0.01, **SETTINGS}
    digests = []
    # A snapshot is taken after 1 200 updates: 1 300 is after it, 700 and 350 are repeated on the way.
    for numbers in ("", "700 350 700 1300 1250"):
        events.write_text("\n".join(f"{number} kill" for number in numbers.split()))
        with disturbed(MARWIL, before="draw")(dataset=name, events=str(events), **settings) as training:
            digests.append(training.train(1500).weights_sha256)
        assert events.read_text() == ""
    assert digests[0] == digests[1]
