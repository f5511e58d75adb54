from __future__ import annotations

import json
from pathlib import Path

import pytest

from credspec.shim.podman_image import image_annotations
from support.engines.podman_storage import CONTAINER, IMAGE, write_storage


@pytest.mark.parametrize("driver", ["overlay", "vfs", "btrfs"])
@pytest.mark.parametrize("volatile", [False, True])
def test_what_an_image_sets(tmp_path: Path, driver: str, volatile: bool) -> None:
    config = write_storage(tmp_path, {"a": "b"}, driver=driver, volatile=volatile)
    assert image_annotations(config, CONTAINER) == {"a": {"b"}}


def test_found_by_the_bundle_or_the_root_alone(tmp_path: Path) -> None:
    config = write_storage(tmp_path, None)
    bundle = f"{tmp_path}/overlay-containers/{CONTAINER}/userdata"
    assert image_annotations({}, CONTAINER, bundle) == {}
    assert image_annotations({"root": config["root"]}, CONTAINER) == {}


def test_every_manifest_of_an_image_counts(tmp_path: Path) -> None:
    config = write_storage(tmp_path, {"a": "b"})
    image = tmp_path / "overlay-images" / IMAGE
    index = {"annotations": {"a": "c"}, "manifests": [{"annotations": {"d": "e"}}]}
    # What the storage calls manifest-sha256:...
    (image / "=bWFuaWZlc3Qtc2hhMjU2OjEyMw==").write_text(json.dumps(index))
    assert image_annotations(config, CONTAINER) == {"a": {"b", "c"}, "d": {"e"}}


def test_what_cannot_be_found_is_unknown(tmp_path: Path) -> None:
    config = write_storage(tmp_path, {"a": "b"})
    assert image_annotations(config, "f" * 64) is None
    assert image_annotations({}, CONTAINER) is None
    manifest = tmp_path / "overlay-images" / IMAGE / "manifest"
    manifest.write_text("{")
    assert image_annotations(config, CONTAINER) is None
    manifest.unlink()
    assert image_annotations(config, CONTAINER) is None


@pytest.mark.parametrize("image", ["", "../../etc", None, 5, ["x"]])
def test_an_image_of_an_odd_name_is_unknown(tmp_path: Path, image: object) -> None:
    config = write_storage(tmp_path, {})
    path = tmp_path / "overlay-containers" / "containers.json"
    path.write_text(json.dumps([{"id": CONTAINER, "image": image}]))
    assert image_annotations(config, CONTAINER) is None
