"""A served language model: OpenAI's interface, streams, versions of weights, and replicas that are lost."""

import json
import threading
import time

import httpx
import pytest
from asking_texts import COMPLETIONS, ask, completion, endless, made
from conftest import wait_until

from shoal import runtime
from shoal.envs import derive_seed
from shoal.rl import ServerClosedError, serve
from shoal.rl.language.asked import Asked, Said, conversation
from shoal.rl.serving.http_guard import Access
from shoal.rl.serving.source import read_policies
from shoal.rl.serving.texts import app as text_app
from shoal.rl.serving.texts.pool import Answer, AnswerChangedError, Weights
from shoal.rl.serving.texts.replica import TextReplica
from shoal.rl.serving.texts.turns import Turns
from shoal.runtime import InputError


@pytest.fixture(scope="module")
def policy():
    return made()


@pytest.fixture
def served(policy):
    runtime.init(engine="serial")
    with serve(policy, max_batch_size=3) as made:
        yield made


def events(reply):
    """The objects of a stream; the comments and the end are checked."""
    *told, end, nothing = reply.text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in told if not each.startswith(":")]


def test_a_completion_is_what_the_policy_says(served, policy):
    reply = completion(served, n=2).json()
    [text, other] = [choice["text"] for choice in reply["choices"]]
    assert [text, other] == policy.generate(["abc"], samples=2, max_new_tokens=20, seed=3)
    assert text != other
    assert served.generate(["abc"], samples=2, max_new_tokens=20, seed=3) == [text, other]
    assert reply["object"] == "text_completion"
    assert reply["model"] == "policy"
    assert reply["choices"][0]["finish_reason"] in ("stop", "length")
    usage = reply["usage"]
    assert usage["prompt_tokens"] == len("abc") + 2  # BEGIN and ANSWER
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert reply["system_fingerprint"].startswith("v0-")
    assert completion(served, prompt=["abc", "d"]).json()["choices"][0]["text"] == text
    assert completion(served, echo=True).json()["choices"][0]["text"] == "abc" + text


@pytest.mark.parametrize("options", [{}, {"logprobs": 3}, {"stop": ["a", "\n"]}, {"n": 3}, {"temperature": 0}])
def test_the_pieces_of_a_stream_are_the_whole_answer(served, options):
    whole = completion(served, **options).json()
    told = events(completion(served, stream=True, stream_options={"include_usage": True}, **options))
    *pieces, last = told
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    for choice in whole["choices"]:
        own = [piece["choices"][0] for piece in pieces if piece["choices"][0]["index"] == choice["index"]]
        assert "".join(piece["text"] for piece in own).encode() == choice["text"].encode()
        assert [piece["finish_reason"] for piece in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        if "logprobs" in options:
            for column in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                assert [one for piece in own for one in piece["logprobs"][column] or ()] == choice["logprobs"][column]
    assert all(piece["usage"] is None for piece in pieces)


def test_a_chat_is_the_conversation_of_training(served, policy):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "abc"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": [{"type": "text", "text": "ef"}]},
    ]
    body = {"messages": messages, "seed": 5, "max_completion_tokens": 12, "logprobs": True, "top_logprobs": 2}
    reply = ask(served, "/v1/chat/completions", body).json()
    encode = policy.model.tokens.encode
    asked = Asked(
        prompt=conversation([encode("be brief\nabc"), encode("d"), encode("ef")]), max_new_tokens=12, seed=5, index=0
    )
    told = [said for _, said in policy._said([asked])]
    choice = reply["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": "".join(s.text for s in told), "refusal": None}
    entries = choice["logprobs"]["content"]
    alike = pytest.approx([s.log_prob for s in told if s.token != 3], abs=1e-5)  # the served one has other shapes
    assert [entry["logprob"] for entry in entries] == alike
    assert all(len(entry["top_logprobs"]) == 2 and len(entry["bytes"]) == 1 for entry in entries)
    first, *pieces = events(ask(served, "/v1/chat/completions", body | {"stream": True}))
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(p["choices"][0]["delta"].get("content", "") for p in pieces) == choice["message"]["content"]


