"""Where simulators connect, and what they have to know for it."""

import logging
import os
import secrets
from dataclasses import dataclass, field

from ..addresses import bind, check_token, is_loopback, parse_address, shown_address
from .certificates import ServerCertificate

TOKEN_VARIABLE = "SHOAL_SIMULATOR_TOKEN"  # noqa: S105 (its name)

logger = logging.getLogger("shoal")


@dataclass(frozen=True)
class Endpoint:
    """An address for simulators; picklable."""

    address: str
    """HOST:PORT."""
    token: str = field(repr=False)
    """What each request has to bring."""
    certificate: ServerCertificate | None = None
    """With which it shows who it is, and encrypts; None: no TLS."""

    @staticmethod
    def at(listen: str, token: str | None = None, name: str = "listen") -> "Endpoint":
        """Return the endpoint at "HOST:PORT", or "PORT" on this machine alone, after a look whether it is free; port 0
        is any free one. Without a `token` it is that of SHOAL_SIMULATOR_TOKEN, else a random one, which is told. With
        TLS where SHOAL_SIMULATOR_TLS_CERTIFICATE and SHOAL_SIMULATOR_TLS_KEY name files. `name` is the setting's, for
        messages.

        Raises:
            InputError: the address is malformed, not this machine's, or in use; the token is none, or the certificate.
        """
        host, port = parse_address(listen, name)
        with bind(host, port) as looked:
            address = shown_address(host, looked.getsockname()[1])
        found = os.environ.get(TOKEN_VARIABLE)
        given = token if token is not None else found or None
        check_token(given)
        certificate = ServerCertificate.from_environment()
        if certificate is None and not is_loopback(host):
            logger.warning("simulators connect to %s without encryption, for whoever can read that network", address)
        if given is not None:
            whose = "that was given" if token is not None else f"of {TOKEN_VARIABLE}"
            logger.warning("simulators connect to %s, with the token %s", address, whose)
            return Endpoint(address, given, certificate)
        made = secrets.token_urlsafe(16)
        logger.warning("simulators connect to %s, with %s=%s", address, TOKEN_VARIABLE, made)
        return Endpoint(address, made, certificate)
