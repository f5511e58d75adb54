"""What an archive for support has, and that no secret of the host is in it.

The host is simulated: its files, and a `credspec check` that repeats every secret.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from urllib.parse import quote

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from credspec.cli.support_bundle import support_bundle
from credspec.config.host import Config, load_config
from credspec.config_table import keys_of
from credspec.doctor.declared_configuration import declared_tables
from credspec.doctor.redaction import Redactor, _shown_forms
from credspec.doctor.support_bundle import collect, make_bundle
from credspec.errors import CredspecError, UsageError
from credspec.kerberos.keys import Enctype, Key
from credspec.kerberos.keytab import KeytabEntry, keytab_bytes

CREDSPEC = Path(sys.executable).with_name("credspec")
MEMBERS = {
    *("README.txt", "audit.jsonl", "check.json", "configuration.json", "engines.json"),
    *("environment.json", "journal.txt", "keytab.json", "mounts.txt", "specs.json", "status.json"),
    *("units.json", "versions.json"),
}
KEY = bytes(range(200, 232))
# Passwords as people and generators make them; the least length is what can be told from words.
# The path of a file that exists is none.
SECRETS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=8, max_size=60).filter(
    lambda text: len(text.strip()) >= 8 and not os.path.exists(text)  # noqa: PTH110
)


def forms(secret: str) -> set[bytes]:
    data = secret.strip().encode()
    found = {data, json.dumps(secret.strip())[1:-1].encode(), quote(data).encode()}
    return found | {base64.b64encode(data).rstrip(b"="), data.hex().encode()}


def spec(plugin_input: object, **others: object) -> str:
    return json.dumps(
        {
            "CmsPlugins": ["ActiveDirectory"],
            "DomainJoinConfig": {
                "Sid": "S-1-5-21-1-2-3",
                "MachineAccountName": "WebApp01",
                "Guid": "244818ae-87ac-4fcd-92ec-e79e5252348a",
                "DnsTreeName": "contoso.com",
                "DnsName": "contoso.com",
                "NetBiosName": "CONTOSO",
            },
            "ActiveDirectoryConfig": {
                "GroupManagedServiceAccounts": [{"Name": "WebApp01", "Scope": "contoso.com"}],
                "HostAccountConfig": {
                    "PortableCcgVersion": "1",
                    "PluginGUID": "{CCC2A336-D7F3-4818-A213-272B7924213E}",
                    "PluginInput": plugin_input,
                },
            },
            **others,
        },
        ensure_ascii=False,
    )


class Host:
    """A host's files, each with a secret of its own."""

    def __init__(self, directory: Path, planted: list[str]) -> None:
        self.planted = planted
        (directory / "specs").mkdir(exist_ok=True)
        in_config, in_url, in_plugin, in_field, in_broken, in_environment = map(str, planted)
        (directory / "specs/www.json").write_text(spec(f"user:{in_plugin}"), "utf-8")
        (directory / "specs/more.json").write_text(spec("x", Password=in_field), "utf-8")
        (directory / "specs/broken.json").write_text(
            '{"PluginInput": ' + json.dumps(in_broken), "utf-8"
        )
        self.keytab = directory / "krb5.keytab"
        key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, KEY)
        self.keytab.write_bytes(keytab_bytes([KeytabEntry("HOST1$@CONTOSO.COM", 3, key)]))
        self.audit = directory / "audit.jsonl"
        self.audit.write_text("".join(json.dumps({"spec": each}) + "\n" for each in planted))
        self.path = directory / "config.toml"
        self.path.write_text(
            f'run_directory = "{directory}"\nspec_directory = "{directory}/specs"\n'
            f'audit_log = "{self.audit}"\n[host_identity]\nkeytab = "{self.keytab}"\n'
            f"[providers]\nenabled = ['vault']\n[providers.vault]\nrole_id = {toml(in_config)}\n"
            f"url = {toml('https://user:' + in_url + '@vault.contoso.com')}\n",
            "utf-8",
        )
        self.environment = {
            "CREDSPEC_CONFIG": str(self.path),
            "AWS_SECRET_ACCESS_KEY": in_environment,
            "CREDSPEC": f"raw://{in_plugin}",
            "HOME": "/root",
        }
        # What `check` says quotes them all, as no error of credspec should.
        self.program = directory / "credspec"
        said = json.dumps({"steps": [{"text": f"found {each!s}"} for each in planted]})
        self.program.write_text(f"#!{sys.executable}\nprint({said!r})\n", "utf-8")
        self.program.chmod(0o755)

    def collect(self) -> dict[str, bytes]:
        config = load_config(self.path)
        return collect(config, program=self.program, environment=self.environment)


def toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=4,
    deadline=None,
)
@given(st.lists(SECRETS, min_size=6, max_size=6, unique=True))
def test_no_secret_is_in_it(tmp_path: Path, planted: list[str]) -> None:
    ordinary = b"\n".join(Host(tmp_path, ["none-here"] * 6).collect().values())
    members = Host(tmp_path, planted).collect()
    assert set(members) == MEMBERS
    everything = b"\n".join(members.values())
    for secret in planted:
        for form in forms(secret):
            # What is there anyway says nothing.
            assert form not in everything or form in ordinary, form
    for key in (KEY, base64.b64encode(KEY), KEY.hex().encode(), KEY.hex().upper().encode()):
        assert key not in everything


@pytest.mark.parametrize(
    "make", [secrets.token_urlsafe, secrets.token_hex, lambda n: "Pa$$ w0rd" * n]
)
def test_generated_passwords_are_not_in_it(tmp_path: Path, make: object) -> None:
    planted = [make(16 + number) for number in range(6)]  # type: ignore[operator]
    everything = b"\n".join(Host(tmp_path, planted).collect().values())
    assert not [form for secret in planted for form in forms(secret) if form in everything]


