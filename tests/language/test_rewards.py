"""Rewards: weighted, told apart, judged by processes of their own that may hang or die, and by models."""

import contextlib
import http.server
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from gymnasium.spaces import Text
from judges import Once, length, pid, same

from shoal import GRPO, RunFolder, Supervised, envs, runtime
from shoal.rl import Clock, LanguagePolicy, ModelReward, ModelSpec, ServedReward, serve

SMALL = {
    "n_envs": 16,
    "group_size": 8,
    "samples": 4,
    "batch_size": 8,
    "max_new_tokens": 3,
    "preset": "none",
    "policy_kwargs": {"tokenizer": "bytes", "context": 24, "width": 16, "heads": 2, "layers": 1},
}


def test_a_weighted_sum_tells_its_parts():
    env = envs.Prompts(["ab"], [(0.5, length), (2.0, same), (1.0, length)])
    env.reset(seed=0)
    _, reward, *_, info = env.step("ab")
    assert reward == 0.5 * 2 + 2 + 2
    assert info["rewards"] == {"length": 2, "same": 1, "length_3": 2}
    for wrong in ([length], [("1", length)], [(1.0, 3)]):
        with pytest.raises(runtime.InputError, match="pairs of a weight and a function"):
            envs.Prompts(["ab"], wrong)


def test_a_training_shows_the_mean_of_each_reward():
    runtime.init(engine="serial")
    envs.register("parts", envs.Prompts, prompts=["ab", "cd"], reward=[(0.5, length), (1.0, same)])
    with GRPO("parts", **SMALL) as grpo:
        outcome = grpo.training_step(grpo.actors, grpo._start(), Clock(0, 100))
    seen, told = outcome.metrics, outcome.examples[0]
    assert told["reward"] == pytest.approx(0.5 * told["rewards"]["length"] + told["rewards"]["same"])
    assert seen["rollout/reward_mean"] == pytest.approx(
        0.5 * seen["rollout/reward_of/length"] + seen["rollout/reward_of/same"], abs=1e-6
    )
    assert seen["rollout/reward_of/length"] > 0


def judged(reward, *answers):
    """What `reward` says of answers, all of which it knows before."""
    for answer in answers:
        reward.anticipate("p", answer)
    return [reward("p", answer) for answer in answers]


def test_a_reward_has_a_process_of_its_own(native):
    reward = envs.RewardActor(pid)
    first = reward("p", "x")
    assert first != os.getpid()
    assert judged(reward, "a", "b") == [first, first]
    os.kill(int(first), signal.SIGKILL)
    assert reward("p", "y") not in (first, os.getpid())
    reward.close()


def test_an_answer_is_judged_again_whose_process_dies_or_hangs(native, tmp_path):
    marker = tmp_path / "once"
    for what in ("die", "hang"):
        for batched in (False, True):
            marker.touch()
            reward = envs.RewardActor(Once(marker, "bb", what, batched), seconds=0.5)
            assert judged(reward, "a", "bb", "ccc") == [1, 2, 3]
            assert not marker.exists()  # it did
            reward.close()


def test_an_answer_that_cannot_be_judged_is_named_and_only_it(native, tmp_path):
    (tmp_path / "once").touch()
    for batched in (False, True):
        function = Once(tmp_path / "once", "bb", "always raise", batched)
        reward = envs.RewardActor(function, retries=1, retry_errors=batched)
        for answer in ("a", "bb", "ccc"):
            reward.anticipate("the prompt", answer)
        assert reward("the prompt", "a") == 1
        told = (
            r"raised ZeroDiv.*"
            + (r"2 times, " if batched else r"over'\), ")
            + "when it judged the answer 'bb' to 'the p"
        )
        with pytest.raises(envs.RewardError, match=told):
            reward("the prompt", "bb")
        assert reward("the prompt", "ccc") == 3
        reward.close()
    reward = envs.RewardActor(lambda prompt, answer: time.sleep(1000), seconds=0.2, retries=1)
    with pytest.raises(envs.RewardError, match=r"had not returned after 0.2 s, 2 times, when it judged the answer 'x'"):
        reward("p", "x")


def test_arguments_that_cannot_work_are_refused():
    for wrong, what in (({"seconds": 0}, "seconds"), ({"retries": -1}, "retries"), ({"retries": 0.5}, "retries")):
        with pytest.raises(runtime.InputError, match=what):
            envs.RewardActor(length, **wrong)
    with pytest.raises(runtime.InputError, match="must be a function"):
        envs.RewardActor("length")


