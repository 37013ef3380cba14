"""OpenAI's completions and chat completions: what a request asks, and what an answer looks like.

What is not supported is refused with the parameter's name, never left out of account: a client that asks for JSON, or
for tools, must not get an ordinary text. The names are those of OpenAI's API reference; `top_k` is an addition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....runtime import InputError, nearest
from ...language.asked import Asked, conversation, room
from ...language.tokens import Tokens
from ...settings import Bounds

_MOST_LOG_PROBS = 20
_LONGEST_STOP = 1000
_COUNT = Bounds(whole=True, at_least=1)
_NUMBERS: dict[str, Bounds] = {
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "n": _COUNT,
    "seed": Bounds(whole=True),
    "temperature": Bounds(at_least=0, at_most=2),
    "top_k": Bounds(whole=True, at_least=0),
    "top_logprobs": Bounds(whole=True, at_least=0, at_most=_MOST_LOG_PROBS),
    "top_p": Bounds(above=0, at_most=1),
}
_SHARED = ("model", "max_tokens", "n", "seed", "stop", "stream", "stream_options", "temperature", "top_k", "top_p")
_FIELDS = {
    "completions": (*_SHARED, "echo", "logprobs", "prompt"),
    "chat": (*_SHARED, "logprobs", "max_completion_tokens", "messages", "top_logprobs"),
}
# What says nothing about the answer; and what is supported with these values only, which change nothing.
_WITHOUT_EFFECT = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"})
_ONLY: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
}
_DEFAULT_TOKENS = 16
"""Of completions, as OpenAI has it; a chat's answer may be as long as the context."""


