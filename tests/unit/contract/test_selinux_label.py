"""The label of a lease's tmpfs, from bundles; whether SELinux is on is simulated.

No host with SELinux was there to try: what is tested is what mount(2) is asked for.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from credspec.contract import lease as lease_module
from credspec.contract import selinux_label
from credspec.contract.errors import ShimError
from credspec.contract.lease import Lease
from credspec.shim.carriers import PODMAN, Origin, take_ticket_request
from support.engines.podman_storage import CONTAINER, write_storage

LABELS = [
    "system_u:object_r:container_file_t:s0:c1,c2",
    "system_u:object_r:container_file_t:s0:c14,c1023",
    "unconfined_u:object_r:user_tmp_t",
    "system_u:object_r:svirt_lxc_file_t:s0-s15:c0.c1023",
]


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The options of each mount that was asked for."""
    asked: list[bytes] = []
    monkeypatch.setattr(
        lease_module.c_library, "mount", lambda *arguments: asked.append(arguments[4])
    )
    monkeypatch.setattr(lease_module.posix, "mkdir", lambda *_: None)
    # As for the host's root, whose mounts they are.
    monkeypatch.setattr(lease_module, "leases_directory", lambda run, name: f"{run}/{name}")
    monkeypatch.setattr(lease_module.posix, "rmdir", lambda *_: None)
    return asked


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux_label, "is_enabled", lambda: True)


def bundle(label: object) -> dict[str, object]:
    return {
        "annotations": {"credspec.dev/spec": "file://a.json"},
        "linux": {"mountLabel": label},
        "process": {"user": {"uid": 5, "gid": 6}},
    }


def ticket_request_of(label: object, tmp_path: Path) -> object:
    """Return what Docker's, containerd's and Podman's containers ask for; all must be the same."""
    from credspec.contract.ticket_options import ticket_request_of as request

    config = bundle(label)
    return request(config, "file://a.json", {}, is_users=False)


@pytest.mark.parametrize("label", LABELS)
def test_every_mount_has_the_containers_label_simulated(
    tmp_path: Path, mounts: list[bytes], enabled: None, label: str
) -> None:
    lease = Lease("0" * 32, "/none", str(tmp_path))
    lease.make_directory(ticket_request_of(label, tmp_path))
    (options,) = mounts
    assert f',context="{label}"' in options.decode()
    assert options.decode().count('"') == 2


def test_podmans_containers_have_it_from_the_same_bundle_simulated(
    tmp_path: Path, enabled: None
) -> None:
    config = write_storage(tmp_path / "storage", {})
    userdata = f"/run/containers/storage/overlay-containers/{CONTAINER}/userdata"
    config |= bundle(LABELS[0]) | {
        "mounts": [
            {"source": f"{userdata}/.containerenv", "destination": "/run/.containerenv"},
            {"type": "tmpfs", "destination": "/run/credspec"},
        ]
    }
    request = take_ticket_request(config, Origin(PODMAN, CONTAINER), is_users=False)
    assert request is not None
    assert request.label == LABELS[0]


@pytest.mark.parametrize("label", [None, ""])
def test_without_a_label_there_is_no_option(
    tmp_path: Path, mounts: list[bytes], enabled: None, label: str | None
) -> None:
    Lease("0" * 32, "/none", str(tmp_path)).make_directory(ticket_request_of(label, tmp_path))
    assert b"context" not in mounts[0]


def test_without_selinux_no_label_is_looked_at(tmp_path: Path, mounts: list[bytes]) -> None:
    """The kernel would refuse the mount for the option; engines may leave labels in bundles."""
    assert not selinux_label.is_enabled(), "this host has SELinux: try it for real"
    for label in (LABELS[0], 'x"y', 7):
        Lease("0" * 32, "/none", str(tmp_path)).make_directory(ticket_request_of(label, tmp_path))
    assert all(b"context" not in options for options in mounts)


HOSTILE = st.one_of(
    st.text(min_size=1),
    st.builds(
        lambda label, extra, at: label[:at] + extra + label[at:],
        st.sampled_from(LABELS),
        st.sampled_from(['"', "\\", "\0", "\n", " ", "=", "'", ',size=4g,context="', "é", "%"]),
        st.integers(0, 40),
    ),
    st.lists(st.text()).filter(bool),
    st.integers(1),
    st.dictionaries(st.text(), st.text(), min_size=1),
    st.just(True),
)


@given(HOSTILE)
@example("a:b:" + "c" * 5000)
@example(":::")
@example("a::c")
def test_no_label_says_anything_else_to_the_kernel_simulated(label: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selinux_label, "is_enabled", lambda: True)
        try:
            found = selinux_label.mount_label(json.loads(json.dumps(bundle(label))))
        except ShimError as error:
            assert "[selinux-label]" in str(error)
            assert len(str(error)) < 400
            return
    option = selinux_label.mount_option(found)
    assert option == f',context="{label}"'
    assert option.isascii()
    assert option.isprintable()
    assert not set(option[10:-1]) & set("\"'\\ =\0\n")


def test_a_users_directory_has_it_too_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rootless engines: the directory is no mount, and what is made in it inherits its label."""
    given_labels: list[tuple[object, ...]] = []
    monkeypatch.setattr(
        selinux_label.posix, "setxattr", lambda *arguments, **_: given_labels.append(arguments)
    )
    selinux_label.set_label(str(tmp_path), LABELS[0])
    selinux_label.set_label(str(tmp_path), "")
    assert given_labels == [(str(tmp_path), "security.selinux", f"{LABELS[0]}\0".encode())]

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(selinux_label.posix, "setxattr", refuse)
    with pytest.raises(ShimError, match=r"ausearch.*\[selinux-label\]"):
        selinux_label.set_label(str(tmp_path), LABELS[0])
