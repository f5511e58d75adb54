"""Podman's storage as far as it tells which annotations are an image's (simulated)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONTAINER = "a" * 64
IMAGE = "b" * 64


def write_storage(
    root: Path,
    annotations: dict[str, str] | None,
    *,
    driver: str = "overlay",
    volatile: bool = False,
) -> dict[str, Any]:
    """Write the storage of one container, and return what its configuration says of it."""
    containers = root / f"{driver}-containers"
    (containers / CONTAINER / "userdata").mkdir(parents=True)
    record = [{"id": "c" * 64, "image": "d" * 64}, {"id": CONTAINER, "image": IMAGE}]
    name = "volatile-containers.json" if volatile else "containers.json"
    (containers / name).write_text(json.dumps(record))
    image = root / f"{driver}-images" / IMAGE
    image.mkdir(parents=True)
    manifest: dict[str, Any] = {"schemaVersion": 2}
    if annotations is not None:
        manifest["annotations"] = annotations
    (image / "manifest").write_text(json.dumps(manifest))
    userdata = containers / CONTAINER / "userdata"
    return {
        "root": {"path": f"{root}/{driver}/layer/merged"},
        "mounts": [
            {"destination": "/run/.containerenv", "source": f"{userdata}/.containerenv"},
            {"type": "tmpfs", "destination": "/run/credspec"},
        ],
    }
