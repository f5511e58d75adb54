from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from credspec.runtimes.oci_bundle import add_tickets, forbid_checkpoints, read_config
from credspec.runtimes.shim import ShimError

ENVIRONMENT = {"KRB5CCNAME": "/run/credspec/krb5cc", "KRB5_CONFIG": "/run/credspec/krb5.conf"}


def test_tickets_are_added_once_and_what_is_set_stays() -> None:
    config: dict[str, Any] = {
        "mounts": [{"destination": "/proc"}, {"destination": "/run/credspec/", "source": "/evil"}],
        "process": {"env": ["KRB5_CONFIG=/mine", "A=1"]},
    }
    add_tickets(config, "/run/credspec/leases/x", ENVIRONMENT)
    once = copy.deepcopy(config)
    add_tickets(config, "/run/credspec/leases/x", ENVIRONMENT)
    assert config == once
    assert [m["destination"] for m in config["mounts"]] == ["/proc", "/run/credspec"]
    assert {"nosuid", "nodev", "noexec"} <= set(config["mounts"][1]["options"])
    assert config["process"]["env"] == [
        "KRB5_CONFIG=/mine",
        "A=1",
        "KRB5CCNAME=/run/credspec/krb5cc",
    ]


def test_the_tmpfs_that_name_options_go_and_others_stay() -> None:
    config: dict[str, Any] = {
        "mounts": [
            {"type": "tmpfs", "destination": "/run/credspec"},
            {"type": "tmpfs", "destination": "/run/credspec/mode=0440"},
            {"type": "tmpfs", "destination": "/run/credspec/cache"},
            {"type": "bind", "destination": "/data/a=b"},
        ]
    }
    add_tickets(config, "/run/credspec/leases/x", ENVIRONMENT)
    kept = [m["destination"] for m in config["mounts"]]
    assert kept == ["/run/credspec/cache", "/data/a=b", "/run/credspec"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"{", "Expecting property name"),
        (b"[]", "no object"),
        (b'{"process": {"env": ["A=\xff"]}}', "utf-8"),
        (b'{"annotations": {}, "annotations": {}}', "'annotations' is there twice"),
        (b'{"annotations": {"credspec.dev/spec": "a", "credspec.dev/spec": "b"}}', "there twice"),
        (b'{"annotations": {"credspec.dev/mode": "a", "credspec\\u002edev/mode": ""}}', "twice"),
        (b'{"Annotations": {"credspec.dev/spec": "a"}}', "did you mean 'annotations'"),
        (b'{"process": {"ENV": ["CREDSPEC=a"]}}', "did you mean 'env'"),
        (b'{"windows": {"CredentialSpec": "a"}}', "did you mean 'credentialSpec'"),
    ],
)
def test_a_configuration_that_a_runtime_might_read_otherwise(
    tmp_path: Path, data: bytes, text: str
) -> None:
    """A runtime that takes what the shim does not would start it without its identity."""
    (tmp_path / "config.json").write_bytes(data)
    with pytest.raises(ShimError, match="bundle-malformed") as caught:
        read_config(str(tmp_path))
    assert text in str(caught.value)


def test_no_configuration_is_the_runtimes_to_word(tmp_path: Path) -> None:
    assert read_config(str(tmp_path)) is None


def test_what_makes_a_checkpoint_fail_is_within_the_tickets_mount() -> None:
    config: dict[str, Any] = {}
    add_tickets(config, "/run/credspec/leases/x", ENVIRONMENT)
    forbid_checkpoints(config)
    tickets, forbidding = config["mounts"]
    assert forbidding["destination"].startswith(f"{tickets['destination']}/.")
    assert forbidding["type"] == "ramfs"
    assert {"ro", "mode=0000"} <= set(forbidding["options"])
