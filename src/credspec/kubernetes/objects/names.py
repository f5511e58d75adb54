"""What Kubernetes, the webhook and the CSI driver call the same things."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from credspec.spec.file_kind import KUBERNETES_KIND, is_object_name

GROUP: Final = "windows.k8s.io"
VERSION: Final = "v1"
KIND: Final = KUBERNETES_KIND
PLURAL: Final = "gmsacredentialspecs"
RESOURCE_PATH: Final = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
"""The path of the objects at the API server; a name follows behind a slash."""
USE: Final = "use"
"""The verb that a pod's service account needs for the object that its pod names."""

ANNOTATION: Final = "credspec.dev/gmsa"
"""The annotation of a pod that names the object, for all of its containers."""
INJECTED: Final = "credspec.dev/injected"
"""The annotation by which a pod shows that the webhook gave it volumes."""

DRIVER: Final = "credspec.dev"
"""The name of the CSI driver."""
SPEC_ATTRIBUTE: Final = "credentialSpecName"
"""The attribute of a CSI volume that names the object."""
UID_ATTRIBUTE: Final = "uid"
MODE_ATTRIBUTE: Final = "mode"
KEYTAB_ATTRIBUTE: Final = "keytab"
"""The attributes that say whose the files are, who may read them, and whether a keytab is there."""
TICKETS_ATTRIBUTE: Final = "tickets"
SERVICES_ATTRIBUTE: Final = "services"
"""The attributes that say which tickets are in the files, and of which services."""

_MAX_LABEL: Final = 63
_PREFIX: Final = "credspec-"
_HASH_CHARACTERS: Final = 10
_PLAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def is_spec_name(name: object) -> bool:
    """Return whether a value can be the name of an object (a DNS subdomain, RFC 1123)."""
    return isinstance(name, str) and is_object_name(name)


def volume_name(spec: str) -> str:
    """Return the name of a pod's volume for a spec: a DNS label, different for each spec."""
    if len(_PREFIX + spec) <= _MAX_LABEL and _PLAIN.fullmatch(spec):
        return _PREFIX + spec
    digest = hashlib.sha256(spec.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARACTERS]
    kept = re.sub(r"[^a-z0-9-]+", "-", spec)[: _MAX_LABEL - len(_PREFIX) - len(digest) - 1]
    return f"{_PREFIX}{kept.rstrip('-')}-{digest}"


def service_account_user(namespace: str, service_account: str) -> tuple[str, list[str]]:
    """Return the user that a service account is for the API server, and its groups."""
    return f"system:serviceaccount:{namespace}:{service_account}", [
        "system:serviceaccounts",
        f"system:serviceaccounts:{namespace}",
        "system:authenticated",
    ]
