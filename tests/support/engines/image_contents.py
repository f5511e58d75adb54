"""What is in an image, read from the archive that ``docker save`` or a build writes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

_REMOVED = ".wh."


class ImageContents:
    """An image's configuration, and its files after all layers, by paths without a first slash."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as tar:
            (manifest,) = json.loads(_read(tar, "manifest.json"))
            self.tags: list[str] = manifest["RepoTags"]
            self.description: dict[str, Any] = json.loads(_read(tar, manifest["Config"]))
            layers = [_read(tar, name) for name in manifest["Layers"]]
        self.config: dict[str, Any] = self.description["config"]
        self.files: dict[str, tarfile.TarInfo] = {}
        self._contents: dict[str, bytes] = {}
        for layer in layers:
            self._apply(layer)

    def read(self, path: str) -> bytes:
        """Return a file's contents; links are followed."""
        info = self.files[path]
        if info.issym():
            parent = Path("/", path).parent
            target = Path(parent, info.linkname).resolve()
            return self.read(str(target).lstrip("/"))
        return self._contents[info.linkname.removeprefix("./") if info.islnk() else path]

    def _apply(self, layer: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            for info in tar:
                path = info.name.removeprefix("./").strip("/")
                folder, _, name = path.rpartition("/")
                if name.startswith(_REMOVED):
                    self._remove(f"{folder}/{name.removeprefix(_REMOVED)}".strip("/"))
                    continue
                self.files[path] = info
                if info.isreg():
                    self._contents[path] = _content(tar, info)

    def _remove(self, path: str) -> None:
        for name in [name for name in self.files if name == path or name.startswith(f"{path}/")]:
            del self.files[name]


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    return _content(tar, tar.getmember(name))


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(info)
    assert file is not None
    return file.read()
