"""Environments are closed as often as they are made, whatever else happens."""

import gc
import logging
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_envs import BoomError, Counter

from shoal import envs
from shoal.envs import EnvGroup, EnvSpec, choose_recovery
from shoal.envs.closing import close_all
from shoal.envs.outside import gives_back
from shoal.runtime import InputError


class Rented(Counter):
    """Has a folder outside, which it needs in each step and gives back once."""

    def __init__(self, length=9, fails_at=None, late=0, remembers=False):
        super().__init__(length, noisy=True)
        self.folder = Path(tempfile.mkdtemp())
        self.fails_at, self.late, self.remembers, self.resets = fails_at, late, remembers, 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        observation, info = super().reset(seed=seed)
        return observation + self.resets * self.remembers, info

    def step(self, action):
        assert self.folder.is_dir(), "its folder was taken away"
        if self.steps == self.fails_at:
            raise BoomError("no fuel")
        return super().step(action)

    def close(self):
        time.sleep(self.late)
        self.folder.rmdir()


class Dropped(Counter):
    """Gives its folder back when it is dropped."""

    def __init__(self):
        super().__init__(9, noisy=True)
        self.folder = Path(tempfile.mkdtemp())

    def step(self, action):
        assert self.folder.is_dir(), "its folder was taken away"
        return super().step(action)

    def __del__(self):
        self.folder.rmdir()


class Lease:
    """Gives a folder back when it is dropped."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())

    def __del__(self):
        self.folder.rmdir()


class Leasing(Counter):
    """Holds an object that gives something back."""

    def __init__(self):
        super().__init__(9, noisy=True)
        self.leases = [Lease()]

    def step(self, action):
        assert self.leases[0].folder.is_dir(), "its folder was taken away"
        return super().step(action)


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    gc.collect()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("entry", [Rented, Dropped, Leasing])
def test_the_copies_of_a_trial_take_nothing_away(entry, folders):
    with EnvGroup(EnvSpec("R-v0", entry), size=2, first_index=0, run_seed=1) as group:
        group.reset()
        state = group.state()
        assert state.recovery == "replay"
        assert len(list(folders.iterdir())) == 2
        wanted = [group.step([0, 1]).observations.tolist() for _ in range(12)]
        with EnvGroup(EnvSpec("R-v0", entry), size=2, first_index=0, run_seed=1) as other:
            other.restore(state)
            assert [other.step([0, 1]).observations.tolist() for _ in range(12)] == wanted


def test_no_pickle_is_tried_of_what_gives_something_back():
    with pytest.warns(envs.RecoveryWarning, match=r"Rented.close gives something back at its end"):
        assert choose_recovery(EnvSpec("R-v0", Rented, {"remembers": True}), 0, 0).recovery == "restart"


def test_what_gives_something_back():
    env = envs.make("CartPole-v1")
    assert gives_back(env) is None
    assert gives_back(Leasing()) == "Lease.__del__"
    assert gives_back(Dropped()) == "Dropped.__del__"
    rented = Rented()
    assert gives_back(rented) == "Rented.close"
    rented.close()


def test_check_closes_what_it_made():
    envs.check(Rented)
    with pytest.raises(BoomError):
        envs.check(Rented, fails_at=3)


def test_a_group_that_cannot_be_made_closes_its_first_copies():
    made = []

    def factory():
        made.append(0)
        if len(made) == 3:
            raise BoomError("no third")
        return Rented()

    with pytest.raises(BoomError):
        EnvGroup(EnvSpec("R-v0", factory), size=3, first_index=0, run_seed=0)


def test_a_group_that_is_dropped_is_closed():
    group = EnvGroup(EnvSpec("R-v0", Rented), size=2, first_index=0, run_seed=0)
    group.reset()
    del group


class Stubborn(Counter):
    """Its close fails, or takes for ever."""

    closed = 0

    def __init__(self, hangs=False):
        super().__init__()
        self.hangs = hangs

    def close(self):
        Stubborn.closed += 1
        if self.hangs:
            time.sleep(600)
        raise BoomError("stuck")


def fail(group):
    group.reset()
    group.step(np.zeros(7))


def test_a_close_that_fails_hides_nothing(caplog):
    group = EnvGroup(EnvSpec("S-v0", Stubborn), size=3, first_index=0, run_seed=0)
    Stubborn.closed = 0
    with pytest.raises(InputError, match="actions of shape"), group:
        fail(group)
    assert Stubborn.closed == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "close() of environment 'S-v0' raised BoomError('stuck') (3 of 3 copies)" in record.getMessage()


def test_a_close_that_hangs_is_interrupted(caplog):
    close_all([Stubborn(hangs=True), Stubborn(hangs=True)], "S-v0", seconds=0.2)
    assert "close() of environment 'S-v0' had not returned after 0.2 s (2 of 2 copies)" in caplog.text