@pytest.mark.slow
def test_weights_are_the_same_when_rewards_hang_and_die(tmp_path):
    """`marker` decides whether the reward's process dies, then hangs, in the middle of a training."""

    class Unlucky:
        def __call__(self, prompt, answer):
            for what in ("die", "hang"):
                marker = tmp_path / what
                if marker.exists() and len(answer) == 1:
                    marker.unlink()
                    os.kill(os.getpid(), signal.SIGKILL) if what == "die" else time.sleep(1000)
            return sum(map(ord, answer)) % 7 / 7

    def sha(engine, reward, **settings):
        envs.register("unlucky", envs.Prompts, prompts=["ab", "cd"], reward=reward)
        runtime.init(engine=engine)
        with GRPO("unlucky", **SMALL, **settings) as grpo:
            found = grpo.train(16 * 4).weights_sha256
        runtime.shutdown()
        return found

    alone = sha("serial", Unlucky())
    for what in ("die", "hang"):
        (tmp_path / what).touch()
    assert sha("native", envs.RewardActor(Unlucky(), seconds=1), workers=2) == alone
    assert not list(tmp_path.iterdir())


def test_a_language_model_of_a_run_judges_by_likelihood(tmp_path):
    runtime.init(engine="serial")
    with GRPO("copy-2", **SMALL | {"policy_kwargs": {"context": 16, "width": 16, "heads": 2, "layers": 1}}) as grpo:
        grpo.save(tmp_path)
    reward = ModelReward(tmp_path)
    found = [reward("ab", answer) for answer in ("ab", "h", "")]
    assert all(-10 < value < 0 for value in found)
    assert np.mean([-value for value in found]) == pytest.approx(
        np.log(257), rel=0.1
    )  # near uniform: all bytes, and END
    with pytest.raises(ValueError, match="has room for 16"):
        reward("ab", "abcdefgh" * 2)
    with pytest.raises(runtime.InputError, match="takes no features"):
        ModelReward(tmp_path, features=lambda prompt, answer: {})
    envs.register("likely", envs.Prompts, prompts=["ab", "cd"], reward=envs.RewardActor(reward))
    env = envs.make("likely")
    env.reset(seed=0)
    assert env.step("ab")[1] == pytest.approx(reward(env.unwrapped._prompt, "ab"))


def test_a_model_of_a_table_judges_by_features(tmp_path):
    lengths = np.arange(40) % 5
    rows = {"letters": lengths, "worth": 2.0 * lengths}
    settings = {"label": "worth", "learning_rate": 0.05, "module_kwargs": {"net_arch": [8]}}
    with (
        runtime.init(engine="serial"),
        Supervised(rows, **settings) as fit,
        RunFolder(tmp_path / "run") as folder,
    ):
        fit.train(150, callbacks=[folder])
    reward = ModelReward(tmp_path / "run", features=lambda prompt, answer: {"letters": len(answer)})
    assert reward("p", "ab") < reward("p", "abcd")
    assert reward("p", "abcd") == pytest.approx(8, abs=2)
    with pytest.raises(runtime.InputError, match="needs features"):
        ModelReward(tmp_path / "run")


@contextlib.contextmanager
def judge_server(asked):
    """A server that takes what OpenAI's API takes, and says how long the text is; `asked` gets what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers["Authorization"], body))
            right = json.dumps({"choices": [{"text": str(len(body["prompt"])), "finish_reason": "stop"}]}).encode()
            said = b'{"error": "no"}' if "refuse" in body["prompt"] else b"{}" if "other" in body["prompt"] else right
            self.send_response(429 if "refuse" in body["prompt"] else 200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_served_model_judges():
    asked = []
    with judge_server(asked) as url:
        reward = ServedReward(url, "{answer} for {prompt}?", lambda said: float(said) / 10, model="judge", token="t")
        assert reward("ab", "xyz") == 1.1
        [(path, token, body)] = asked
        assert (path, token) == ("/v1/completions", "Bearer t")
        assert body == {"model": "judge", "prompt": "xyz for ab?", "max_tokens": 16, "temperature": 0}
        with pytest.raises(ConnectionError, match=r"status 429.*no"):
            reward("refuse", "x")
        with pytest.raises(ConnectionError, match=r"with no completion, but b'\{\}'"):
            reward("other", "x")
        with pytest.raises(ValueError, match="said '4', of which score made no number"):
            ServedReward(url, lambda prompt, answer: prompt + answer, lambda said: "much")("ab", "cd")
    with pytest.raises(ConnectionError, match="does not answer"):
        reward("ab", "xyz")
    with pytest.raises(runtime.InputError, match="url is 'runs/judge'"):
        ServedReward("runs/judge", "{answer}")
    for question in ('{"is": "{answer}"}', "{reply}", "{", "{}"):
        with pytest.raises(runtime.InputError, match=r"only \{prompt\} and \{answer\} may stand in braces"):
            ServedReward(url, question)


def test_a_model_that_shoal_serves_judges():
    runtime.init(engine="serial")
    space = Text(8, charset="abcdefgh")
    network = {"tokenizer": "bytes", "context": 60, "width": 16, "layers": 1, "heads": 2}
    policy = LanguagePolicy(ModelSpec("language_model", space, space, network), seed=0)
    [said] = policy.generate(["ab: cd"], temperature=0, max_new_tokens=16)
    with serve(policy, max_batch_size=2, http="127.0.0.1:0") as served:
        reward = ServedReward(served.http_address, "{prompt}: {answer}", lambda text: sum(map(ord, text)))
        assert reward("ab", "cd") == sum(map(ord, said)) > 0
