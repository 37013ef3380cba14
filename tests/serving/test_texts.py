"""A served language model: OpenAI's interface, streams, versions of weights, and replicas that are lost."""

import asyncio
import json
import socket
import threading
import time

import httpx
import pytest
from conftest import wait_until
from gymnasium.spaces import Text

from shoal import runtime
from shoal.envs import derive_seed
from shoal.rl import LanguagePolicy, ServerBusyError, ServerClosedError, serve
from shoal.rl.language.asked import Asked, Said, conversation
from shoal.rl.models.spec import ModelSpec
from shoal.rl.serving.connections import Limits, Phase
from shoal.rl.serving.http_guard import Access
from shoal.rl.serving.texts import app as text_app
from shoal.rl.serving.texts.app import make_text_app
from shoal.rl.serving.texts.pool import Answer, AnswerChangedError, Weights
from shoal.rl.threads import limit_threads
from shoal.runtime import InputError

SPACE = Text(8, charset="abcdefgh")


def made(seed=0, context=120, **policy_kwargs):
    limit_threads(1)
    network = {"tokenizer": "bytes", "context": context, "width": 16, "layers": 1, "heads": 2} | policy_kwargs
    policy = LanguagePolicy(ModelSpec("language_model", SPACE, SPACE, network), seed=seed)
    policy.model.flat.mul_(4)
    return policy


@pytest.fixture(scope="module")
def policy():
    return made()


@pytest.fixture
def served(policy):
    runtime.init(engine="serial")
    with serve(policy, max_batch_size=3) as made:
        yield made


def ask(served, path, body, *, method="POST", access=None, **options):
    """Send one request to the application, without a server."""
    app = make_text_app(served, access)
    content = body if isinstance(body, str | bytes) else json.dumps(body)

    async def send():
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, content=content, **options)

    return asyncio.run(send())


def completion(served, **body):
    return ask(served, "/v1/completions", {"prompt": "abc", "max_tokens": 20, "seed": 3} | body)


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


CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "message"),
    [
        (COMPLETIONS, {}, 400, "prompt", "prompt is None"),
        (COMPLETIONS, {"prompt": [[1, 2]]}, 400, "prompt", "must be a text or a list of texts"),
        (COMPLETIONS, {"prompt": "a" * 200}, 400, "prompt", "no room for an answer"),
        (COMPLETIONS, {"prompt": "\ud800"}, 400, None, "no JSON object"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens", "max_tokens is 0"),
        (COMPLETIONS, {"prompt": "a", "temperature": 3}, 400, "temperature", "at most 2"),
        (COMPLETIONS, {"prompt": "a", "top_p": "x"}, 400, "top_p", "top_p is 'x'"),
        (COMPLETIONS, {"prompt": "a", "n": 5000}, 400, "n", "1024 answers at most"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, 400, "stop", "none of them empty"),
        (COMPLETIONS, {"prompt": "a", "stop": list("abcde")}, 400, "stop", "1 to 4 texts"),
        (COMPLETIONS, {"prompt": "a", "stream": 1}, 400, "stream", "true or false"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {}}, 400, "stream_options", "needs stream"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 50}, 400, "logprobs", "at most 20"),
        (COMPLETIONS, {"prompt": "a", "logprobs": 1, "echo": True}, 400, "echo", "together with logprobs"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, 400, "suffix", "not supported"),
        (COMPLETIONS, {"prompt": "a", "max_tokns": 5}, 400, "max_tokns", "Did you mean 'max_tokens'"),
        (COMPLETIONS, {"prompt": "a", "model": "gpt"}, 404, "model", "no model 'gpt', but 'policy'"),
        (COMPLETIONS, "[1]", 400, None, "no JSON object"),
        (COMPLETIONS, "[" * 5000, 400, None, "no JSON object"),
        (COMPLETIONS, '{"prompt": ' + "[" * 100_000, 413, None, "body is longer"),
        (COMPLETIONS, b'{"prompt": "\xff"}', 400, None, "no JSON object"),
        (CHAT, {}, 400, "messages", "list of objects"),
        (CHAT, {"messages": [{"role": "assistant", "content": "a"}]}, 400, "messages", "must have 'user'"),
        (
            CHAT,
            {"messages": [USER, {"role": "assistant", "content": "a"}]},
            400,
            "messages",
            "end with one of the user",
        ),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "type 'text'"),
        (CHAT, {"messages": [USER], "tools": [{"type": "function"}]}, 400, "tools", "not supported"),
        (CHAT, {"messages": [USER], "response_format": {"type": "json_object"}}, 400, "response_format", "supported"),
        (CHAT, {"messages": [USER], "top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
        ("/v1/embeddings", {}, 404, None, "/v1/completions"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_its_name(served, path, body, status, param, message):
    reply = ask(served, path, body)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert message in error["message"]


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


def test_a_request_that_never_comes_to_the_application_is_refused_in_the_same_form(served, monkeypatch):
    monkeypatch.setattr(Limits, "seconds", lambda self, phase: 0.1 if phase is Phase.HEAD else float("inf"))
    url = httpx.URL(served.listen("127.0.0.1:0"))
    with socket.create_connection((url.host, url.port), timeout=10) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: loc")
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    error = json.loads(body)["error"]
    assert error == {
        "message": "the request's head did not arrive in time",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


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


def endless(policy, count=1):
    """Answers that go on to the end of the context: the most likely token is the same again and again."""
    ids = conversation([policy.model.tokens.encode("a")])
    return [Asked(prompt=ids, max_new_tokens=policy.model.context, temperature=0.0)] * count


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
            next(reply.iter_lines())
            assert served.health()["running"] == 1
        wait_until(lambda: served.health()["running"] == 0)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=0.3)
        wait_until(lambda: served.health()["running"] == 0)
        assert served.health()["tokens"] < 10_000


def test_too_many_are_told_to_come_again():
    policy = made(context=4000)
    runtime.init(engine="serial")
    with serve(policy, max_batch_size=1, max_waiting=1) as served:
        answers = served.submit(endless(policy), lambda index, said: None)
        wait_until(lambda: served.health()["running"] == 1)
        answers += served.submit(endless(policy), lambda index, said: None)
        reply = completion(served)
        assert (reply.status_code, reply.headers["retry-after"]) == (429, "1")
        assert reply.json()["error"]["code"] == "rate_limit_exceeded"
        with pytest.raises(ServerBusyError, match="busy"):
            served.generate(["a"])
        served.drop(answers)
        assert completion(served).status_code == 200


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


@pytest.mark.parametrize("engine", ["serial", pytest.param("native", marks=pytest.mark.slow)])
def test_a_killed_replica_takes_no_answer_along(engine):
    policy = made(context=80)
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


def test_what_waits_when_the_model_is_closed_is_told(policy):
    runtime.init(engine="serial")
    served = serve(made(context=4000), max_batch_size=1)
    told = []
    served.submit(endless(policy, 3), lambda index, said: told.append(said) if isinstance(said, Exception) else None)
    served.close()
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