def test_a_stop_text_ends_an_answer_and_is_left_out(served):
    text = completion(served).json()["choices"][0]["text"]
    stop = text[4:6]
    reply = completion(served, stop=stop).json()["choices"][0]
    assert reply["text"] == text[: text.index(stop)]
    assert reply["finish_reason"] == "stop"


def test_parameters_that_change_nothing_are_taken(served):
    assert completion(served, user="me", best_of=1, presence_penalty=0.0, logit_bias={}, stop=None).status_code == 200


def test_models_health_and_the_token(served):
    listed = ask(served, "/v1/models", "", method="GET").json()
    assert [entry["id"] for entry in listed["data"]] == ["policy"]
    assert ask(served, "/v1/models/policy", "", method="GET").status_code == 200
    assert ask(served, "/v1/models/other", "", method="GET").json()["error"]["code"] == "model_not_found"
    assert ask(served, "/health", "", method="GET").json()["status"] == "ok"
    access = Access(token="secret")
    refused = ask(served, COMPLETIONS, {"prompt": "a"}, access=access)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    taken = ask(served, COMPLETIONS, {"prompt": "a"}, access=access, headers={"Authorization": "Bearer secret"})
    assert taken.status_code == 200
    foreign = ask(served, COMPLETIONS, "{}", access=Access(hosts=frozenset({"other"})))
    assert foreign.json()["error"]["message"].startswith("Host is")


def test_a_request_without_a_seed_gets_its_own(served, policy):
    first, second = (served.generate(["abc"], max_new_tokens=20) for _ in range(2))
    assert first != second
    assert first == policy.generate(["abc"], max_new_tokens=20, seed=derive_seed(0, "requests", 0))


def test_many_at_once_get_what_each_gets_alone(served, policy):
    wanted = {seed: policy.generate(["ab" * (seed + 1)], max_new_tokens=15, seed=seed) for seed in range(8)}
    found = {}

    def one(seed):
        found[seed] = served.generate(["ab" * (seed + 1)], max_new_tokens=15, seed=seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted
    state = served.health()
    assert state["requests"] == 8
    assert state["steps"] < 8 * 15  # several in each step
    assert (state["running"], state["waiting"]) == (0, 0)


def test_what_is_dropped_is_not_computed_after_the_step_on_its_way():
    policy = made(context=4000)
    runtime.init(engine="serial")
    with serve(policy, max_batch_size=2) as served:
        told = []
        answers = served.submit(endless(policy), lambda index, said: told.append(said))
        wait_until(lambda: len(told) > 3)
        served.drop(answers)
        steps, heard = served.health()["steps"], len(told)
        wait_until(lambda: served.health()["running"] == 0)
        time.sleep(0.05)
        assert served.health()["steps"] <= steps + 2  # the step on its way, and the one that tells of the end
        assert served.health()["tokens"] <= steps + 1
        assert len(told) <= heard + 1
        coming = served.stream(["a"], temperature=0)
        next(coming)
        coming.close()  # as who stops iterating
        wait_until(lambda: served.health()["running"] == 0)


def test_a_client_that_leaves_ends_its_answer_streamed_or_not():
    policy = made(context=20_000)
    runtime.init(engine="serial")
    with serve(policy, http="127.0.0.1:0", max_batch_size=2) as served:
        url = f"{served.http_address}/v1/completions"
        body = {"prompt": "a", "max_tokens": 20_000, "temperature": 0}
        with httpx.Client() as client, client.stream("POST", url, json=body | {"stream": True}) as reply:
            lines = reply.iter_lines()  # which ends the connection when nobody has it any more
            next(lines)
            assert served.health()["running"] == 1
        wait_until(lambda: served.health()["running"] == 0)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=0.3)
        wait_until(lambda: served.health()["running"] == 0)
        assert served.health()["tokens"] < 10_000


