import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError, InvalidSpecError
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.reference import SpecReference
from credspec.spec.spec_directory import SpecDirectory, load

SAMPLE = Path(__file__).parent / "samples" / "powershell_7.json"


@pytest.fixture
def directory(tmp_path: Path) -> SpecDirectory:
    path = tmp_path / "specs"
    path.mkdir()
    (path / "www.json").write_bytes(SAMPLE.read_bytes())
    (path / "sub").mkdir()
    (path / "sub" / "a.json").write_bytes(b"a")
    (tmp_path / "specsX").mkdir()
    (tmp_path / "specsX" / "secret").write_bytes(b"secret")
    return SpecDirectory(path)


def files_in(directory: SpecDirectory) -> list[str]:
    return sorted(path.name for path in directory.path.iterdir())


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    with pytest.raises(CredspecError) as caught:
        yield
    assert caught.value.code == code
    assert text in str(caught.value)


def test_reads_files_and_those_in_subdirectories(directory: SpecDirectory) -> None:
    assert directory.read("www.json") == SAMPLE.read_bytes()
    assert directory.read("sub/a.json") == b"a"
    assert directory.read("./sub//../sub/a.json") == b"a"


def test_paths_as_windows_writes_them(directory: SpecDirectory) -> None:
    assert directory.read(".\\www.json") == SAMPLE.read_bytes()
    assert directory.read("sub\\a.json") == b"a"
    assert directory.read("sub\\..\\www.json") == SAMPLE.read_bytes()


@pytest.mark.parametrize(
    ("name", "meant"), [("WWW.JSON", "www.json"), ("sub\\A.json", "sub/a.json")]
)
def test_a_file_whose_name_differs_by_letter_case(
    directory: SpecDirectory, name: str, meant: str
) -> None:
    with refused("spec-file-unreadable", f"did you mean file://{meant}?"):
        directory.read(name)


@pytest.mark.parametrize(
    "name",
    ["www", "www.json.", "www.json ", "'www.json'", "www%2ejson", "www.json\r", "WWW"],
)
def test_a_file_whose_name_is_nearly_there(directory: SpecDirectory, name: str) -> None:
    with refused("spec-file-unreadable", "did you mean file://www.json?"):
        directory.read(name)


@pytest.mark.parametrize("name", ["SUB\\a.json", "Sub/A.JSON", "sUb/./a", ".\\SUB\\a.json"])
def test_directories_whose_names_differ_by_letter_case(directory: SpecDirectory, name: str) -> None:
    with refused("spec-file-unreadable", "did you mean file://sub/a.json?"):
        directory.read(name)


def test_nothing_else_is_suggested(directory: SpecDirectory) -> None:
    for name in ("other.json", "SUB/other.json", "SUB/..", "nothing/www.json"):
        with pytest.raises(CredspecError) as caught:
            directory.read(name)
        assert "did you mean" not in str(caught.value)


def test_an_absolute_path_gets_its_name_as_remedy(directory: SpecDirectory) -> None:
    for name in ("C:\\ProgramData\\docker\\CredentialSpecs\\web.json", "/x/web.json", "c:web.json"):
        with refused("spec-path-absolute", "such as file://web.json"):
            directory.read(name)
    with pytest.raises(CredspecError) as caught:
        directory.read('/{"PluginInput": "a/hunter2"}')
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "//etc/passwd", "c:\\blah.txt", "C:/x", "c:x", "\\x", "\\\\host\\s\\x"]
)
def test_absolute_paths(directory: SpecDirectory, name: str) -> None:
    with refused("spec-path-absolute", "invalid credential spec: file:// path cannot be absolute"):
        directory.read(name)


@pytest.mark.parametrize(
    "name",
    ["..", "../specsX/secret", "sub/../../specsX/secret", "..\\specsX\\secret", "sub\\..\\..\\a"],
)
def test_paths_that_leave_the_directory(directory: SpecDirectory, name: str) -> None:
    text = f"invalid credential spec: file:// path must be under {directory.path}"
    with refused("spec-path-outside", text):
        directory.read(name)


def test_missing_file_in_the_words_of_the_daemon(directory: SpecDirectory) -> None:
    text = f"failed to load credential spec: open {directory.path}/no.json: no such file"
    with refused("spec-file-unreadable", text):
        directory.read("no.json")


def test_missing_directory(tmp_path: Path) -> None:
    with refused("spec-file-unreadable", "no such file or directory"):
        SpecDirectory(tmp_path / "none").read("www.json")
    with refused("spec-directory-missing", "Credential spec directory does not exist: "):
        SpecDirectory(tmp_path / "none").names()


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300, "www.json/x"])
def test_names_no_file_can_have(directory: SpecDirectory, name: str) -> None:
    with refused("spec-file-unreadable"):
        directory.read(name)


def test_links_are_refused(directory: SpecDirectory) -> None:
    (directory.path / "link.json").symlink_to("www.json")
    (directory.path / "out").symlink_to("../specsX")
    for name in ("link.json", "out/secret"):
        with refused("spec-path-link", "symbolic links are not followed"):
            directory.read(name)


