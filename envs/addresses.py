"""Where servers of this program listen, who can reach them there, and the tokens that they want."""

import ipaddress
import re
import socket

from ..runtime import InputError


def parse_address(address: str, name: str = "address") -> tuple[str, int]:
    """Return host and port of "HOST:PORT", "[IPV6]:PORT" or "PORT" (which means this machine alone).

    Raises:
        InputError: it is none of them; the message calls it `name`.
    """
    host, _, port = str(address).rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    if not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise InputError(f"{name}={address!r}: want HOST:PORT with a port from 0 to 65535, for example 127.0.0.1:8000")
    return host, int(port)


def shown_address(host: str, port: int) -> str:
    """Return "HOST:PORT", an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_token(token: str | None) -> None:
    """Refuse what cannot be sent in a header.

    Raises:
        InputError: the token is empty, or holds other characters than visible ASCII ones; it is not shown.
    """
    if token is not None and not re.fullmatch("[!-~]+", token):
        raise InputError(f"the token has {len(token)} characters; want at least one, all of them visible ASCII")


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any free one.

    Raises:
        InputError: the address is not this machine's, or is in use.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # Listening already: who connects before anybody accepts waits, and is not turned away.
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, UnicodeError) as error:  # a part of a name that is too long
        reason = str(getattr(error, "strerror", None) or error).split(" (while", 1)[0]
        raise InputError(
            f"cannot listen at {host}:{port}: {reason}. Choose another address (port 0: any free port)"
        ) from None
