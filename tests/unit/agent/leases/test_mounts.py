from __future__ import annotations

from pathlib import Path

from credspec.agent.leases.mounts import mounted_below


def listed(*points: str) -> str:
    """As proc_pid_mountinfo(5) lists mounts."""
    return "".join(f"36 35 98:0 / {point} rw,noatime shared:1 - tmpfs x rw\n" for point in points)


def test_what_is_mounted_in_a_directory(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    leases = tmp_path / "a b"
    leases.mkdir()
    (tmp_path / "link").symlink_to(leases)
    own = str(leases).replace(" ", "\\040")
    mounts.write_text(listed("/", own, f"{own}/one", f"{own}/two", f"{own}-not/three"))
    assert mounted_below(leases, mounts=mounts) == {"one", "two"}
    assert mounted_below(tmp_path / "link", mounts=mounts) == {"one", "two"}
    assert mounted_below(leases, tmp_path / "other", mounts=mounts) == {"one", "two"}


def test_the_list_of_this_machine() -> None:
    assert "proc" in mounted_below(Path("/"))