def test_the_directory_itself_may_be_a_link(directory: SpecDirectory, tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to(directory.path)
    assert SpecDirectory(tmp_path / "etc").read("sub/a.json") == b"a"


@pytest.mark.parametrize("name", ["", ".", "sub", "fifo", "socket"])
def test_only_regular_files_are_read(
    directory: SpecDirectory, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(directory.path / "fifo")
    monkeypatch.chdir(directory.path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(InvalidSpecError, match="failed to load credential spec: open "):
            directory.read(name)


def test_size_limit_is_inclusive(directory: SpecDirectory) -> None:
    file = directory.path / "large"
    file.write_bytes(b"x" * MAX_SPEC_BYTES)
    assert len(directory.read("large")) == MAX_SPEC_BYTES
    file.write_bytes(b"x" * (MAX_SPEC_BYTES + 1))
    with refused("spec-too-large"):
        directory.read("large")


def test_no_descriptor_is_left_open(directory: SpecDirectory) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("www.json", "sub/a.json", "sub/no", "no/no", "sub"):
        try:
            directory.read(name)
        except InvalidSpecError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_names_are_those_of_files(directory: SpecDirectory) -> None:
    (directory.path / "b.txt").write_bytes(b"")
    (directory.path / "link").symlink_to("www.json")
    (directory.path / ".credspec-0123").write_bytes(b"half")
    assert directory.names() == ["b.txt", "www.json"]


def test_writes_and_replaces(directory: SpecDirectory) -> None:
    mask = os.umask(0o077)
    try:
        written = directory.write("new.json", "é")
    finally:
        os.umask(mask)
    assert written == directory.path / "new.json"
    assert written.read_bytes() == "é".encode()
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    directory.write("sub/a.json", "b")
    assert directory.read("sub/a.json") == b"b"


def test_no_clobber_keeps_the_file(directory: SpecDirectory) -> None:
    assert directory.write("new.json", "1", no_clobber=True).read_text() == "1"
    with refused("spec-exists", 'already exists with the name "new.json"'):
        directory.write("new.json", "2", no_clobber=True)
    assert directory.read("new.json") == b"1"
    assert files_in(directory) == ["new.json", "sub", "www.json"]


def test_a_link_is_replaced_not_followed(directory: SpecDirectory, tmp_path: Path) -> None:
    (directory.path / "link.json").symlink_to("../specsX/secret")
    directory.write("link.json", "new")
    assert not (directory.path / "link.json").is_symlink()
    assert (tmp_path / "specsX" / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("/x.json", "", "spec-path-absolute"),
        ("../x.json", "", "spec-path-outside"),
        ("a\\x.json", "", "spec-path-outside"),
        ("no/x.json", "", "spec-file-unwritable"),
        ("sub", "", "spec-file-unwritable"),
        ("a\0", "", "spec-file-unwritable"),
        ("x.json", "\ud800", "spec-encoding"),
        ("x.json", "x" * (MAX_SPEC_BYTES + 1), "spec-too-large"),
    ],
)
def test_a_refused_write_leaves_nothing(
    directory: SpecDirectory, name: str, text: str, code: str
) -> None:
    before = sorted(directory.path.rglob("*"))
    with refused(code):
        directory.write(name, text)
    assert sorted(directory.path.rglob("*")) == before


def test_a_failed_write_keeps_the_old_file(
    directory: SpecDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with refused("spec-file-unwritable", "no space left on device"):
        directory.write("www.json", "new")
    assert directory.read("www.json") == SAMPLE.read_bytes()
    assert files_in(directory) == ["sub", "www.json"]


def test_load(directory: SpecDirectory) -> None:
    spec = load(SpecReference("file", "www.json"), directory)
    assert load(SpecReference("raw", spec.to_text(compact=True)), directory) == spec
    with refused("spec-reference-registry"):
        load(SpecReference("registry", "x"), directory)
    with refused("spec-reference-invalid"):
        load(SpecReference("config", "x"), directory)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet="ab./\\:\0~ ") | st.text() | st.sampled_from(["sub/", "specsX/secret"]))
def test_no_name_reads_outside(directory: SpecDirectory, name: str) -> None:
    for value in (name, f"sub/../{name}", f"../{name}"):
        try:
            assert directory.read(value) != b"secret"
        except InvalidSpecError:
            continue


@pytest.fixture
def trusted(tmp_path: Path) -> SpecDirectory:
    directory = tmp_path / "trusted"
    (directory / "below").mkdir(parents=True, mode=0o755)
    for name in ("a.json", "below/b.json"):
        (directory / name).write_text("{}")
        (directory / name).chmod(0o644)
    return SpecDirectory(directory, trusted=True)


def test_what_only_its_owner_writes_is_trusted(trusted: SpecDirectory) -> None:
    assert trusted.read("a.json") == trusted.read("below/b.json") == b"{}"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
@pytest.mark.parametrize("name", ["a.json", "below", ".", ".."])
def test_what_others_may_write_is_not_trusted(trusted: SpecDirectory, name: str, mode: int) -> None:
    path = trusted.path / name
    path.chmod(mode | (0o111 if path.is_dir() else 0))
    with pytest.raises(InvalidSpecError, match="spec-not-trusted"):
        trusted.read("a.json" if name == "a.json" else "below/b.json")
    # For a user's own commands it makes no difference.
    assert SpecDirectory(trusted.path).read("a.json") == b"{}"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", ["a.json", "below", ".", ".."])
def test_what_another_user_owns_is_not_trusted(trusted: SpecDirectory, name: str) -> None:
    os.chown(trusted.path / name, 65534, 65534)
    with pytest.raises(InvalidSpecError, match="spec-not-trusted"):
        trusted.read("a.json" if name == "a.json" else "below/b.json")
    assert SpecDirectory(trusted.path).read("a.json") == b"{}"


def test_a_sticky_directory_above_is_fine(trusted: SpecDirectory) -> None:
    trusted.path.parent.chmod(0o1777)
    assert trusted.read("a.json") == b"{}"