def test_a_stream_that_waits_keeps_its_connection_and_ends_in_time(monkeypatch):
    monkeypatch.setattr(text_app, "KEEP_ALIVE_SECONDS", 0.05)
    policy = made(context=20_000)
    runtime.init(engine="serial")
    with serve(policy, max_batch_size=1, request_timeout=0.4) as served:
        answers = served.submit(endless(policy), lambda index, said: None)
        reply = completion(served, stream=True, temperature=0)
        *told, last, _ = reply.text.split("\n\n")
        assert told.count(": waiting") >= 2
        assert "request_timeout" in json.loads(last.removeprefix("data: "))["error"]["message"]
        assert "[DONE]" not in reply.text
        late = completion(served)
        assert (late.status_code, late.json()["error"]["type"]) == (504, "server_error")
        with pytest.raises(TimeoutError, match="request_timeout"):
            served.generate(["a"])
        served.drop(answers)


def test_an_answer_stays_with_the_weights_it_began_with(tmp_path):
    old, new = made(context=250), made(seed=1, context=250)
    new.version = 7
    runtime.init(engine="serial")
    with serve(old, max_batch_size=2) as served:
        [before] = served.generate(["abc"], seed=2)
        coming = served.stream(["abc"], seed=2)
        text = next(coming)[1].text
        served.update(new)
        wait_until(lambda: not served.health()["updating"])
        after = completion(served, max_tokens=250, seed=2).json()
        assert after["choices"][0]["text"] == new.generate(["abc"], seed=2)[0]
        assert after["system_fingerprint"].startswith("v7-")
        assert text + "".join(said.text for _, said in coming) == before
        assert served.health()["version"] == 7
        with pytest.raises(InputError, match="another one"):
            served.update(made(width=32))


def test_an_answer_that_waited_names_the_weights_that_say_it(tmp_path):
    old, new = made(context=1000), made(seed=1, context=1000)
    new.version = 7
    runtime.init(engine="serial")
    with serve(old, max_batch_size=1) as served:
        before_it, replies = served.submit(endless(old), lambda *_: None), []
        asking = threading.Thread(target=lambda: replies.append(completion(served, stream=True, echo=True)))
        asking.start()
        wait_until(lambda: served.health()["waiting"] == 1)
        served.update(new)
        wait_until(lambda: not served.health()["updating"])
        served.drop(before_it)
        asking.join()
        pieces = events(replies[0])
        assert {piece["system_fingerprint"][:3] for piece in pieces} == {"v7-"}
        texts = [piece["choices"][0]["text"] for piece in pieces]
        assert (texts[0], "".join(texts[1:])) == ("abc", new.generate(["abc"], max_new_tokens=20, seed=3)[0])


def test_an_answer_goes_on_where_its_replica_was_lost():
    told = []
    first, second, other = (Said(token, -1.0, text) for token, text in ((5, "a"), (6, "b"), (7, "c")))
    answer = Answer(Asked(prompt=(1, 2), max_new_tokens=4), told.append)
    weights = Weights(1, "x")
    assert answer.begin(weights)
    answer.hear(first)
    assert answer.begin(weights)  # on another replica
    answer.hear(first)
    answer.hear(second)
    assert told == [first, second]
    assert answer.begin(weights)
    answer.hear(other)
    assert isinstance(told.pop(), AnswerChangedError)
    assert answer.dropped
    changed = Answer(Asked(prompt=(1, 2), max_new_tokens=4), told.append)
    assert changed.begin(weights)
    assert changed.begin(Weights(2, "y"))  # nothing was told yet: it begins with the new ones
    changed.hear(first)
    assert not changed.begin(weights)
    assert "replaced by now" in str(told[-1])


def test_requests_take_turns_so_that_one_of_many_answers_keeps_nobody_waiting_for_all_of_them():
    waiting = Turns()
    waiting.add(["a1", "a2", "a3", "a4"])
    assert waiting.take() == "a1"
    waiting.add(["b1"])
    waiting.add(["c1", "c2"])
    assert [waiting.take() for _ in range(2)] == ["a2", "b1"]
    waiting.add_first(["a1", "a2"])  # they had begun
    waiting.keep(lambda answer: answer != "a3")
    assert len(waiting) == 5
    assert waiting.take_all() == ["a1", "a2", "c1", "a4", "c2"]
    assert not waiting
    with pytest.raises(IndexError):
        waiting.take()


