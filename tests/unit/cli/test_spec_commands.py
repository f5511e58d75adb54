"""``credspec lint``, ``list``, ``show``, ``schema`` and ``convert``, run as a user runs them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import MAX_SPEC_BYTES
from credspec.spec.validation import schema_text

BIN = Path(sys.executable).parent
SPEC = Path(__file__).parents[1] / "spec"
GOLDEN = SPEC / "golden"
SAMPLES = SPEC / "samples"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run credspec in an empty directory, with a spec directory beside it."""
    (tmp_path / "specs").mkdir()
    (tmp_path / "work").mkdir()
    config = tmp_path / "config.toml"
    config.write_text(f'spec_directory = "{tmp_path}/specs"\n')

    def command(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        shown = subprocess.run(
            [str(BIN / "credspec"), *arguments],
            cwd=tmp_path / "work",
            env=os.environ | {"CREDSPEC_CONFIG": str(config)},
            input=given,
            capture_output=True,
            check=False,
        )
        assert b"Traceback" not in shown.stderr
        return subprocess.CompletedProcess(
            shown.args, shown.returncode, shown.stdout.decode(), shown.stderr.decode()
        )

    return command


@pytest.fixture
def work(run: Run, tmp_path: Path) -> Path:
    del run
    return tmp_path / "work"


def put(path: Path, sample: str) -> Path:
    path.write_bytes((SAMPLES / f"{sample}.json").read_bytes())
    return path


def test_lint_of_a_good_file_is_quiet(run: Run, work: Path) -> None:
    put(work / "www.json", "windows_powershell_5")
    shown = run("lint", "www.json")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")


def test_warnings_are_printed_and_are_no_failure(run: Run, work: Path) -> None:
    put(work / "www.json", "account_sid")
    shown = run("lint", "www.json")
    assert shown.returncode == 0
    assert shown.stdout.startswith("www.json:6:5: warning: /DomainJoinConfig/Sid: ")
    assert shown.stdout.endswith("[lint-sid-of-account]\n")
    assert shown.stderr == "0 error(s), 1 warning(s)\n"
    assert run("lint", "--strict", "www.json").returncode == 3


def test_an_error_is_a_failure(run: Run, work: Path) -> None:
    (work / "bad.json").write_text('{"CmsPlugins": 5,\n "DomainJoinConfig": {}}')
    shown = run("lint", "bad.json")
    assert shown.returncode == 3
    assert "bad.json:1:2: error: /CmsPlugins: a number (5); expected an array" in shown.stdout
    assert "bad.json:1:1: error: /ActiveDirectoryConfig: missing [spec-fi" in shown.stdout
    assert "bad.json:2:2: error: /DomainJoinConfig/DnsName: missing" in shown.stdout


def test_the_way_without_click_prints_the_same(run: Run, work: Path) -> None:
    """Plain paths take a faster way in: what is printed must not tell which."""
    for sample in ("account_sid", "duplicate_scopes", "utf_16_le"):
        put(work / f"{sample}.json", sample)
    (work / "bad.json").write_text("{")
    fast, whole = run("lint", "."), run("lint", "--output", "text", ".")
    assert (fast.returncode, fast.stdout, fast.stderr) == (
        whole.returncode,
        whole.stdout,
        whole.stderr,
    )
    for arguments in (["none.json"], ["a\nb"]):
        fast, whole = run("lint", *arguments), run("lint", "--output=text", *arguments)
        assert (fast.returncode, fast.stderr) == (whole.returncode, whole.stderr) != (0, "")


def test_a_directory_means_its_json_files(run: Run, work: Path) -> None:
    put(work / "a.json", "single_entry")
    put(work / "b.json", "account_sid")
    (work / "c.txt").write_text("{")
    shown = run("lint", "--output", "json", ".")
    files = json.loads(shown.stdout)["files"]
    assert [(file["file"], len(file["findings"])) for file in files] == [
        ("a.json", 1),
        ("b.json", 1),
    ]
    assert files[0]["findings"][0]["fixable"] is True


def test_lint_reads_standard_input(run: Run) -> None:
    shown = run("lint", "-", given=b"\xff\xfe\x00\xd8")
    assert shown.returncode == 3
    assert shown.stdout.startswith("-: error: ")
    assert run("lint", "-", given=b" " * 10 * MAX_SPEC_BYTES).stdout.endswith("[spec-too-large]\n")


def test_lint_of_kubernetes_yaml(run: Run, work: Path) -> None:
    (work / "www.yaml").write_text((GOLDEN / "convert_kubernetes.yaml").read_text())
    assert run("lint", "www.yaml").returncode == 0
    (work / "bad.yaml").write_text("kind: GMSACredentialSpec\ncredspec: {CmsPlugins: &x [a]}\n")
    shown = run("lint", "bad.yaml")
    assert (shown.returncode, "line 2 column 24" in shown.stdout) == (3, True)


@pytest.mark.parametrize("name", ["none.json", "a\nb", "x" * 5000])
def test_lint_of_nothing(run: Run, name: str) -> None:
    shown = run("lint", name)
    assert shown.returncode == 2
    assert shown.stderr.endswith("[lint-no-file]\n")
    assert shown.stderr.count("\n") == 1


def test_names_of_files_cannot_forge_output(run: Run, work: Path) -> None:
    (work / "a\x1b[31m\nerror: x.json").write_text("{")
    assert "\x1b" not in run("lint", ".").stdout


def test_fix_mends_the_file_and_tells_how(run: Run, work: Path) -> None:
    path = put(work / "www.json", "single_entry")
    path.chmod(0o640)
    (work / "link.json").symlink_to("www.json")
    shown = run("lint", "--fix", "link.json")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr == "link.json: added an entry of webapp01 with scope CONTOSO\n"
    assert (work / "link.json").is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.read_text() == (GOLDEN / "plain.json").read_text()
    assert sorted(entry.name for entry in work.iterdir()) == ["link.json", "www.json"]
    before = path.stat().st_mtime_ns
    assert run("lint", "--fix", "www.json").stderr == ""
    assert path.stat().st_mtime_ns == before


def test_fix_of_standard_input(run: Run) -> None:
    given = (SAMPLES / "single_entry.json").read_bytes()
    shown = run("lint", "--fix", "-", given=given)
    assert shown.stdout == (GOLDEN / "plain.json").read_text()


def test_fix_leaves_alone_what_it_cannot_mend(run: Run, work: Path) -> None:
    (work / "twice.json").write_text('{"CmsPlugins": [], "CmsPlugins": []}')
    assert run("lint", "--fix", "twice.json").returncode == 3
    assert (work / "twice.json").read_text() == '{"CmsPlugins": [], "CmsPlugins": []}'


def test_the_sarif_log(run: Run, work: Path) -> None:
    put(work / "a b.json", "netbios_as_dns_name")
    (work / "bad.json").write_text("{,}")
    shown = run("lint", "--output", "sarif", ".")
    log = json.loads(shown.stdout)
    log["runs"][0]["tool"]["driver"]["version"] = "0"
    assert log == json.loads((GOLDEN / "lint.sarif").read_text())
    rules = {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    assert {result["ruleId"] for result in log["runs"][0]["results"]} == rules


def test_schema(run: Run) -> None:
    assert run("schema").stdout == schema_text()


def test_list(run: Run, tmp_path: Path) -> None:
    assert run("list").stdout == ""
    put(tmp_path / "specs/good.json", "windows_powershell_5")
    put(tmp_path / "specs/warned.json", "account_sid")
    (tmp_path / "specs/bad.json").write_text("{")
    lines = run("list").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["NAME", "DOMAIN", "ACCOUNTS", "STATE"],
        ["bad.json", "-", "-", "1", "error(s)"],
        ["good.json", "contoso.com", "webapp01", "ok"],
        ["warned.json", "contoso.com", "webapp01", "1", "warning(s)"],
    ]
    rows = json.loads(run("list", "--output", "json").stdout)["specs"]
    assert rows[0]["error"].startswith("line 1 column 2: not JSON")
    assert rows[1]["accounts"] == ["webapp01"]


def test_list_without_a_directory(run: Run, tmp_path: Path) -> None:
    (tmp_path / "specs").rmdir()
    shown = run("list")
    assert (shown.returncode, "[spec-directory-missing]" in shown.stderr) == (1, True)


def test_show_keeps_secrets(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "specs/www.json", "host_not_hexadecimal")
    document = json.loads((SAMPLES / "host_not_hexadecimal.json").read_text())
    secret = document["ActiveDirectoryConfig"]["HostAccountConfig"]["PluginInput"]
    for arguments in (["www"], ["file://www.json"], ["www", "--output", "json"]):
        shown = run("show", *arguments)
        assert shown.returncode == 0
        assert "contoso.com" in shown.stdout
        assert secret not in shown.stdout
        assert secret in run("show", *arguments, "--show-secrets").stdout


def test_show_for_people(run: Run, work: Path) -> None:
    put(work / "www.json", "host_rancher")
    shown = run("show", "www.json").stdout
    assert "Domain:          contoso.com (CONTOSO)\n" in shown
    assert "Account:         webapp01 (contoso.com, CONTOSO)\n" in shown
    assert "Host account:    Rancher account provider {e4781092-" in shown


@pytest.mark.parametrize("command", [["show"], ["convert", "--to", "raw"]])
def test_bad_specs_end_the_same_everywhere(run: Run, work: Path, command: list[str]) -> None:
    (work / "bad.json").write_text("{}")
    shown = run(*command, "bad.json")
    assert shown.returncode == 3
    assert shown.stderr.count("[spec-field-missing]\n") == 3
    assert run(*command, "none.json").returncode == 1


FORMS = {
    "json": "json",
    "raw": "txt",
    "docker-run": "txt",
    "compose": "yaml",
    "kubernetes": "yaml",
    "oci": "json",
}


@pytest.mark.parametrize("form", FORMS)
def test_convert_to_every_form_and_back(run: Run, work: Path, form: str) -> None:
    put(work / "www.json", "windows_powershell_5")
    shown = run("convert", "www.json", "--to", form)
    golden = GOLDEN / f"convert_{form.replace('-', '_')}.{FORMS[form]}"
    refused = form in {"docker-run", "compose", "oci"}  # by the policy of hosts
    assert (shown.returncode, "[policy-spec-source]" in shown.stderr) == (0, refused)
    assert shown.stdout == golden.read_text()
    if form != "docker-run":
        (work / golden.name).write_text(shown.stdout)
        back = run("convert", golden.name, "--to", "json")
        assert back.stdout == (GOLDEN / "plain.json").read_text()


def test_convert_for_ecs(run: Run, work: Path) -> None:
    put(work / "www.json", "windows_powershell_5")
    put(work / "host.json", "host_aws_linux")
    arn = "arn:aws:s3:::bucket/www.json"
    for name, scheme in (("www", "credentialspec"), ("host", "credentialspecdomainless")):
        shown = run("convert", f"{name}.json", "--to", "ecs", "--location", arn)
        assert json.loads(shown.stdout) == {"credentialSpecs": [f"{scheme}:{arn}"]}
    for arguments in ([], ["--location", "www.json"]):
        shown = run("convert", "www.json", "--to", "ecs", *arguments)
        assert (shown.returncode, "[convert-location]" in shown.stderr) == (2, True)
    back = run("convert", "-", "--to", "json", given=b'{"credentialSpecs": ["credentialspec:x"]}')
    assert (back.returncode, "[convert-reference]" in back.stderr) == (3, True)


def test_what_kubernetes_would_drop_is_told(run: Run, work: Path) -> None:
    (work / "full.json").write_bytes((GOLDEN / "full.json").read_bytes())
    shown = run("convert", "full.json", "--to", "kubernetes", "--path", "full.yaml")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr.count("[convert-key-dropped]") == 5
    assert "[convert-plugin-input]" in shown.stderr
    assert run("lint", "full.yaml").returncode == 0


def test_references_instead_of_documents(run: Run, work: Path) -> None:
    put(work / "www.json", "windows_powershell_5")
    arguments = ("www.json", "--reference", "file://www.json")
    shown = run("convert", *arguments, "--to", "docker-run").stdout
    assert shown == "--security-opt credentialspec=file://www.json\n"
    compose = run("convert", *arguments, "--to", "compose", "--name", "web").stdout
    assert compose == (
        'services:\n  web:\n    security_opt:\n      - "credentialspec=file://www.json"\n'
    )
    back = run("convert", "-", "--to", "json", given=compose.encode())
    assert (back.returncode, "[convert-reference]" in back.stderr) == (3, True)
    assert run("convert", "www.json", "--reference", "x", "--to", "raw").returncode == 3


def test_services_with_different_specs(run: Run, work: Path) -> None:
    texts = {}
    for sample in ("windows_powershell_5", "account_sid"):
        put(work / "www.json", sample)
        text = run("convert", "www.json", "--to", "compose", "--name", sample).stdout
        texts[sample] = text.removeprefix("services:\n")
    both = ("services:\n" + "".join(texts.values()) + "  none: {image: x}\n").encode()
    shown = run("convert", "-", "--to", "json", given=both)
    assert (shown.returncode, "account_sid, windows_powershell_5" in shown.stderr) == (3, True)
    chosen = run("convert", "-", "--to", "json", "--service", "windows_powershell_5", given=both)
    assert chosen.stdout == (GOLDEN / "plain.json").read_text()
    assert run("convert", "-", "--to", "json", "--service", "none", given=both).returncode == 3


@pytest.mark.parametrize("name", ["Web_App", "a b", "-", "a" * 254, "../x", "a\nb"])
def test_names_that_kubernetes_refuses(run: Run, work: Path, name: str) -> None:
    put(work / "www.json", "windows_powershell_5")
    shown = run("convert", "www.json", "--to", "kubernetes", f"--name={name}")
    assert (shown.returncode, "[kubernetes-name-invalid]" in shown.stderr) == (2, True)


def test_a_name_for_kubernetes_is_made_of_the_file_name(run: Run, work: Path) -> None:
    put(work / "contoso_WebApp01.json", "windows_powershell_5")
    shown = run("convert", "contoso_WebApp01.json", "--to", "kubernetes").stdout
    assert "  name: contoso-webapp01\n" in shown


def test_dollars_and_quotes_survive_every_form(run: Run) -> None:
    document: dict[str, Any] = json.loads((GOLDEN / "plain.json").read_text())
    document["ActiveDirectoryConfig"]["HostAccountConfig"] = {
        "PortableCcgVersion": "1",
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": "$HOME ${x} 'a' \"b\" \\ # : - ! \u2028 é 1e3",
    }
    expected = CredentialSpec.from_json(document)
    for form in ("raw", "compose", "kubernetes", "oci"):
        given = json.dumps(document).encode()
        shown = run("convert", "-", "--to", form, "--name", "x", given=given)
        back = run("convert", "-", "--to", "json", given=shown.stdout.encode())
        assert CredentialSpec.from_text(back.stdout) == expected, form
