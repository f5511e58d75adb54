from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.ticket_options import ANNOTATIONS
from credspec.errors import UsageError
from credspec.setup import containerd as containerd_setup
from credspec.setup.containerd import ContainerdSetup
from support.specs.spellings import spellings

CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
"""
WITH_RUNC = """\
# ours
version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd]
  default_runtime_name = "runc"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2" # as always"""


@pytest.fixture
def setup(tmp_path: Path) -> ContainerdSetup:
    return ContainerdSetup(
        run_directory=Path("/run/credspec"),
        config=tmp_path / "etc" / "config.toml",
        launcher_directory=tmp_path / "libexec",
    )


def registered(setup: ContainerdSetup, version: int) -> dict[str, object]:
    document = tomllib.loads(setup.config.read_text())
    assert document["version"] == version
    return document["plugins"][CRI[version]]["containerd"]["runtimes"]["credspec"]


@pytest.mark.parametrize(
    ("before", "version"),
    [(None, 2), (DEBIAN, 2), (WITH_RUNC, 3), ("version = 2", 2), ("version = 3\n", 3)],
)
def test_there_and_back_byte_for_byte(
    setup: ContainerdSetup, before: str | None, version: int
) -> None:
    if before is not None:
        setup.config.parent.mkdir()
        setup.config.write_text(before)
    changes = setup.apply()
    assert [line.split()[0] for line in changes] == ["wrote", "registered"]
    assert registered(setup, version) == {
        "runtime_type": "io.containerd.runc.v2",
        "pod_annotations": containerd_setup._ANNOTATIONS,
        "container_annotations": containerd_setup._ANNOTATIONS,
        "options": {"BinaryName": str(setup.launcher)},
    }
    assert setup.config.read_text().startswith(before or "")
    assert setup.launcher.stat().st_mode & 0o777 == 0o755
    # Again: nothing.
    assert setup.apply() == []
    assert [line.split()[0] for line in setup.undo()] == ["removed", "removed"]
    assert (setup.config.read_text() if before is not None else None) == before
    assert setup.config.exists() == (before is not None)
    assert not setup.launcher_directory.exists()
    assert setup.undo() == []


@pytest.mark.parametrize(
    ("before", "version"), [("", 2), (DEBIAN, 2), ("version = 3\n", 3), (WITH_RUNC, 3)]
)
def test_the_default_runtime_is_there_too(
    setup: ContainerdSetup, before: str, version: int
) -> None:
    """Containerd 1 has it only as long as the file names no runtime at all."""
    setup.config.parent.mkdir()
    setup.config.write_text(before)
    setup.apply()
    document = tomllib.loads(setup.config.read_text())
    runtimes = document["plugins"][CRI[version]]["containerd"]["runtimes"]
    assert runtimes["runc"] == {"runtime_type": "io.containerd.runc.v2"}


def test_another_default_runtime_needs_no_runc(setup: ContainerdSetup) -> None:
    table = f'plugins."{CRI[3]}".containerd'
    setup.config.parent.mkdir()
    setup.config.write_text(
        f'version = 3\n[{table}]\ndefault_runtime_name = "other"\n'
        f'[{table}.runtimes.other]\nruntime_type = "x"\n'
    )
    setup.apply()
    document = tomllib.loads(setup.config.read_text())
    assert set(document["plugins"][CRI[3]]["containerd"]["runtimes"]) == {"other", "credspec"}


def test_options_of_runc_are_taken_over(setup: ContainerdSetup) -> None:
    """Containers of one node must agree on who makes their cgroups."""
    table = f'plugins."{CRI[2]}".containerd.runtimes.runc'
    setup.config.parent.mkdir()
    setup.config.write_text(
        f'version = 2\n[{table}]\nruntime_type = "io.containerd.runc.v2"\n'
        f'[{table}.options]\nSystemdCgroup = true\nBinaryName = "runc"\nRoot = "/r\\u007f😀"\n'
    )
    setup.apply()
    assert registered(setup, 2)["options"] == {
        "BinaryName": str(setup.launcher),
        "SystemdCgroup": True,
        "Root": "/r\x7f😀",
    }


