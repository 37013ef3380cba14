"""TLS between simulators and a server: files in PEM format, named by environment variables as those of nodes are."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime import InputError

CERTIFICATE_VARIABLE, KEY_VARIABLE = "SHOAL_SIMULATOR_TLS_CERTIFICATE", "SHOAL_SIMULATOR_TLS_KEY"
CA_VARIABLE = "SHOAL_SIMULATOR_TLS_CA"


@dataclass(frozen=True)
class ServerCertificate:
    """What a server shows to simulators.

    Attributes:
        certificate, key: paths.
    """

    certificate: str
    key: str

    @staticmethod
    def from_environment() -> ServerCertificate | None:
        """Return what SHOAL_SIMULATOR_TLS_CERTIFICATE and SHOAL_SIMULATOR_TLS_KEY name; None where they name nothing.

        Raises:
            InputError: one of them is missing, or they are no certificate and its key.
        """
        certificate, key = (os.environ.get(name, "") for name in (CERTIFICATE_VARIABLE, KEY_VARIABLE))
        if not certificate and not key:
            return None
        if not certificate or not key:
            missing = KEY_VARIABLE if certificate else CERTIFICATE_VARIABLE
            raise InputError(
                f"TLS for simulators needs {CERTIFICATE_VARIABLE} and {KEY_VARIABLE}: missing is {missing}"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _check(
            f"{CERTIFICATE_VARIABLE} = {certificate!r} and {KEY_VARIABLE} = {key!r} are no certificate and its key",
            lambda: context.load_cert_chain(certificate, key),
        )
        return ServerCertificate(str(Path(certificate).resolve()), str(Path(key).resolve()))

    def credentials(self) -> Any:
        """Return gRPC's."""
        import grpc  # takes 30 ms, and most trainings need none

        return grpc.ssl_server_credentials([(Path(self.key).read_bytes(), Path(self.certificate).read_bytes())])


def channel(address: str, ca: str | Path | None, options: Sequence[tuple[str, int]]) -> Any:
    """Return gRPC's channel to a server.

    Args:
        address: HOST:PORT, which the server's certificate has to be for.
        ca: file of certificates of who may have signed it; None: what SHOAL_SIMULATOR_TLS_CA names, else no TLS.
        options: gRPC's.

    Raises:
        InputError: the file holds no certificates.
    """
    import grpc

    found = os.environ.get(CA_VARIABLE) or None if ca is None else str(ca)
    if found is None:
        return grpc.insecure_channel(address, options)
    _check(f"ca is {found!r}, which holds no certificates", lambda: ssl.create_default_context(cafile=found))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(found).read_bytes()), options)


def _check(problem: str, load: Callable[[], Any]) -> None:
    try:
        load()
    except OSError as error:  # ssl's own, too
        raise InputError(f"{problem}: {error.strerror or error}") from None
