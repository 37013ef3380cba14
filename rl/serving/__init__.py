"""Serving: replica actors behind one handle, with dynamic batching, in process and over HTTP."""

from .queueing import ServerBusyError, ServerClosedError
from .served import Answer, Served, serve

__all__ = ["Answer", "Served", "ServerBusyError", "ServerClosedError", "serve"]
