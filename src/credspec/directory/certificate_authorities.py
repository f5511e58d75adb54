"""Where this host's certificate authorities are, as its distribution keeps them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
)


def system_ca_file() -> Path:
    """Return the file with the system's certificate authorities, in PEM; it may be missing.

    ``SSL_CERT_FILE`` names another one, as for other programs.
    """
    named = ssl.get_default_verify_paths().cafile
    candidates = [Path(path) for path in (named, *_BUNDLES) if path]
    return next((path for path in candidates if path.is_file()), Path(_BUNDLES[0]))