@pytest.mark.parametrize("engine", ["serial", pytest.param("native", marks=pytest.mark.slow)])
def test_a_killed_replica_takes_no_answer_along(engine):
    policy = made(context=300)
    wanted = policy.generate(["abc"], samples=3, seed=4)
    runtime.init(engine=engine)
    with serve(policy, replicas=2, max_batch_size=4) as served:
        texts, killed = ["", "", ""], False
        for index, said in served.stream(["abc"], samples=3, seed=4):
            texts[index] += said.text
            if not killed and sum(map(len, texts)) > 5:
                killed = True
                for actor in served._pool._replicas.actors:
                    runtime.kill(actor, no_restart=False)
        assert texts == wanted
        assert served.health()["restarts"] > 0


def test_what_fails_while_tokens_are_read_fails_the_next_step(policy, monkeypatch):
    sources, _ = read_policies(policy)
    replica = TextReplica(sources[""].files, places=2, threads=1)
    life = replica.describe()["life"]
    [(key, said)] = replica.advance(life, [(7, endless(policy)[0])], [])
    assert (key, said.finish) == (7, None)
    monkeypatch.setattr(replica._decodings[-1], "read", lambda: 1 / 0)
    replica.advance(life, [], [])
    with pytest.raises(ZeroDivisionError):
        replica.advance(life, [], [])
    assert replica.advance("another life", [], []) is None


def test_what_waits_when_the_model_is_closed_is_told(policy):
    runtime.init(engine="serial")
    served = serve(made(context=4000), max_batch_size=1)
    told = []
    served.submit(endless(policy, 3), lambda index, said: told.append(said) if isinstance(said, Exception) else None)
    served.close()
    assert repr(served) == "ServedTexts(name='policy', status='down', replicas=0, version=0)"
    assert len(told) == 3
    assert all(isinstance(error, ServerClosedError) for error in told)
    with pytest.raises(ServerClosedError):
        served.generate(["a"])
    served.close()


def test_simulators_cannot_connect_to_texts(policy):
    runtime.init(engine="serial")
    with pytest.raises(InputError, match="language model over http"):
        serve(policy, grpc="127.0.0.1:0")


@pytest.mark.slow
def test_openais_own_client(policy):
    openai = pytest.importorskip("openai")
    runtime.init(engine="serial")
    with serve(policy, http="127.0.0.1:0", token="secret", max_batch_size=2) as served:
        [wanted] = policy.generate(["abc"], max_new_tokens=20, seed=3)
        with openai.OpenAI(base_url=f"{served.http_address}/v1", api_key="secret", max_retries=0) as client:
            [model] = client.models.list().data
            given = {"model": model.id, "prompt": "abc", "max_tokens": 20, "seed": 3}
            assert client.completions.create(**given).choices[0].text == wanted
            assert "".join(part.choices[0].text for part in client.completions.create(**given, stream=True)) == wanted
            messages = [{"role": "user", "content": "abc"}]
            chat = client.chat.completions.create(
                model=model.id, messages=messages, max_completion_tokens=20, seed=3, logprobs=True, top_logprobs=1
            )
            assert chat.choices[0].message.content == wanted
            assert len(chat.choices[0].logprobs.content) >= len(wanted)
            options = {"stream": True, "stream_options": {"include_usage": True}}
            parts = list(
                client.chat.completions.create(
                    model=model.id, messages=messages, max_completion_tokens=20, seed=3, **options
                )
            )
            assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == wanted
            assert parts[-1].usage == chat.usage
            with pytest.raises(openai.BadRequestError, match="tools is not supported"):
                client.chat.completions.create(
                    model=model.id, messages=messages, tools=[{"type": "function", "function": {"name": "f"}}]
                )
            with pytest.raises(openai.NotFoundError, match="no model 'gpt'"):
                client.completions.create(model="gpt", prompt="a")
        with (
            openai.OpenAI(base_url=f"{served.http_address}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()
