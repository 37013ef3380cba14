"""Tools around the runtime's core."""

from .inspection import inspect_serializability
from .serializers import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "inspect_serializability", "register_serializer"]