class BadRequestError(Exception):
    """A request cannot be answered as it is; `param` names what is wrong."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


@dataclass(frozen=True)
class Wanted:
    """What a request asks for."""

    chat: bool
    asked: list[Asked]
    """Of each choice; those of the first prompt first."""
    prompt_tokens: int
    echo: list[str] = field(default_factory=list)
    """Of each choice, what its text begins with."""
    stream: bool = False
    usage: bool = False
    """Whether the end of a stream tells how many tokens there were."""
    log_probs: bool = False


@dataclass(frozen=True)
class Model:
    """What a request is read for."""

    name: str
    tokens: Tokens
    context: int
    most_answers: int
    next_seed: Callable[[], int]


def read_request(body: Mapping[str, Any], model: Model, *, chat: bool) -> Wanted:
    """Read a request's JSON object; BadRequestError says what is wrong with it."""
    given = _supported(body, _FIELDS["chat" if chat else "completions"])
    numbers = {name: _number(name, given[name]) for name in _NUMBERS if name in given}
    flags = {name: _flag(given, name) for name in ("stream", "echo")}
    if given.get("model", model.name) != model.name:
        raise BadRequestError(
            f"there is no model {given['model']!r:.80}, but {model.name!r}", "model", status=404, code="model_not_found"
        )
    prompts, texts = _conversations(given, model.tokens) if chat else _prompts(given, model.tokens)
    samples = numbers.get("n", 1)
    if len(prompts) * samples > model.most_answers:
        many = f"n is {samples}" if len(prompts) == 1 else f"{len(prompts)} prompts, and n is {samples}"
        raise BadRequestError(
            f"{many}: a request may ask for {model.most_answers} answers at most, so that others have room to wait, "
            "too. Send several, or serve with a larger max_waiting",
            "n" if samples > 1 else "prompt",
        )
    told, alternatives = _log_probs(given, numbers, chat=chat)
    if told and flags["echo"]:
        raise BadRequestError("echo together with logprobs is not supported: leave one of them out", "echo")
    most = numbers.get("max_completion_tokens", numbers.get("max_tokens", None if chat else _DEFAULT_TOKENS))
    options: dict[str, Any] = {
        "seed": abs(numbers["seed"]) if "seed" in numbers else model.next_seed(),
        "stop": _stop(given.get("stop", ())),
        "alternatives": alternatives,
        **{name: numbers[name] for name in ("temperature", "top_k", "top_p") if name in numbers},
    }
    asked = []
    for index in range(len(prompts) * samples):
        ids = prompts[index // samples]
        try:
            asked.append(Asked(prompt=ids, max_new_tokens=room(model.context, ids, most), index=index, **options))
        except InputError as error:
            raise BadRequestError(
                str(error), "messages" if chat else "prompt", code="context_length_exceeded"
            ) from None
    return Wanted(
        chat,
        asked,
        sum(map(len, prompts)),
        [texts[index // samples] if flags["echo"] else "" for index in range(len(asked))],
        flags["stream"],
        _usage(given, stream=flags["stream"]),
        told,
    )


def _supported(body: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The parameters that count; null stands for the default."""
    for name, value in body.items():
        if name in known or name in _WITHOUT_EFFECT or value is None:
            continue
        if name not in _ONLY:
            raise BadRequestError(f"unknown parameter {name[:80]!r}. {nearest(name[:80], known)}", name[:80])
        if value not in _ONLY[name]:
            allowed = " or ".join(map(repr, _ONLY[name]))
            raise BadRequestError(f"{name} is not supported: leave it out, or give {allowed}", name)
    return {name: value for name, value in body.items() if name in known and value is not None}


def _number(name: str, value: Any) -> Any:
    try:
        return _NUMBERS[name].read(name, value)
    except InputError as error:
        raise BadRequestError(str(error), name) from None


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise BadRequestError(f"{name} is {value!r:.80}, but must be true or false", name)
    return value


def _log_probs(given: Mapping[str, Any], numbers: Mapping[str, Any], *, chat: bool) -> tuple[bool, int]:
    """Whether log-probabilities are told, and of how many alternatives."""
    if chat:
        told = _flag(given, "logprobs")
        if "top_logprobs" in numbers and not told:
            raise BadRequestError("top_logprobs needs logprobs: true", "top_logprobs")
        return told, numbers.get("top_logprobs", 0)
    if "logprobs" not in given:
        return False, 0
    try:
        return True, Bounds(whole=True, at_least=0, at_most=_MOST_LOG_PROBS).read("logprobs", given["logprobs"])
    except InputError as error:
        raise BadRequestError(str(error), "logprobs") from None


def _stop(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or len(texts) > 4 or not all(isinstance(t, str) and t for t in texts):
        raise BadRequestError(f"stop is {given!r:.80}, but must be a text, or 1 to 4 texts, none of them empty", "stop")
    longest = max(map(len, texts), default=0)
    if longest > _LONGEST_STOP:  # it goes along with each answer, and is compared at each token
        raise BadRequestError(f"stop has {longest} characters, but may have {_LONGEST_STOP} at most", "stop")
    return tuple(texts)


def _usage(given: Mapping[str, Any], *, stream: bool) -> bool:
    options = given.get("stream_options")
    if options is None:
        return False
    if not stream:
        raise BadRequestError("stream_options needs stream: true", "stream_options")
    if not isinstance(options, dict) or not set(options) <= {"include_usage"}:
        raise BadRequestError(
            f'stream_options is {options!r:.80}, but must be {{"include_usage": true}}', "stream_options"
        )
    return _flag(options, "include_usage")


def _encoded(tokens: Tokens, text: str, param: str) -> list[int]:
    try:
        return tokens.encode(text)
    except ValueError as error:  # also a lone surrogate, which JSON can hold and UTF-8 cannot
        raise BadRequestError(str(error), param) from None


def _prompts(given: Mapping[str, Any], tokens: Tokens) -> tuple[list[tuple[int, ...]], list[str]]:
    prompt = given.get("prompt")
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadRequestError(f"prompt is {prompt!r:.80}, but must be a text or a list of texts", "prompt")
    return [conversation([_encoded(tokens, text, "prompt")]) for text in texts], texts


def _conversations(given: Mapping[str, Any], tokens: Tokens) -> tuple[list[tuple[int, ...]], list[str]]:
    """The one conversation of `messages`: what the system says is put before the first message of the user, and a line
    break between; then user and assistant take turns, as in training."""
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise BadRequestError(f"messages is {messages!r:.80}, but must be a list of objects, at least one", "messages")
    said = [(message.get("role"), _content(message, at)) for at, message in enumerate(messages)]
    before = [text for role, text in said if role in ("system", "developer")]
    turns = said[len(before) :]
    for number, (role, _) in enumerate(turns):
        wanted = ("user", "assistant")[number % 2]
        if role != wanted:
            raise BadRequestError(
                f"messages[{len(before) + number}] has the role {role!r:.80}, but must have {wanted!r}: after messages "
                "of the system, those of user and assistant take turns",
                "messages",
            )
    if len(turns) % 2 == 0:
        raise BadRequestError("messages must end with one of the user, which is answered", "messages")
    texts = ["\n".join([*before, turns[0][1]]), *(text for _, text in turns[1:])]
    return [conversation([_encoded(tokens, text, "messages") for text in texts])], [""]


def _content(message: Mapping[str, Any], at: int) -> str:
    content = message.get("content")
    if isinstance(content, list) and content and all(map(_is_text, content)):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise BadRequestError(
            f"messages[{at}] has the content {content!r:.80}, but must have a text, or parts of the type 'text'",
            "messages",
        )
    return content


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
