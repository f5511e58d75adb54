from __future__ import annotations

import copy
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from credspec.contract.errors import ShimError
from credspec.contract.names import MOUNT_POINT, NEEDS_RUNTIME
from credspec.shim.oci_bundle import (
    add_tickets,
    forbid_checkpoints,
    has_tickets,
    option_of,
    read_config,
    write_config,
)

LEASES = "/run/credspec/leases"
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


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_what_is_written_has_the_mode_of_what_was_there(tmp_path: Path, mode: int) -> None:
    """The environment in it may hold secrets."""
    path = tmp_path / "config.json"
    path.write_text("{}")
    path.chmod(mode)
    mask = os.umask(0o022)
    try:
        write_config(str(tmp_path), {"process": {"env": ["A=\u00e4"]}})
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert read_config(str(tmp_path)) == {"process": {"env": ["A=\u00e4"]}}
    assert [each.name for each in tmp_path.iterdir()] == ["config.json"]


def test_a_link_in_the_bundle_is_not_written_through(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text("{}")
    (tmp_path / "kept").write_text("kept")
    (bundle / "config.json.credspec").symlink_to(tmp_path / "kept")
    with pytest.raises(OSError, match="symbolic links"):
        write_config(str(bundle), {"a": 1})
    assert (tmp_path / "kept").read_text() == "kept"
    assert (bundle / "config.json").read_text() == "{}"


def test_what_a_write_left_that_was_cut_off_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "config.json.credspec").write_text("x" * 1000)
    write_config(str(tmp_path), {"a": 1})
    assert read_config(str(tmp_path)) == {"a": 1}


@pytest.mark.parametrize(
    ("mount", "expected"),
    [
        ({"type": "tmpfs", "destination": "/run/credspec/mode=0440"}, ("mode", "0440")),
        ({"type": "tmpfs", "destination": "/run/credspec//mode=a=b/c"}, ("mode", "a=b/c")),
        ({"type": "tmpfs", "destination": "/run/credspec/mode="}, ("mode", "")),
        ({"type": "bind", "destination": "/run/credspec/mode=0440"}, None),
        ({"destination": "/run/credspec/mode=0440"}, None),
        ({"type": "tmpfs", "destination": "/run/credspec/mode"}, None),
        ({"type": "tmpfs", "destination": "/run/credspec"}, None),
        ({"type": "tmpfs", "destination": "/run/credspec/a/mode=1"}, None),
        ({"type": "tmpfs", "destination": "/run/other/mode=1"}, None),
        ({"type": "tmpfs"}, None),
    ],
)
def test_options_that_a_tmpfs_names(
    mount: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    assert option_of(mount) == expected


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (None, False),
        ([], False),
        ([{"destination": "/run/credspec", "source": "/run/credspec/leases/x"}], True),
        ([{"destination": "/run/credspec", "source": "/run/credspec/leases"}], False),
        ([{"destination": "/run/credspec", "source": "/run/credspec/leasesx/y"}], False),
        ([{"destination": "/run/credspec", "source": "/home/a/tickets"}], False),
        ([{"destination": "/run/other", "source": "/run/credspec/leases/x"}], False),
        ([{"destination": "/run/credspec"}], False),
        ([{"destination": "/a"}, {"destination": "/run/credspec", "source": "/l/x"}], False),
        (
            [{"destination": "/a"}, {"destination": MOUNT_POINT, "source": f"{LEASES}/x"}],
            True,
        ),
    ],
)
def test_which_configurations_have_tickets(
    mounts: list[dict[str, str]] | None, expected: bool
) -> None:
    assert has_tickets({"mounts": mounts}, "/run/credspec/leases") is expected
    assert not has_tickets({}, "/run/credspec/leases")


@pytest.mark.parametrize("process", [{}, {"env": None}, {"env": []}])
def test_a_container_without_mounts_or_variables_gets_them(process: dict[str, Any]) -> None:
    config: dict[str, Any] = {"process": process}
    add_tickets(config, "/l/x", ENVIRONMENT)
    assert config["mounts"] == [
        {
            "destination": "/run/credspec",
            "type": "bind",
            "source": "/l/x",
            "options": ["bind", "nosuid", "nodev", "noexec", "rw", "rprivate"],
        }
    ]
    assert config["process"]["env"] == [f"{name}={value}" for name, value in ENVIRONMENT.items()]


def test_members_of_another_shape_are_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"process": ["ENV"], "windows": "CredentialSpec"}')
    assert read_config(str(tmp_path)) == {"process": ["ENV"], "windows": "CredentialSpec"}


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


def test_what_keeps_other_runtimes_from_a_swarm_task_goes() -> None:
    config = {"linux": {"sysctl": {NEEDS_RUNTIME: "1", "net.ipv4.ip_forward": "1"}}}
    add_tickets(config, "/l/x", ENVIRONMENT)
    assert config["linux"]["sysctl"] == {"net.ipv4.ip_forward": "1"}
    for without in ({}, {"linux": None}, {"linux": {"sysctl": None}}):
        add_tickets(without, "/l/x", ENVIRONMENT)
