"""An image as a file that engines load, of a root file system."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def image_archive(
    root: bytes,
    name: str,
    command: list[str],
    *,
    entrypoint: list[str] | None = None,
    more_layers: Sequence[bytes] = (),
) -> bytes:
    """Return what ``docker save`` would write of an image; the tar `root` is its first layer."""
    layers = [root, *more_layers]
    config = {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {
            "Cmd": command,
            "Entrypoint": entrypoint or [],
            "Env": ["PATH=/usr/lib/credspec/bin:/usr/bin:/bin"],
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    names = [f"layer{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": names}]
    files = {
        "config.json": json.dumps(config).encode(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    files |= dict(zip(names, layers, strict=True))
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for file, content in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return archive.getvalue()