def test_what_came_after_stays(setup: ContainerdSetup) -> None:
    setup.config.parent.mkdir()
    setup.config.write_text(DEBIAN)
    setup.apply()
    setup.config.write_text(setup.config.read_text() + "[debug]\n  level = 'debug'\n")
    assert setup.apply() == []
    assert registered(setup, 2)
    setup.undo()
    assert setup.config.read_text() == DEBIAN + "[debug]\n  level = 'debug'\n"


def test_a_dry_run_says_the_same_and_does_nothing(setup: ContainerdSetup) -> None:
    said = setup.apply(dry_run=True)
    assert not setup.config.exists()
    assert not setup.launcher.exists()
    assert setup.apply() == said
    said = setup.undo(dry_run=True)
    assert setup.config.exists()
    assert setup.undo() == said


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("version = 1\n", "containerd-config-version"),
        ("root = '/x'\n", "containerd-config-version"),
        ("version = 4\n", "containerd-config-version"),
        ("version = 2\ndisabled_plugins = ['cri']\n", "containerd-cri-disabled"),
        ("version = \n", "containerd-config-toml"),
        ('version = 2\nplugins = {"io.containerd.grpc.v1.cri" = {}}\n', "containerd-config-toml"),
        (
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.credspec]\n',
            "containerd-runtime-taken",
        ),
    ],
)
def test_files_that_are_left_as_they_are(setup: ContainerdSetup, text: str, code: str) -> None:
    setup.config.parent.mkdir()
    setup.config.write_text(text)
    with pytest.raises(UsageError, match=code):
        setup.apply()
    assert setup.config.read_text() == text
    assert not setup.launcher.exists()


def test_bytes_that_are_no_text(setup: ContainerdSetup) -> None:
    setup.config.parent.mkdir()
    setup.config.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="containerd-config-toml"):
        setup.apply()


@pytest.mark.parametrize("handler", ["", "a b", "A", "x" * 64, 'a"]\n[b', "-a"])
def test_handlers_that_are_none(tmp_path: Path, handler: str) -> None:
    setup = ContainerdSetup(
        run_directory=tmp_path, config=tmp_path / "c", launcher_directory=tmp_path, handler=handler
    )
    with pytest.raises(UsageError, match="containerd-handler"):
        setup.apply()


def test_the_default_runtime_is_nobodys_handler(tmp_path: Path) -> None:
    setup = ContainerdSetup(
        run_directory=tmp_path, config=tmp_path / "c", launcher_directory=tmp_path, handler="runc"
    )
    with pytest.raises(UsageError, match="containerd-runtime-taken"):
        setup.apply()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=30))
def test_any_path_of_the_launcher(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    directory = tmp_path_factory.mktemp("setup")
    setup = ContainerdSetup(
        run_directory=directory,
        config=directory / "config.toml",
        launcher_directory=directory / (name.replace("/", "_").strip(".") or "x"),
    )
    try:
        text = setup._with_block("")
    except UsageError:
        return
    added = tomllib.loads(text)["plugins"][CRI[2]]["containerd"]["runtimes"]["credspec"]
    assert added["options"]["BinaryName"] == str(setup.launcher)


def is_handed_on(name: str) -> bool:
    """Whether containerd gives an annotation to the runtime (by Go's path.Match)."""
    return any(go_path_match(pattern, name) for pattern in containerd_setup._ANNOTATIONS)


def go_path_match(pattern: str, name: str) -> bool:
    # What * stands for stops at a slash; the rest is as in regular expressions.
    return re.fullmatch(pattern.replace(".", r"\.").replace("*", "[^/]*"), name) is not None


@given(st.sampled_from(ANNOTATIONS).flatmap(spellings))
def test_an_annotation_in_another_spelling_reaches_the_shim(name: str) -> None:
    assert is_handed_on(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("credspec.dev/spec", True),
        ("credspec.dev/specs", True),
        ("CredSpec.dev/spec", True),
        # These mean something to a runtime, and a pod's author must not say them.
        ("run.oci.handler", False),
        ("org.systemd.property.CPUQuota", False),
        ("container.apparmor.security.beta.kubernetes.io/web", False),
        ("cri-o.io/seccompNotifierAction", False),
    ],
)
def test_other_annotations_do_not(name: str, expected: bool) -> None:
    assert is_handed_on(name) == expected
