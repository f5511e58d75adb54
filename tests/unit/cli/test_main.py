from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from credspec.cli.main import _COMMANDS, missing_package
from credspec.errors import CredspecError, ExitStatus, InvalidSpecError, Problem

BIN = Path(sys.executable).parent


def credspec(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "credspec"), *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    [[name] for name in sorted(_COMMANDS)]
    + [["lab", name] for name in ("up", "down", "status", "env", "exec")]
    + [["setup", "docker"], ["setup", "agent", "docker"], ["lab", "account", "add"]],
)
def test_help_shows_an_example(command: list[str]) -> None:
    shown = credspec(*command, "--help")
    assert shown.returncode == 0
    assert "Example" in shown.stdout


def test_help_of_the_whole_imports_no_command() -> None:
    code = (
        "import sys; from credspec.cli.main import credspec\n"
        "try: credspec(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('credspec.', 'krb5', 'ctypes', 'aiohttp')\n"
        "print(*(m for m in sys.modules if m.startswith(heavy)), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(shown.stderr.split()) == {
        "credspec.errors",
        "credspec.cli",
        "credspec.cli.main",
        "credspec.cli.help_text",
    }


def test_a_wrong_command_line() -> None:
    assert credspec("nonsense").returncode == ExitStatus.USAGE
    assert credspec("new").returncode == ExitStatus.USAGE


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ('log_format = "json"\n', 0, "The configuration is valid.\n"),
        ('log_frmat = "json"\n', 2, "[config-unknown-key]"),
        ('log_format = "jsn"\n', 2, "[config-wrong-value]"),
        ("log_format = json\n", 2, "[config-not-toml]"),
    ],
)
def test_the_agents_configuration_is_checked_without_a_start(
    tmp_path: Path, text: str, status: int, said: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'run_directory = "{tmp_path}/run"\n{text}')
    done = credspec("agent", "--check", "--config", str(path))
    assert done.returncode == status
    assert (done.stdout if status == 0 else done.stderr).rstrip("\n").endswith(said.rstrip())
    assert not (tmp_path / "run").exists()


