"""`shoal serve --reload`: the weights of a newer checkpoint are served."""

from threading import Event

from gymnasium.spaces import Text

from shoal.cli.serve import _follow
from shoal.rl import LanguagePolicy
from shoal.rl.models.spec import ModelSpec
from shoal.runtime import InputError


class Told:
    """What `_follow` needs of a served model: it stops once it was told twice."""

    def __init__(self, stopped):
        self.updates, self._stopped = [], stopped

    def update(self, folder):
        self.updates.append(folder.name)
        if len(self.updates) == 1:
            raise InputError("it is being written")
        self._stopped.set()


def test_a_newer_checkpoint_is_served_and_one_that_cannot_be_read_is_tried_again(tmp_path, monkeypatch, capsys):
    policy = LanguagePolicy(ModelSpec("language_model", Text(8), Text(8), {"width": 16, "context": 16}))
    policy.save(tmp_path / "run" / "checkpoints" / "000000000010")
    stopped = Event()
    served, looks = Told(stopped), []

    def wait(seconds):
        looks.append(seconds)
        if len(looks) == 3:  # until now there was nothing new
            assert served.updates == []
            policy.save(tmp_path / "run" / "checkpoints" / "000000000020")
        return stopped.is_set()

    monkeypatch.setattr(stopped, "wait", wait)
    _follow(served, str(tmp_path / "run"), 0.5, stopped)
    assert served.updates == ["000000000020"] * 2
    assert set(looks) == {0.5}
    assert "the weights are those of before: it is being written" in capsys.readouterr().err
