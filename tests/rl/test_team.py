"""Learners of a group put gradients together, whoever of them is missing, in threads of this process."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from shoal.rl import FlatAdam
from shoal.rl.learn import team
from shoal.rl.learn.lost import StateLostError
from shoal.rl.learn.mailbox import Mailbox
from shoal.rl.learn.shards import ShardedLoss, alone
from shoal.rl.learn.team import Membership, Team, gaps
from shoal.runtime import exceptions

SIZE, ROWS, SHARDS = 12, 21, 5
POINTS = torch.tensor(np.random.default_rng(0).normal(size=(ROWS, SIZE)).astype(np.float32))


def loss_in_shards(shards, computed=None):
    theta = torch.ones(SIZE, requires_grad=True)
    theta.grad = torch.zeros(SIZE)

    def loss_of(rows):
        if computed is not None:
            computed.append(len(rows["x"]))
        values = (theta * rows["x"]).sum(-1).tanh()
        return values.square().mean(), {"mean": values.detach().mean(), "values": values.detach()}

    return ShardedLoss(FlatAdam(theta.detach(), theta.grad), {"x": POINTS}, loss_of, shards)


@pytest.fixture
def pool(monkeypatch):
    """Threads that answer calls; references are futures, and nothing is large enough for the store."""

    def get(future, timeout=None):
        try:
            return future.result(timeout)
        except TimeoutError as error:
            raise exceptions.GetTimeoutError(str(error)) from None

    with ThreadPoolExecutor(64) as threads:
        monkeypatch.setattr(team, "get", get)
        yield threads


class Member:
    """A learner of a group, as a handle to the others. `dies` is the round before which its process ends."""

    def __init__(self, pool, dies=None):
        self.mailbox, self.dies = Mailbox(), dies
        self.take = SimpleNamespace(remote=lambda key: pool.submit(self._take, key))

    def _take(self, key):
        if self.dies is not None and key[2] >= self.dies:
            raise exceptions.ActorDiedError("its process is gone")
        return self.mailbox.take(key)


def exchange(pool, members, shards, attempt=0):
    """What each of those who live ends up with, and how many shards each has computed."""

    def run(index):
        computed = []
        loss = loss_in_shards(shards, computed)
        one = Team(Membership(attempt, tuple(members), index), members[index].mailbox)
        try:
            pieces = one.gradient(loss)
        finally:
            members[index].mailbox.end(attempt)
        told = loss.finish(pieces)
        return loss._optimizer.gradients.clone(), told, len(computed), one.present

    living = [index for index, member in enumerate(members) if member.dies != 0]
    return [job.result() for job in [pool.submit(run, index) for index in living]]


def check(found, shards):
    expected = loss_in_shards(shards)
    told = expected.finish(alone(expected))
    for gradient, other, _, _ in found:
        assert torch.equal(gradient, expected._optimizer.gradients)
        assert {name: value.tolist() for name, value in other.items()} == {
            name: value.tolist() for name, value in told.items()
        }


@pytest.mark.parametrize("split", [False, True])
def test_any_number_of_learners_has_the_same_bits_and_divides_the_work(pool, monkeypatch, split):
    monkeypatch.setattr(team, "_SPLIT", 1 if split else 1 << 16)
    for shards in (SHARDS, 8, 30):  # of thirty, nine have no rows
        for world in range(1, 9):
            found = exchange(pool, [Member(pool) for _ in range(world)], shards)
            check(found, shards)
            assert sum(count for _, _, count, _ in found) == min(shards, ROWS)


@pytest.mark.parametrize("dies", [0, 1])
def test_whoever_is_missing_is_not_missed(pool, monkeypatch, dies):
    monkeypatch.setattr(team, "_SPLIT", 1)
    for gone in range(3):
        members = [Member(pool, dies if index == gone else None) for index in range(3)]
        found = exchange(pool, members, SHARDS)
        check(found, SHARDS)
        assert all(gone not in present for *_, present in found[:gone] + found[gone + (dies == 1) :])


def test_who_stands_still_or_has_ended_is_left_out(pool, monkeypatch, caplog):
    monkeypatch.setattr(team, "PATIENCE", 0.05)
    ended, still = Member(pool), Member(pool)
    ended.mailbox.end(7)
    members = (Member(pool), ended, still)
    loss, one = loss_in_shards(SHARDS), Team(Membership(7, members, 0), members[0].mailbox)
    told = loss.finish(one.gradient(loss))
    check([(loss._optimizer.gradients, told, 0, one.present)], SHARDS)
    assert one.present == [0]
    assert "learner 2 of a group is missing: the others do its part" in caplog.text
    still.mailbox.end(7)


def test_parts_of_parameters_are_exchanged_and_who_holds_moments_is_missed(pool, monkeypatch):
    members = [Member(pool) for _ in range(3)]
    size, found = 70_000, []
    parameters = np.arange(size, dtype=np.float32)

    def run(index):
        one = Team(Membership(0, tuple(members), index), members[index].mailbox)
        start, stop = one.part(size)
        return (start, stop), one.others(start, parameters[start:stop])

    monkeypatch.setattr(team, "_BOXED", 1 << 40)
    found = [job.result() for job in [pool.submit(run, index) for index in range(3)]]
    assert [part for part, _ in found] == [(0, 23296), (23296, 46656), (46656, 70000)]
    for (start, stop), pieces in found:
        whole = np.full(size, -1.0, np.float32)
        whole[start:stop] = parameters[start:stop]
        for begin, values in pieces:
            whole[begin : begin + len(values)] = values
        np.testing.assert_array_equal(whole, parameters)
    assert Team(Membership(0, tuple(members), 2), members[2].mailbox).part(100) == (0, 100)  # too few to divide
    members[1] = Member(pool, dies=0)
    with pytest.raises(StateLostError, match="a learner is missing"):
        Team(Membership(1, tuple(members[:2]), 0), members[0].mailbox).others(0, parameters)


def test_gaps_of_pieces():
    def piece(start, count):
        return start, np.zeros(count)

    assert gaps([piece(0, 4)], 4) == []
    assert gaps([piece(6, 2), piece(0, 3), piece(2, 2)], 10) == [(4, 6), (8, 10)]


def test_a_mailbox_keeps_the_last_two_exchanges():
    box = Mailbox()
    for exchange_ in range(3):
        for part in range(2):
            box.post((1, exchange_, part), (exchange_, part))
    assert box.take((1, 0, 1)) is None
    assert box.take((1, 1, 0)) == (1, 0)
    assert box.take((1, 2, 1)) == (2, 1)
    box.end(1)
    assert box.take((1, 3, 0)) is None
    assert box.take((1, 2, 1)) == (2, 1)
