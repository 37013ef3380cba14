"""Serving: replica actors behind one handle, with dynamic batching, in process and over HTTP."""

from .http_app import UnknownPolicyError
from .launch import serve
from .policies import ServedPolicies
from .queueing import ServerBusyError, ServerClosedError
from .served import Answer, Served
from .sessions import SessionInUseError, UnknownSessionError

__all__ = [
    "Answer",
    "Served",
    "ServedPolicies",
    "ServerBusyError",
    "ServerClosedError",
    "SessionInUseError",
    "UnknownPolicyError",
    "UnknownSessionError",
    "serve",
]
