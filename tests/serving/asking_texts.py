"""A small language model to be served, and requests to its application."""

import asyncio
import json

import httpx
from gymnasium.spaces import Text

from shoal.rl import LanguagePolicy
from shoal.rl.language.asked import Asked, conversation
from shoal.rl.models.spec import ModelSpec
from shoal.rl.serving.texts.app import make_text_app
from shoal.rl.threads import limit_threads

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
USER = {"role": "user", "content": "a"}
SPACE = Text(8, charset="abcdefgh")


def made(seed=0, context=120, **policy_kwargs):
    limit_threads(1)
    network = {"tokenizer": "bytes", "context": context, "width": 16, "layers": 1, "heads": 2} | policy_kwargs
    policy = LanguagePolicy(ModelSpec("language_model", SPACE, SPACE, network), seed=seed)
    policy.model.flat.mul_(4)
    return policy


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


def endless(policy, count=1):
    """Answers that go on to the end of the context: the most likely token is the same again and again."""
    ids = conversation([policy.model.tokens.encode("a")])
    return [Asked(prompt=ids, max_new_tokens=policy.model.context, temperature=0.0)] * count
