"""Where the API server is and what proves who asks it, as a pod finds both."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, UsageError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet mounts a pod's own token, and the certificate authority of the API server."""

_MOST_TOKEN_BYTES: Final = 64 * 1024
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class ApiServer:
    """The API server: its `url` without a path, the file of its CA, the file of the token."""

    url: str
    ca_file: Path
    token_file: Path

    def tls_context(self) -> ssl.SSLContext:
        """Return what checks the server's certificate, by the authority that the file has now.

        Raises:
            CredspecError: `kubernetes-ca-file`.
        """
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file))
        except (OSError, ssl.SSLError) as error:
            raise CredspecError.of(
                "kubernetes-ca-file",
                f"cannot be used ({getattr(error, 'strerror', None) or type(error).__name__})",
                where=str(self.ca_file),
                expected="the certificate authority of the API server, in PEM",
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def token(self) -> str:
        """Return the token that the file has now; the kubelet replaces it well before it expires.

        Raises:
            CredspecError: `kubernetes-token-file`.
        """
        try:
            with self.token_file.open("rb") as file:
                token = file.read(_MOST_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            found = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise self._no_token(str(found)) from None
        if not token or not token.isprintable() or " " in token:
            raise self._no_token("there is no token in it")
        return token

    def _no_token(self, found: str) -> CredspecError:
        return CredspecError.of(
            "kubernetes-token-file",
            found,
            where=str(self.token_file),
            expected="the token of the pod's service account",
            remedy="leave automountServiceAccountToken on for this pod",
        )


def in_cluster(
    environment: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT
) -> ApiServer:
    """Return the API server of this pod's cluster, by its variables and service account.

    Raises:
        UsageError: `kubernetes-not-in-cluster`.
    """
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT_HTTPS") or environment.get(
        "KUBERNETES_SERVICE_PORT", ""
    )
    is_host = bool(host) and host.isascii() and not set(host) & set(" /?#@\\[]%")
    if not is_host or not port.isdecimal() or not 0 < int(port[:6]) <= _MAX_PORT:
        raise UsageError.of(
            "kubernetes-not-in-cluster",
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT do not name the API server",
            expected="the variables that every pod has",
            remedy="run it as a pod; the CSI driver may be given --api-server, --ca-file and "
            "--token-file",
        )
    shown = f"[{host}]" if ":" in host else host
    return ApiServer(f"https://{shown}:{port}", directory / "ca.crt", directory / "token")
