"""Rollouts of a model with memory against one episode at a time, step by step."""

import functools

import numpy as np
import pytest
import torch
from by_hand import rollout_worker
from learning_envs import Walk

from shoal import runtime
from shoal.algorithms import PPO, PPOConfig
from shoal.envs import resolve
from shoal.rl import Clock, Learner, RunSettings, build_model, learning_batch
from shoal.rl.collect.worker import GroupProgress

STEPS, SIZE = 23, 3
MEMORIES = {"lstm": {"units": 6}, "transformer": {"units": 4, "heads": 2, "window": 3}}


@pytest.fixture(params=MEMORIES)
def collected(request):
    runtime.init(engine="serial")
    spec = resolve(functools.partial(Walk, limit=9, noise=0.8))
    settings = RunSettings(n_envs=SIZE, group_size=SIZE, seed=5)
    kwargs = {"memory": request.param, "memory_kwargs": MEMORIES[request.param], "sequence_length": 5, "net_arch": [4]}
    made, model_spec = rollout_worker(PPO, PPOConfig(n_steps=STEPS), spec, settings, **kwargs)
    model = build_model(model_spec, seed=5)
    first, state, _ = made.collect(0, GroupProgress(), model.get_weights(), 0, Clock(0, 1000))
    second, _, _ = made.collect(0, GroupProgress(1, runtime.put(state)), model.get_weights(), 0, Clock(69, 1000))
    yield model, [first, second]
    runtime.shutdown()


def test_each_step_is_seen_with_what_its_episode_showed_before(collected):
    model, rollouts = collected
    for row in range(SIZE):
        memory = model.initial_memory(1)
        for rollout in rollouts:  # the second one goes on with the first one's memory
            steps, finals = rollout.steps, rollout.finals
            ends = steps["terminations"] | steps["truncations"]
            last = dict(zip(finals["rows"].tolist(), finals["observations"], strict=True))
            for t in range(STEPS):
                with torch.inference_mode():
                    rows, memory = model.recall(model.encode(steps["observations"][t, row : row + 1]), memory)
                    value = model.values(rows).item()
                    outputs = model.outputs(rows)
                    log_prob = model.distribution(outputs).log_prob(torch.tensor(steps["actions"][t, row : row + 1]))
                assert steps["values"][t, row] == pytest.approx(value, abs=1e-6)
                assert steps["log_probs"][t, row] == pytest.approx(log_prob.item(), abs=1e-6)
                if t * SIZE + row in last:
                    # At a truncation, and at the end of a rollout, the value is that after all that the episode showed.
                    with torch.inference_mode():
                        after, _ = model.recall(model.encode(last[t * SIZE + row][np.newaxis]), memory)
                        wanted = 0.0 if steps["terminations"][t, row] else model.values(after).item()
                    assert steps["next_values"][t, row] == pytest.approx(wanted, abs=1e-6)
                if ends[t, row]:
                    memory = model.initial_memory(1)


def test_the_learner_sees_what_acted(collected):
    model, rollouts = collected
    learner = Learner(model.spec, seed=0, device="cpu")
    learner.model.set_parameters(model.get_parameters())
    batch = learning_batch(learner, rollouts[1], gamma=0.9, gae_lambda=0.8)
    assert len(batch["actions"]) == STEPS * SIZE
    seen = []
    for minibatch in learner.minibatches(batch, 20, epoch=0):
        values, log_probs, _ = learner.model.evaluate(minibatch["rows"], minibatch["actions"])
        torch.testing.assert_close(log_probs, minibatch["log_probs"], rtol=0, atol=1e-6)
        torch.testing.assert_close(values, minibatch["values"], rtol=0, atol=1e-6)
        seen.append(minibatch["returns"])
    assert sum(map(len, seen)) == STEPS * SIZE  # padding is no row
    assert sorted(torch.cat(seen).tolist()) == sorted(batch["returns"].tolist())
