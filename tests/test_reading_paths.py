"""The README's three ways to read the code, compared with what a profiler sees run."""

import collections
import contextlib
import gc
import re
import sys
from pathlib import Path

from shoal import runtime
from shoal.algorithms import PPO

ROOT = Path(__file__).parent.parent
# What runs, too, but need not be read to follow: small services, and what happens once or on other occasions.
PASSED_BY_AN_ITERATION = {
    "envs/action_log.py",
    "envs/contract.py",
    "envs/generators.py",
    "envs/group_checks.py",
    "envs/group_progress.py",
    "envs/observation_guard.py",
    "envs/seeding.py",
    "envs/spaces/__init__.py",
    "envs/spaces/base.py",
    "envs/spaces/simple.py",
    "envs/watch.py",
    "envs/ways_back.py",
    "rl/ahead.py",
    "rl/algorithm.py",
    "rl/callbacks/base.py",
    "rl/callbacks/stopping.py",
    "rl/chaos.py",
    "rl/clock.py",
    "rl/collect/records.py",
    "rl/collect/rollout_stats.py",
    "rl/data/batch.py",
    "rl/data/tree.py",
    "rl/declaration.py",
    "rl/divergence.py",
    "rl/elsewhere.py",
    "rl/evaluation/evaluator.py",
    "rl/league.py",
    "rl/hashes.py",
    "rl/learn/learner.py",
    "rl/learn/log.py",
    "rl/learn/minibatch.py",
    "rl/learner_handle.py",
    "rl/models/distributions.py",
    "rl/models/flat_module.py",
    "rl/models/layout.py",
    "rl/models/model.py",
    "rl/models/spec.py",
    "rl/schedules.py",
    "rl/settings.py",
    "rl/statistics.py",
    "rl/threads.py",
    "rl/trainable.py",
    "rl/training.py",
    "rl/training_state.py",
}
PASSED_BY_A_CALL = {
    "runtime/api/verbs.py",
    "runtime/core/current.py",
    "runtime/core/ids.py",
    "runtime/core/actors/instances.py",
    "runtime/core/refs.py",
    "runtime/core/values/serialization.py",
    "runtime/core/signatures.py",
    "runtime/native/process/lending.py",
    "runtime/native/process/links.py",
    "runtime/native/process/long_waits.py",
    "runtime/native/protocol/loop.py",
    "runtime/native/protocol/messages.py",
    "runtime/native/store/views.py",
    "runtime/native/worker/printing.py",
    "runtime/native/worker/signals.py",
    "runtime/native/worker/user_code.py",
}
CALLS = 50
DECLARED = "runtime/native/protocol/peer_messages.py"  # nothing in it runs


def listed(beginning):
    """Return the files of one of the README's paths, in its order."""
    [path] = re.findall(
        rf"^\* \*\*{beginning}.*?(?=^\*|^$)", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    return re.findall(r"\]\((\S+?)\)", path)


class Seen(collections.Counter):
    """A profiler that counts what runs of each of our files, in the order in which they run first; and beside it, in
    `since`, what runs from the first call of `turn` on."""

    turn = since = None

    def __call__(self, frame, event, argument):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.suffix == ".py" and "shoal" in path.parts:
            file = "/".join(path.parts[len(path.parts) - path.parts[::-1].index("shoal") :])
            self[file] += 1
            if file == self.turn and self.since is None:
                self.since = Seen()
            if self.since is not None:
                self.since[file] += 1

    @contextlib.contextmanager
    def watching(self):
        gc.collect()
        gc.disable()  # what other tests have left behind has paths of its own
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            gc.enable()


@runtime.remote
class Watched:
    def add(self, x):
        return x + 1

    def watch(self):
        self.seen = Seen()
        sys.setprofile(self.seen)

    def what_ran(self):
        sys.setprofile(None)
        return self.seen


def test_the_paths_of_a_rollout_and_an_update_are_what_runs():
    runtime.init(engine="serial")
    seen = Seen()
    seen.turn = "rl/learn/actor.py"
    with PPO("CartPole-v1", workers=2, n_envs=2, n_steps=32, batch_size=16, n_epochs=1) as ppo:
        ppo.train(64)
        with seen.watching():
            ppo.train(64)
    rollout, update = listed("one rollout"), listed("one update")
    assert [file for file in seen if file in rollout] == rollout
    assert [file for file in seen.since if file in update] == update
    assert rollout[-1] == update[0] == seen.turn
    ran = {file for file in seen if not file.startswith("runtime/")}
    assert ran - {*rollout, *update} == PASSED_BY_AN_ITERATION


def test_the_path_of_a_call_is_what_runs(native):
    actor = Watched.remote()
    runtime.get([actor.add.remote(1), actor.watch.remote()])
    here = Seen()
    with here.watching():
        for x in range(CALLS):
            runtime.get(actor.add.remote(x))
    there = runtime.get(actor.what_ran.remote())
    # What runs now and then has reasons of its own; and now and then the background thread reads the answer.
    ran = [file for seen in (here, there) for file, count in seen.items() if count >= CALLS / 2]
    path = listed("one remote call")
    end = path.index(DECLARED)
    out = [*path[:end], path[end + 1]]
    assert [file for file in here if file in out] == out
    assert set(path) - set(ran) == {DECLARED}
    assert {"Call", "Reply"} <= set(re.findall(r"^class (\w+)", (ROOT / DECLARED).read_text(), re.MULTILINE))
    assert set(ran) - set(path) <= PASSED_BY_A_CALL
