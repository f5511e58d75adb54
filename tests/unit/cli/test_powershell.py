import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from credspec.cli import powershell
from credspec.cli.new import NewSpecRequest
from credspec.errors import UnreachableError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[NewSpecRequest]:
    """Collect what would have been made."""
    made: list[NewSpecRequest] = []

    def make(request: NewSpecRequest) -> Path:
        made.append(request)
        return Path("/etc/specs/contoso_webapp01.json")

    monkeypatch.setattr(powershell, "make_credential_spec", make)
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    # The entry points set libldap's variables; take them back afterwards.
    for name in ("LDAPSASL_NOCANON", "LDAPSASL_CBINDING"):
        monkeypatch.setenv(name, "")

    def command(entry: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        with pytest.raises(SystemExit) as caught:
            entry()
        output = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, output.out, output.err

    return command


def test_new_passes_everything_on_and_prints_a_table(
    run: Run, requests: list[NewSpecRequest]
) -> None:
    outcome = run(
        powershell.new_credential_spec,
        *("WebApp01", "-Name", "www", "-Domain", "contoso.com", "-NoClobber"),
        *("-AdditionalAccounts", "Log01,", "@{AccountName='Sql';", "Domain='emea.contoso.com'}"),
    )
    assert outcome == (
        0,
        (
            "\nName                  Path\n"
            "----                  ----\n"
            "contoso_webapp01.json /etc/specs/contoso_webapp01.json\n\n"
        ),
        "",
    )
    assert requests == [
        NewSpecRequest(
            account_name="WebApp01",
            file_name="www",
            domain="contoso.com",
            additional_accounts=(("Log01", None), ("Sql", "emea.contoso.com")),
            no_clobber=True,
        )
    ]


def test_new_with_the_least(run: Run, requests: list[NewSpecRequest]) -> None:
    run(powershell.new_credential_spec, "-AccountName", "WebApp01", "-Path", "./www.json")
    assert requests == [NewSpecRequest(account_name="WebApp01", path="./www.json")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ((), "missing mandatory parameters: AccountName. [powershell-missing]"),
        (("a", "-Foo"), "matches parameter name 'Foo'. [powershell-unknown]"),
        (
            ("a", "-Path", "x", "-FileName", "y"),
            "Parameter set cannot be resolved using the specified named parameters.",
        ),
        (
            ("a", "-AdditionalAccounts", "@{AccountName='x'}"),
            (
                "Invalid additional account specified: @{accountname=x}; expected a samAccountName "
                "or a hashtable containing AccountName and Domain keys"
            ),
        ),
    ],
)
def test_new_refuses_before_anything_is_made(
    run: Run, requests: list[NewSpecRequest], line: tuple[str, ...], text: str
) -> None:
    status, out, err = run(powershell.new_credential_spec, *line)
    assert (status, out, requests) == (2, "", [])
    assert err.startswith("New-CredentialSpec: ")
    assert text in err
    assert err.count("\n") == 1


def test_status_is_that_of_the_class_of_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: NewSpecRequest) -> Path:
        raise UnreachableError.of("no-dc", "no domain controller")

    monkeypatch.setattr(powershell, "make_credential_spec", fail)
    outcome = run(powershell.new_credential_spec, "WebApp01")
    assert outcome == (4, "", "New-CredentialSpec: no domain controller [no-dc]\n")


@pytest.mark.parametrize("flag", ["-?", "-h", "--help", "-Help"])
def test_help_has_examples(run: Run, flag: str) -> None:
    for entry, name in (
        (powershell.new_credential_spec, "New-CredentialSpec"),
        (powershell.get_credential_spec, "Get-CredentialSpec"),
    ):
        status, out, err = run(entry, flag)
        assert (status, err) == (0, "")
        assert out.startswith(name)
        assert "Example" in out


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "specs"
    directory.mkdir()
    configuration = tmp_path / "config.toml"
    configuration.write_text(f'spec_directory = "{directory}"\n')
    monkeypatch.setenv("CREDSPEC_CONFIG", str(configuration))
    return directory


def test_get_lists_files(run: Run, specs: Path) -> None:
    (specs / "b.json").touch()
    (specs / "a.txt").touch()
    (specs / "sub").mkdir()
    assert run(powershell.get_credential_spec) == (
        0,
        f"\nName   Path\n----   ----\na.txt  {specs}/a.txt\nb.json {specs}/b.json\n\n",
        "",
    )


def test_get_prints_nothing_for_an_empty_directory(run: Run, specs: Path) -> None:
    assert list(specs.iterdir()) == []
    assert run(powershell.get_credential_spec) == (0, "", "")


def test_get_survives_any_file_name(run: Run, specs: Path) -> None:
    (specs / "a\udcff\x1b[2J\n.json").touch()
    status, out, _ = run(powershell.get_credential_spec)
    assert status == 0
    assert "a??[2J?.json" in out


def test_get_names_a_missing_directory(run: Run, specs: Path) -> None:
    specs.rmdir()
    status, out, err = run(powershell.get_credential_spec)
    assert (status, out) == (1, "")
    assert f"Get-CredentialSpec: Credential spec directory does not exist: {specs}" in err


def test_get_has_no_parameters(run: Run) -> None:
    status, _, err = run(powershell.get_credential_spec, "x")
    assert status == 2
    assert "A positional parameter cannot be found that accepts argument 'x'." in err


@pytest.mark.parametrize(
    "line",
    [
        ("WebApp01", "-Verbose", "-ErrorAction", "Stop"),
        ("WebApp01", "-vb", "-ea:stop", "-OutVariable", "made"),
        ("WebApp01", "-Debug:$false", "-WarningAction", "Ignore", "-Verb"),
    ],
)
def test_common_parameters(run: Run, requests: list[NewSpecRequest], line: tuple[str, ...]) -> None:
    status, _, errors = run(powershell.new_credential_spec, *line)
    assert status == 0
    assert errors.startswith("VERBOSE: ")
    assert requests == [NewSpecRequest(account_name="WebApp01")]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (("WebApp01", "-ErrorAction", "Explode"), "powershell-argument-invalid"),
        (("WebApp01", "-D", "x"), "powershell-ambiguous"),
        (("WebApp01", "-WhatIf"), "powershell-unknown"),
    ],
)
def test_common_parameters_are_checked(run: Run, line: tuple[str, ...], code: str) -> None:
    status, _, errors = run(powershell.new_credential_spec, *line)
    assert (status, code in errors) == (2, True)


def test_errors_may_be_silenced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(_: NewSpecRequest) -> Path:
        raise UnreachableError.of("dns-unreachable", "no name server answers")

    monkeypatch.setattr(powershell, "make_credential_spec", make)
    silent = ("WebApp01", "-ErrorAction", "SilentlyContinue")
    assert run(powershell.new_credential_spec, *silent) == (4, "", "")


def test_get_takes_common_parameters(run: Run, specs: Path) -> None:
    del specs
    assert run(powershell.get_credential_spec, "-Verbose", "-ea", "Stop")[0] == 0
