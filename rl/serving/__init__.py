"""Serving: replica actors behind one handle, with dynamic batching, in process and over HTTP."""

from .http_app import UnknownPolicyError
from .launch import serve
from .policies import ServedPolicies
from .queueing import ServerBusyError, ServerClosedError
from .served import Answer, Served
from .sessions import SessionInUseError, UnknownSessionError
from .texts.served import ServedTexts

__all__ = [
    "Answer",
    "Served",
    "ServedPolicies",
    "ServedTexts",
    "ServerBusyError",
    "ServerClosedError",
    "SessionInUseError",
    "UnknownPolicyError",
    "UnknownSessionError",
    "serve",
]
