"""What a served language model refuses, in OpenAI's form, and what may not harm it."""

import asyncio
import json
import socket
import threading

import httpx
import pytest
from asking_texts import CHAT, COMPLETIONS, USER, ask, completion, endless, made
from conftest import wait_until

from shoal import runtime
from shoal.rl import ServerBusyError, serve
from shoal.rl.serving.connections import Connections, Limits, Phase
from shoal.rl.serving.texts.app import make_text_app


@pytest.fixture
def served():
    runtime.init(engine="serial")
    with serve(made(), max_batch_size=3) as made_:
        yield made_


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
        (COMPLETIONS, {"prompt": "a", "n": 5000}, 400, "n", "128 answers at most"),
        (COMPLETIONS, {"prompt": ["a"] * 129}, 400, "prompt", "129 prompts, and n is 1: a request may ask for 128"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, 400, "stop", "none of them empty"),
        (COMPLETIONS, {"prompt": "a", "stop": list("abcde")}, 400, "stop", "1 to 4 texts"),
        (COMPLETIONS, {"prompt": "a", "stop": "b" * 2000}, 400, "stop", "1000 at most"),
        (COMPLETIONS, {"prompt": "a", "n": 2**70}, 400, "n", "128 answers at most"),
        (COMPLETIONS, '{"prompt": "a", "seed": 1' + "0" * 5000 + "}", 400, None, "out of range"),
        (COMPLETIONS, '{"prompt": "a", "temperature": 1e400}', 400, None, "out of range"),
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
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages", "type 'text'"),
        (CHAT, {"messages": [{"role": "user", "content": []}]}, 400, "messages", "type 'text'"),
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


def test_no_number_that_is_taken_harms_a_replica(served):
    def said(**given):
        reply = completion(served, **{"max_tokens": 4} | given)
        assert reply.status_code == 200, reply.text
        return reply.json()["choices"][0]["text"]

    greedy = said(temperature=0)
    assert greedy != said()
    assert {said(temperature=coldest) for coldest in (1e-5, 1e-40, 1e-308, 5e-324)} == {greedy}
    assert said(top_k=2**70) == said(top_k=10**18) == said()
    assert said(top_k=2**70, temperature=0) == said(top_p=5e-324) == greedy
    for given in ({"seed": 2**80}, {"seed": -(2**63)}, {"max_tokens": 2**70}, {"logprobs": 20}):
        said(**given)
    assert served.health()["restarts"] == 0


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


def overloaded(error):
    assert error == {
        "message": error["message"],
        "type": "server_error",
        "param": None,
        "code": None,
    }
    assert "Ask again later" in error["message"]


def test_too_many_long_requests_are_503_in_openais_form(served):
    app = make_text_app(served, bodies_in_all=100)
    body = json.dumps({"prompt": "a" * 60, "max_tokens": 2})

    async def send():
        begun, rest = asyncio.Event(), asyncio.Event()

        async def slowly():  # the first part of a body that does not go on
            yield body[:80].encode()
            begun.set()
            await rest.wait()
            yield body[80:].encode()

        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            first = asyncio.ensure_future(client.post(COMPLETIONS, content=slowly()))
            await begun.wait()
            second = await client.post(COMPLETIONS, content=body)
            rest.set()
            return await first, second, await client.post(COMPLETIONS, content=body)

    slow, refused, after = asyncio.run(send())
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    overloaded(refused.json()["error"])
    assert (slow.status_code, after.status_code) == (200, 200)  # what was held is given back


def test_too_many_connections_are_503_in_openais_form(served, monkeypatch):
    monkeypatch.setattr(Connections, "admit", lambda self, connection, client: False)
    reply = httpx.post(f"{served.listen('127.0.0.1:0')}{COMPLETIONS}", json={"prompt": "a"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    overloaded(reply.json()["error"])


def test_no_replica_is_503_in_openais_form():
    runtime.init(engine="serial")
    with serve(made(), max_batch_size=1) as served:
        served.close()
        for stream in (False, True):
            reply = completion(served, stream=stream)
            assert (reply.status_code, reply.json()["error"]["type"]) == (503, "server_error")
            assert "closed" in reply.json()["error"]["message"]


def test_a_long_prompt_is_encoded_beside_the_loop(monkeypatch):
    runtime.init(engine="serial")
    with serve(made(context=4000), max_batch_size=1) as served:
        answered = threading.Event()
        encode = served.tokens.encode
        monkeypatch.setattr(served.tokens, "encode", lambda text: encode(text) if answered.wait(5) else 0 / 0)
        app = make_text_app(served)

        async def send():
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                long = asyncio.ensure_future(client.post(COMPLETIONS, json={"prompt": "a" * 20_000}))
                await asyncio.sleep(0.05)
                health = await client.get("/health")
                answered.set()
                return health, await long

        health, long = asyncio.run(send())
    assert health.status_code == 200
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