def test_what_helps_is_in_it(tmp_path: Path) -> None:
    members = Host(tmp_path, [f"s3cret-{n}-value" for n in range(6)]).collect()
    configuration = json.loads(members["configuration.json"])["values"]
    assert configuration["providers"]["enabled"] == ["vault"]
    assert configuration["providers"]["vault"] == {
        "url": "<redacted>",
        "<redacted>: other keys": 1,
    }
    (entry,) = json.loads(members["keytab.json"])["entries"]
    assert (entry["principal"], entry["kvno"]) == ("HOST1$@CONTOSO.COM", 3)
    rows = {row["name"]: row for row in json.loads(members["specs.json"])}
    assert rows["www.json"]["accounts"] == ["WebApp01"]
    assert rows["broken.json"]["errors"] == ["spec-not-json"]
    assert json.loads(members["status.json"])["error"][0]["code"] == "agent-unreachable"
    assert "AWS_SECRET_ACCESS_KEY" not in members["environment.json"].decode()
    assert json.loads(members["versions.json"])["packages"]["click"]


def test_a_configuration_that_is_none(tmp_path: Path) -> None:
    host = Host(tmp_path, [f"s3cret-{n}-value" for n in range(6)])
    host.path.write_text('token = "s3cret-of-mine\n')
    members = collect(Config(), program=CREDSPEC, environment=host.environment)
    assert "not TOML" in members["configuration.json"].decode()
    assert b"s3cret-of-mine" not in b"".join(members.values())


@given(st.text(), st.text(min_size=6))
def test_patterns_of_secrets(before: str, secret: str) -> None:
    shown = Redactor().text(f"{before} raw://{{{secret}}}")
    assert "<redacted>" in shown
    assert Redactor().text("https://me:pw@vault.test/x") == "https://<redacted>@vault.test/x"
    assert "hunter2" not in Redactor().text('{"password": "hunter2"}')
    pem = "-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----"
    assert Redactor().text(f"a {pem} b") == "a <redacted> b"


def test_the_archive_is_its_owners_and_the_same_for_the_same(tmp_path: Path) -> None:
    config = Config(run_directory=tmp_path, spec_directory=tmp_path, keytab=tmp_path / "none")
    path = tmp_path / "x.tar.gz"
    make_bundle(path, config, program=Path("/bin/false"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        entries = archive.getmembers()
    assert [entry.name for entry in entries] == sorted(f"credspec-support/{n}" for n in MEMBERS)
    assert {(e.mode, e.mtime, e.uid, e.uname) for e in entries} == {(0o600, 0, 0, "")}
    assert path.read_bytes()[4:8] == b"\0\0\0\0"  # no time in gzip's header
    with pytest.raises(UsageError, match="support-bundle-exists"):
        make_bundle(path, config, program=Path("/bin/false"))
    with pytest.raises(CredspecError, match="support-bundle-unwritable"):
        make_bundle(tmp_path / "no/x", config, program=Path("/bin/false"))
    link = tmp_path / "link.tar.gz"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CredspecError):
        make_bundle(link, config, program=Path("/bin/false"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_command(tmp_path: Path) -> None:
    host = Host(tmp_path, [f"s3cret-{n}-value" for n in range(6)])
    shown = subprocess.run(
        [str(CREDSPEC), "support-bundle"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **host.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stdout == f"{tmp_path}/credspec-support.tar.gz\n", shown.stderr
    with tarfile.open(tmp_path / "credspec-support.tar.gz") as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            assert b"s3cret" not in file.read(), entry.name
    assert support_bundle.params


def test_tables_of_the_policy_are_shown_by_their_names() -> None:
    policy = {
        "tickets": ["services"],
        "services": {"WebApp01@a.test": ["HTTP/*.a.test", "MSSQLSvc/sql.a.test:1433"]},
        "ticket_life": {"cifs": "1h", "*": "10m"},
    }
    redactor = Redactor()
    assert redactor.configuration({"policy": policy}) == {"policy": policy}
    assert redactor.text("HTTP/*.a.test") == "HTTP/*.a.test"
    secret = {"services": {"x y": ["p4ss word"]}}
    assert "p4ss" not in json.dumps(Redactor().configuration({"policy": secret}))


def test_what_is_shown_of_the_configuration_is_what_it_declares() -> None:
    """A key that is free text is shown in its form, unless its declaration calls it secret."""
    shown = _shown_forms()
    hidden = {
        f"{table.table.name}.{name}"
        for table in declared_tables()
        for name in keys_of(table)
        if name not in shown[table.table.name.partition(".")[0]]
    }
    # A new key with a secret, or with what leads to one, must be listed here.
    assert hidden == {
        "host_identity.account",
        "providers.vault.role_id",
        "providers.aws.secrets",
        "providers.kubernetes.secrets",
        "providers.NAME.command",
        "account_provider.clients",
    }
    document = {
        "wait_seconds": 7,
        "host_identity": {"account": "vault:app/secret", "keytab": "/etc/krb5.keytab"},
        "providers": {
            "vault": {"url": "https://vault.contoso.com:8200", "role_id": "a-role-id"},
            "rancher": {"key": "c2VjcmV0LWtleQ"},
            "own": {"command": ["/usr/bin/give", "--token", "abcdefgh"]},
        },
    }
    assert Redactor().configuration(document) == {
        "wait_seconds": 7,
        "host_identity": {"<redacted>: other keys": 1, "keytab": "/etc/krb5.keytab"},
        "providers": {
            "vault": {"url": "https://vault.contoso.com:8200", "<redacted>: other keys": 1},
            "rancher": {"key": "<redacted>"},
            "own": {"<redacted>: other keys": 1},
        },
    }
