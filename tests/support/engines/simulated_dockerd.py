"""What dockerd does with the members that the gateway changes: simulated, in memory.

As moby does it: a create request's environment comes first, then the image's that it does not
name; annotations exist since version 1.43 of the API; the default runtime is named by inspect.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

OUR_NAMES = (
    *("CREDSPEC", "CREDSPEC_OWNER", "CREDSPEC_MODE", "CREDSPEC_KEYTAB"),
    *("KRB5CCNAME", "KRB5_CONFIG", "KRB5_KTNAME"),
)


@dataclass
class Container:
    """A container as dockerd keeps it."""

    config: dict[str, Any]
    host_config: dict[str, Any]
    image_environment: list[str]

    def shown(self) -> dict[str, Any]:
        """Return the answer to an inspect."""
        document = {
            "Id": "a",
            "Image": "sha256:0",
            "State": {"Status": "created"},
            "HostConfig": self.host_config,
            "Mounts": [],
            "Config": self.config,
        }
        return copy.deepcopy(document)

    def listed(self) -> dict[str, Any]:
        """Return the container's entry in a list of containers."""
        host_config: dict[str, Any] = {"NetworkMode": "none"}
        if self.host_config.get("Annotations"):
            host_config["Annotations"] = self.host_config["Annotations"]
        return {"Id": "a", "Labels": self.config["Labels"], "HostConfig": host_config}

    def image(self) -> bytes:
        """Return the answer to an inspect of the image."""
        return json.dumps({"Id": "sha256:0", "Config": {"Env": self.image_environment}}).encode()

    def bundle(self) -> dict[str, Any]:
        """Return the OCI configuration, as far as the shim reads it."""
        tmpfs = self.host_config.get("Tmpfs", {})
        # A name alone means that the variable is not set.
        environment = [entry for entry in self.config["Env"] if "=" in entry]
        return {
            "annotations": dict(self.host_config.get("Annotations", {})),
            "process": {"env": environment, "user": {"uid": 0, "gid": 0}},
            "mounts": [{"type": "tmpfs", "destination": target} for target in tmpfs],
        }


class SimulatedDockerd:
    """Makes containers of one image, which has an environment."""

    newest = (1, 51)

    def __init__(self, image_environment: list[str]) -> None:
        self.image_environment = image_environment

    def create(self, body: dict[str, Any], version: tuple[int, int] | None) -> Container:
        config = {key: value for key, value in body.items() if key != "HostConfig"}
        host_config = copy.deepcopy(body["HostConfig"])
        given = list(config.get("Env") or [])
        names = {entry.partition("=")[0] for entry in given}
        config["Env"] = given + [
            entry for entry in self.image_environment if entry.partition("=")[0] not in names
        ]
        config["Labels"] = config.get("Labels") or {}
        if (version or self.newest) < (1, 43):
            host_config.pop("Annotations", None)
        for key in ("Annotations", "Tmpfs"):
            if not host_config.get(key):
                host_config.pop(key, None)
        host_config["SecurityOpt"] = host_config.get("SecurityOpt") or None
        host_config["Runtime"] = host_config.get("Runtime") or "runc"
        options = host_config["SecurityOpt"] or []
        assert not any(option.lower().startswith("credentialspec=") for option in options)
        return Container(config, host_config, self.image_environment)
