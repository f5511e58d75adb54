"""The annotations of the image that a Podman container is made of.

Up to version 4, Podman hands annotations of images on as if the user had given them, and nothing in
``config.json`` tells which are whose. Its storage does (containers/storage: ``containers.json``
names a container's image, whose manifest is kept beside it). Standard library only.
"""

from __future__ import annotations

import os

from credspec.contract import c_json

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Iterator
    from typing import Any

_MAX_BYTES = 32 * 1024 * 1024
# The storage writes down the containers of `podman run --rm` apart.
_LISTS = ("containers.json", "volatile-containers.json")
# How the storage names files: as they are called, or "=" and Base64. Manifests by digest begin so.
_MANIFESTS = ("manifest", "=bWFuaWZlc3Qt")


def image_annotations(
    config: dict[str, Any], container: str, bundle: str = ""
) -> dict[str, set[str]] | None:
    """Return what a container's image sets as annotations, in any of its manifests.

    `container` is Podman's id of the container, `bundle` its bundle's directory if that is known.
    Returns None if the image cannot be found: it is then unknown who set what.
    """
    stores = list(dict.fromkeys(_stores(config, container, bundle)))
    image = next(filter(None, (_image_of(*store, container) for store in stores)), None)
    if image is None:
        return None
    found = [_annotations(f"{root}/{driver}-images/{image}") for root, driver in stores]
    return next((each for each in found if each is not None), None)


def _stores(config: dict[str, Any], container: str, bundle: str) -> Iterator[tuple[str, str]]:
    """Yield where the storage may be, and the name of its driver."""
    mounts = config.get("mounts") or []
    for path in (bundle, *(str(mount.get("source", "")) for mount in mounts)):
        head, found, _ = f"{path}/".partition(f"-containers/{container}/userdata/")
        root, _, driver = head.rpartition("/")
        if found and root:
            yield root, driver
    # The root file system is ROOT/DRIVER/..., which is known whatever is mounted.
    parts = str((config.get("root") or {}).get("path", "")).split("/")
    for number in range(len(parts) - 1, 1, -1):
        root, driver = "/".join(parts[:number]), parts[number]
        if driver and os.path.isdir(f"{root}/{driver}-containers"):
            yield root, driver


def _image_of(root: str, driver: str, container: str) -> str | None:
    for name in _LISTS:
        containers = _read(f"{root}/{driver}-containers/{name}")
        for each in containers if isinstance(containers, list) else ():
            if isinstance(each, dict) and each.get("id") == container:
                image = str(each.get("image") or "")
                return image if image.isascii() and image.isalnum() else None
    return None


def _annotations(directory: str) -> dict[str, set[str]] | None:
    try:
        names = [name for name in os.listdir(directory) if name.startswith(_MANIFESTS)]
    except OSError:
        return None
    manifests = [_read(f"{directory}/{name}") for name in names]
    if not manifests or not all(isinstance(manifest, dict) for manifest in manifests):
        return None
    found: dict[str, set[str]] = {}
    for manifest in manifests:
        for described in (manifest, *(manifest.get("manifests") or ())):
            for name, value in (described.get("annotations") or {}).items():
                found.setdefault(name, set()).add(str(value))
    return found


def _read(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return c_json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
