"""Which device each learner computes on, where the runtime counts GPUs that nobody has."""

import os

import pytest
import torch

from shoal import runtime
from shoal.rl import lazy
from shoal.rl.learn.device import resolve_device
from shoal.rl.learner_handle import gpus_of_each
from shoal.rl.learner_settings import LearnerSettings
from shoal.runtime import InputError


def settings(device, learners=1):
    made = LearnerSettings(device=device, learners=learners, gradient_shards=4)
    made.read_learners()
    return made


def test_each_learner_takes_a_gpu_of_its_own_or_says_why_not(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with runtime.init(engine="serial", num_gpus=2):
        assert [gpus_of_each(settings(device, 2), 2) for device in ("auto", "cuda", "cpu")] == [1, 1, 0]
        assert gpus_of_each(settings("auto", "1:4"), 1) == 1
        assert gpus_of_each(settings("cuda:1"), 1) == 0  # the runtime would show it another one alone, as cuda:0
        with pytest.raises(InputError, match="learners is 3, but there are 2 GPUs"):
            gpus_of_each(settings("auto", 3), 3)
        with pytest.raises(InputError, match="device is 'cuda:1', but learners is 2, and each takes a GPU of its own"):
            gpus_of_each(settings("cuda:1", 2), 2)
    with runtime.init(engine="serial", num_gpus=0):
        assert [gpus_of_each(settings(device), 1) for device in ("auto", "cuda")] == [0, 0]
        assert gpus_of_each(settings("auto", 2), 2) == 0
        with pytest.raises(InputError, match="learners is 2, but there are 0 GPUs"):
            gpus_of_each(settings("cuda", 2), 2)


class Device:
    def get(self, device):
        try:
            return resolve_device(device), os.environ.get("CUDA_VISIBLE_DEVICES")
        except InputError as error:
            return str(error), None


def test_auto_is_the_gpu_that_the_runtime_gave_and_kernels_are_those_that_repeat(monkeypatch):
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    used = lazy.torch  # which keeps what was used of torch before
    monkeypatch.setattr(used, "use_deterministic_algorithms", lambda mode, warn_only: asked.append(warn_only))
    monkeypatch.setattr(used, "zeros", lambda *shape, device: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with runtime.init(engine="serial", num_gpus=2):
        made = runtime.remote(Device)
        assert runtime.get(made.options(num_gpus=1).remote().get.remote("auto")) == ("cuda", "0")
        assert asked == [True]
        none = made.remote()
        assert runtime.get(none.get.remote("auto"))[0] == "cpu"
        assert runtime.get(none.get.remote("cpu"))[0] == "cpu"
        assert len(asked) == 1