def test_no_agent(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'run_directory = "{tmp_path}"\n')
    shown = subprocess.run(
        ["env", f"CREDSPEC_CONFIG={tmp_path}/config.toml", str(BIN / "credspec"), "status"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == ExitStatus.AGENT_UNREACHABLE
    assert shown.stderr.startswith("credspec: ")
    assert shown.stderr.rstrip().endswith("[agent-unreachable]")


def test_errors_survive_the_wire_and_hostile_text() -> None:
    error = InvalidSpecError(
        Problem(code="a", found="bad\n\x1b[31mred", where="/x", expected="good", remedy="mend it"),
        Problem(code="b", found="worse"),
    )
    again = CredspecError.from_json(error.to_json())
    assert type(again) is InvalidSpecError
    assert again.problems == error.problems
    assert str(again).count("\n") == 1
    assert "\x1b" not in str(again)
    assert str(again).endswith("worse [b]")


@pytest.mark.parametrize("document", [{}, {"problems": "x"}, {"title": 7, "problems": [1]}])
def test_answers_that_are_no_problem_documents(document: dict) -> None:
    assert CredspecError.from_json(document).problems


@pytest.mark.parametrize("typed", ["stauts", "lnit", "covnert"])
def test_a_mistyped_command_gets_a_suggestion(typed: str) -> None:
    shown = credspec(typed)
    assert shown.returncode == ExitStatus.USAGE
    assert "Did you mean" in shown.stderr


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['krb5'] = None\n")
    for command in (["credspec", "new", "WebApp01"], ["New-CredentialSpec", "WebApp01"]):
        shown = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == ExitStatus.OTHER
        (line,) = shown.stderr.splitlines()
        assert "needs the Python package krb5" in line
        assert line.endswith("[package-missing]")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("C:\\MyFolder\\my_gmsa_creds.json", "path-of-windows"),
        ("\\\\server\\share\\x.json", "path-of-windows"),
        ("c:x.json", "path-of-windows"),
        ("/", "path-is-directory"),
    ],
)
def test_paths_that_are_no_file_of_this_machine(path: str, code: str) -> None:
    shown = subprocess.run(
        [str(BIN / "New-CredentialSpec"), "-AccountName", "WebApp01", "-Path", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == ExitStatus.USAGE
    (line,) = shown.stderr.splitlines()
    assert line.endswith(f"[{code}]")


def test_a_directory_without_specs_is_not_passed_as_well(tmp_path: Path) -> None:
    shown = credspec("lint", str(tmp_path))
    assert (shown.returncode, shown.stdout) == (ExitStatus.USAGE, "")
    assert shown.stderr.endswith("[lint-no-file]\n")


def test_what_a_terminal_cannot_show_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"CmsPlugins": ["é"], "\\u2028": 1}', "utf-8")
    for command in ("lint", "show"):
        shown = subprocess.run(
            [str(BIN / "credspec"), command, str(tmp_path / "x.json"), "--help"][:3],
            env={"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.returncode == ExitStatus.INVALID_SPEC
        assert "Traceback" not in shown.stderr


def test_users_who_may_not_open_dockerds_socket_still_get_explanations(tmp_path: Path) -> None:
    closed = tmp_path / "docker.sock"
    closed.touch(mode=0)
    as_nobody = ["setpriv", "--reuid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    check = "from credspec.cli.check import check; "
    check += f"check(['--docker-socket', {str(closed)!r}, '--explain', '1311'])"
    options = (
        ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"] if as_nobody else []
    )
    shown = subprocess.run(
        [*as_nobody, *options, sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout.startswith("1311")


def test_warnings_that_count_as_errors_are_said_to(tmp_path: Path) -> None:
    document = (
        '{"CmsPlugins": ["ActiveDirectory"], "DomainJoinConfig": {"Sid": "S-1-5-21-1-2-3", '
        '"MachineAccountName": "WebApp01", "Guid": "244818ae-87ac-4fcd-92ec-e79e5252348a", '
        '"DnsTreeName": "contoso.com", "DnsName": "contoso.com", "NetBiosName": "CONTOSO"}, '
        '"ActiveDirectoryConfig": {"GroupManagedServiceAccounts": [{"Name": "Other01", '
        '"Scope": "contoso.com"}]}}'
    )
    (tmp_path / "x.json").write_text(document)
    shown = credspec("lint", "--strict", str(tmp_path / "x.json"))
    assert shown.returncode == ExitStatus.INVALID_SPEC
    assert "0 error(s)" in shown.stderr
    assert "warnings count as errors" in shown.stderr


@pytest.mark.parametrize("form", ["docker-run", "compose", "oci"])
def test_documents_that_hosts_refuse_are_warned_of(tmp_path: Path, form: str) -> None:
    spec = tmp_path / "x.json"
    spec.write_text(
        (Path(__file__).parents[1] / "spec/samples/host_rancher.json").read_text("utf-8")
    )
    command = ["convert", str(spec), "--to", form]
    assert "[policy-spec-source]" in credspec(*command).stderr
    assert credspec(*command, "--reference", "file://x.json").stderr == ""


def test_an_account_provider_without_configuration_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "config.toml").touch()
    shown = credspec("account-provider", "--check", "--config", str(tmp_path / "config.toml"))
    assert shown.returncode == ExitStatus.USAGE
    assert shown.stderr.endswith("[account-provider-missing]\n")


@pytest.mark.parametrize("name", ["A b", "lab_1", "-x"])
def test_names_of_labs_are_described_in_words(name: str) -> None:
    shown = credspec("lab", "env", f"--name={name}")
    assert "such as lab1 [lab-name-invalid]" in shown.stderr
    assert "(?:" not in shown.stderr


@pytest.mark.parametrize(("package", "extra"), [("boto3", "aws"), ("grpc", "grpc"), ("x", "host")])
def test_the_extra_of_a_missing_package(package: str, extra: str) -> None:
    text = missing_package(ModuleNotFoundError(name=f"{package}.part"))
    assert f"pip install 'credspec[{extra}]'" in text
