"""A learner that is killed between draws from a dataset larger than its memory, and again while it repeats them: the
weights are those of an undisturbed training. Real processes."""

import numpy as np
import pytest
from datasets import episode, write_dataset
from disturbances import disturbed
from gymnasium import spaces

from shoal import MARWIL

pytestmark = pytest.mark.usefixtures("datasets")

BOX, CHOICE = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(3)


@pytest.mark.slow
def test_kills_change_no_weight(native, tmp_path):
    played = [episode(BOX, CHOICE, length, seed=length, rewards=np.arange(length)) for length in range(5, 30)]
    name = write_dataset("drawn/many-v0", played, BOX, CHOICE)
    events = tmp_path / "events"
    settings = {
        "gradient_steps": 300, "batch_size": 16, "buffer_size": 60, "beta": 0.5, "normalize": "obs",
        "moving_average_sqd_adv_norm_update_rate": 0.01, "policy_kwargs": {"net_arch": [8]},
    }  # fmt: skip
    digests = []
    # A snapshot is taken after 1 200 updates: 1 300 is after it, 700 and 350 are repeated on the way.
    for numbers in ("", "700 350 700 1300 1250"):
        events.write_text("\n".join(f"{number} kill" for number in numbers.split()))
        with disturbed(MARWIL, before="draw")(dataset=name, events=str(events), **settings) as training:
            digests.append(training.train(1500).weights_sha256)
        assert events.read_text() == ""
    assert digests[0] == digests[1]
