"""Whatever a document says as plug-in input: who is asked, and for what, is the configuration's."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from credspec.errors import CredspecError
from credspec.providers.aws import AwsProvider
from credspec.providers.azure_key_vault import AzureKeyVaultProvider
from credspec.providers.deadline import Deadline
from credspec.providers.https import Answer, HttpsClient
from credspec.providers.kubernetes import KubernetesProvider
from credspec.providers.library_transport import requests_session
from credspec.providers.local_files import FileProvider, KeytabProvider, SystemdCredentialProvider
from credspec.providers.provider import HostAccount
from credspec.providers.rancher import RancherProvider
from credspec.providers.server_url import Server, server_url
from credspec.providers.tls import client_context
from credspec.providers.vault import VaultProvider
from support.servers.simulated_services import OBJECT, Certificates, aws_environment, settings_of

Asked = list[tuple[str, str, dict[str, str]]]
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def pieces(*texts: str) -> st.SearchStrategy[str]:
    """Texts put together from what looks like a part of an input, and from anything."""
    anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
    return st.lists(st.sampled_from(texts) | anything, max_size=9).map("".join)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is asked: server, target, headers; nobody answers."""
    found: Asked = []

    def ask(client: HttpsClient, _: str, target: str, headers: Any = (), body: Any = None) -> Any:
        del body
        found.append((str(client.server), target, dict(headers)))
        return Answer(500, "", [], b"")

    monkeypatch.setattr(HttpsClient, "ask", ask)

    def no_name(host: Any, *_: Any, **__: Any) -> Any:
        found.append((f"looked up {host}", "", {}))
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    return found


# Azure Key Vault

HOSTS = (".vault.azure.net", "kv1.corp.test")
AZURE = AzureKeyVaultProvider({"hosts": list(HOSTS)}, 1)
URLS = [
    "https://evil.example\\.vault.azure.net/secrets/x",
    "https://evil.example\\@abc.vault.azure.net/secrets/x",
    "https://abc.vault.azure.net@evil.example/secrets/x",
    "https://user:pw@abc.vault.azure.net/secrets/x",
    "https://abc.vault.azure.net:8443/secrets/x",
    "https://abc.vault.azure.net:443/secrets/x",
    "https://abc.vault.azure.net:/secrets/x",
    "https://evil.example/.vault.azure.net/secrets/x",
    "https://evil.example?.vault.azure.net/secrets/x",
    "https://evil.example#.vault.azure.net/secrets/x",
    "https://evil.example%2f.vault.azure.net/secrets/x",
    "https://evil%2eexample.vault.azure.net/secrets/x",
    "https://evil.example.vault.azure.net/secrets/x",
    "https://evil.example\u3002.vault.azure.net/secrets/x",
    "https://evil\uff0eexample/.vault.azure.net/secrets/x",
    "https://ev\u0131l.vault.azure.net/secrets/x",
    "https://\u2100bc.vault.azure.net/secrets/x",
    "https://\u212av1.corp.test/secrets/x",
    "https://evil.example\t.vault.azure.net/secrets/x",
    "https://evil.example\n.vault.azure.net/secrets/x",
    "https://evil.example .vault.azure.net/secrets/x",
    "https://[::1].vault.azure.net/secrets/x",
    "https://abc.vault.azure.net.evil.example/secrets/x",
    "https://notkv1.corp.test/secrets/x",
    "https://x.kv1.corp.test/secrets/x",
    "https://kv1.corp.test.evil.example/secrets/x",
    "https://kv2.corp.test/secrets/x",
    "https://abcvault.azure.net/secrets/x",
    "https://vault.azure.net/secrets/x",
    "https://.vault.azure.net/secrets/x",
    "https://abc..vault.azure.net/secrets/x",
    "https://abc.vault.azure.net./secrets/x",
    "https://ab.vault.azure.net/secrets/x",
    f"https://{'a' * 25}.vault.azure.net/secrets/x",
    "https:///abc.vault.azure.net/secrets/x",
    "https:abc.vault.azure.net/secrets/x",
    "http://abc.vault.azure.net/secrets/x",
    "HTTPS://abc.vault.azure.net/secrets/x",
    "//abc.vault.azure.net/secrets/x",
    "https://abc.vault.azure.net/secrets/../keys/x",
    "https://abc.vault.azure.net/secrets/x/%2e%2e/y",
    "https://abc.vault.azure.net/secrets/x?api-version=1",
    "https://abc.vault.azure.net/secrets/x#y",
    "https://abc.vault.azure.net/secrets/x;y",
    "https://abc.vault.azure.net//secrets/x",
    "https://abc.vault.azure.net/secrets/x/v/w",
    "https://abc.vault.azure.net/secrets/x\u0660",
]


@pytest.mark.parametrize("url", URLS, ids=range(len(URLS)))
def test_no_trick_of_a_url_gets_azures_token(asked: Asked, url: str) -> None:
    with pytest.raises(CredspecError, match=r"host-account-(input|not-given)"):
        AZURE.host_account(f"ObjectId={OBJECT};SecretUri={url}")
    assert asked == []


@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
@given(
    pieces(
        *("https://", "http://", "evil.example", "abc", "kv1", ".vault.azure.net", ".corp.test"),
        *("/secrets/x", "/secrets/", "\\", "@", ":443", "%2e", "?", "#", "/", ".", "\u3002", ";"),
    )
    | st.tuples(
        st.just("https://"),
        pieces("abc", "-", "A", "0", "evil.example", ".", "\\", "@"),
        st.sampled_from([".vault.azure.net", "kv1.corp.test", ".corp.test", ".evil.example"]),
        st.sampled_from(["/secrets/x", "/secrets/x/1f", "/secrets/x/"]),
    ).map("".join)
)
@example("https://abc.vault.azure.net/secrets/x/1f")
@example("https://KV1.corp.test/secrets/x")
def test_azures_token_goes_to_allowed_vaults_only(asked: Asked, url: str) -> None:
    asked.clear()
    with suppress(CredspecError):
        AZURE.host_account(f"ObjectId={OBJECT};SecretUri={url}")
    for server, target, _ in asked:
        assert re.fullmatch(r"[a-z0-9-]{3,24}\.vault\.azure\.net:443|kv1\.corp\.test:443", server)
        assert re.fullmatch(r"/secrets/[0-9A-Za-z-]+/[0-9A-Za-z]*\?api-version=[0-9.-]+", target)
        # What was asked is what the document says, letter by letter.
        host = server.removesuffix(":443")
        assert url.lower().startswith(f"https://{host}/secrets/")
    if re.fullmatch(r"https://[A-Za-z0-9-]{3,24}\.vault\.azure\.net/secrets/x", url):
        assert asked


@pytest.mark.parametrize(
    "hosts",
    [
        [""],
        ["."],
        [".net"],
        ["net"],
        ["*.vault.azure.net"],
        ["a b.test"],
        ["https://a.test"],
        [".a..b"],
    ],
)
def test_hosts_of_the_configuration_that_are_none(hosts: list[str]) -> None:
    with pytest.raises(CredspecError, match="config-wrong-value"):
        AzureKeyVaultProvider({"hosts": hosts}, 1)


def test_a_server_does_not_decide_which_token_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Any] = []

    class Identity:
        def __init__(self, **_: Any) -> None:
            pass

        def get_token(self, *scopes: str, **_: Any) -> Any:
            wanted.append(scopes)
            raise AssertionError

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    challenge = 'Bearer authorization="https://login.test/t", resource="https://azure.net"'

    def ask(*_: Any) -> Answer:
        return Answer(401, "", [("WWW-Authenticate", challenge)], b"")

    monkeypatch.setattr("azure.identity.ManagedIdentityCredential", Identity)
    monkeypatch.setattr(HttpsClient, "ask", ask)
    with pytest.raises(CredspecError, match="host-account-answer"):
        AZURE.host_account(f"ObjectId={OBJECT};SecretUri=https://abc.vault.azure.net/secrets/x")
    assert wanted == []


# AWS


@pytest.fixture
def aws_role(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in aws_environment(tmp_path).items():
        monkeypatch.setenv(name, value)


ARNS = [
    "arn:aws:secretsmanager:evil.example:123456789012:secret:x",
    "arn:aws:secretsmanager:eu-west-1.evil.example/:123456789012:secret:x",
    "arn:aws:secretsmanager:eu-west-1@evil.example:123456789012:secret:x",
    "arn:aws:secretsmanager:eu-west-1#:123456789012:secret:x",
    "arn:aws:secretsmanager::123456789012:secret:x",
    "arn:aws:secretsmanager:eu-west-1:12345:secret:x",
    "arn:aws:secretsmanager:eu-west-1:123456789012:parameter/x",
    "arn:aws:ssm:eu-west-1:123456789012:secret:x",
    "arn:aws:s3:eu-west-1:123456789012:secret:x",
    "arn:aws-evil.example:secretsmanager:eu-west-1:123456789012:secret:x",
    "arn:aws:secretsmanager:eu-west-\u0661:123456789012:secret:x",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x\n",
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:x y",
]


@pytest.mark.parametrize("arn", ARNS, ids=range(len(ARNS)))
def test_no_arn_leads_elsewhere(asked: Asked, aws_role: None, arn: str) -> None:
    for text in (arn, json.dumps({"CredentialArn": arn})):
        with pytest.raises(CredspecError, match="host-account-input"):
            AwsProvider({"region": "eu-west-1"}, 1).host_account(text)
    assert asked == []


@settings(max_examples=25, deadline=None, suppress_health_check=FIXTURES)
@given(
    form=st.sampled_from(
        ["secretsmanager:{}:123456789012:secret:", "ssm:{}:123456789012:parameter/"]
    ),
    region=st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1", "xx-evil-9"])
    | pieces("eu", "-", "west", "1", ".evil.example", "/", "@", "fips"),
    name=st.sampled_from(["prod/x", "test/x"]) | pieces("prod/", "x", "..", "*", "%2e", '"'),
    private=st.booleans(),
)
@example(
    form="secretsmanager:{}:123456789012:secret:", region="eu-west-1", name="prod/x", private=False
)
@pytest.mark.usefixtures("aws_role")
def test_aws_is_asked_at_its_own_end_points_only(
    asked: Asked, form: str, region: str, name: str, private: bool
) -> None:
    asked.clear()
    endpoint = {"endpoint_url": "https://aws.corp.test"} if private else {}
    arn = f"arn:aws:{form.format(region)}{name}"
    with suppress(CredspecError):
        AwsProvider({"secrets": ["prod/*"], **endpoint}, 1).host_account(arn)
    own = r"(secretsmanager|ssm)\.[a-z0-9-]+\.(amazonaws\.com|amazonaws\.com\.cn|api\.aws):443"
    for server, target, headers in asked:
        assert re.fullmatch(r"aws\.corp\.test:443" if private else own, server)
        assert target == "/"
        assert f"/{region}/" in headers["Authorization"]
        assert name.startswith("prod/")
    if (region, name) == ("eu-west-1", "prod/x"):
        assert asked


# Vault


@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
@given(
    pieces("hosts/", "web/", "reader", "/", "..", ".", "%2e", "?", "#", "\\", "@", "://evil", " ")
)
@example("hosts/web/reader")
@example("hosts/web/../../sys/seal")
@example("hosts/web/%2e%2e/x")
@example("hosts/web/reader?list=true")
@example("hosts/webx/reader")
@example("hosts/web")
def test_vault_is_asked_below_its_prefix_only(
    asked: Asked, tmp_path_factory: pytest.TempPathFactory, path: str
) -> None:
    asked.clear()
    directory = tmp_path_factory.getbasetemp() / "vault"
    token = directory / "token"
    if not token.exists():
        directory.mkdir()
        token.write_text("the-token")
        token.chmod(0o600)
    table = {"url": "https://vault.corp.test:8200", "token_file": str(token)}
    provider = VaultProvider({**table, "prefix": "hosts/web"}, 1)
    with suppress(CredspecError):
        provider.host_account(path)
    for server, target, headers in asked:
        assert server == "vault.corp.test:8200"
        assert target == f"/v1/secret/data/{path.strip('/')}"
        assert re.fullmatch(r"/v1/secret/data/hosts/web/[A-Za-z0-9_./-]+", target)
        assert not {".", ".."} & set(target.split("/"))
        assert headers["X-Vault-Token"] == "the-token"
    if path == "hosts/web/reader":
        assert asked


# Rancher


@settings(max_examples=200, deadline=None, suppress_health_check=FIXTURES)
@given(pieces("apps", "other", ":", "reader", "/", "..", ".", "-", "\r\n", "\0", "%2e", "A"))
@example("apps:reader")
@example("..:reader")
@example("apps/../other:reader")
def test_rancher_is_asked_as_the_namespace_says(
    asked: Asked, tmp_path_factory: pytest.TempPathFactory, given: str
) -> None:
    asked.clear()
    base = tmp_path_factory.getbasetemp() / "rancher"
    if not base.exists():
        base.mkdir()
        certificates = Certificates(base / "tls")
        settings_of("rancher", base / "service", 7, certificates)
        (base / "service/gmsa/other/port.txt").write_text("8")
        (base / "service/port.txt").write_text("9")
    provider = RancherProvider({"directory": str(base / "service/gmsa")}, 1)
    with suppress(CredspecError):
        provider.host_account(given)
    for server, target, headers in asked:
        namespace, _, secret = given.partition(":")
        assert (namespace, server) in {("apps", "localhost:7"), ("other", "localhost:8")}
        assert (target, headers) == ("/provider", {"object": secret})
        assert re.fullmatch(r"[a-z0-9.-]+", secret)
    if given == "apps:reader":
        assert asked


# Local files


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two directories of accounts side by side; only one of them is configured."""
    base = tmp_path_factory.mktemp("accounts")
    for directory in ("inside", "outside"):
        (base / directory).mkdir(mode=0o700)
        for name in ("reader", ".reader", "-reader", "a b"):
            content = {"username": directory, "password": "p", "domainName": "contoso.com"}
            (base / directory / name).write_text(json.dumps(content))
            (base / directory / name).chmod(0o600)
        (base / directory / "deeper").mkdir(mode=0o700)
    (base / "inside/link").symlink_to("../outside/reader")
    (base / "inside/away").symlink_to("../outside")
    return base


@settings(max_examples=300, deadline=None, suppress_health_check=FIXTURES)
@given(
    st.data(),
    pieces("reader", "link", "away", "deeper", "/", "..", ".", "outside", "inside", "\0", "%2f"),
)
@pytest.mark.parametrize("kind", [FileProvider, KeytabProvider, SystemdCredentialProvider])
def test_no_name_leads_out_of_the_directory(
    accounts: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[..., Any],
    data: st.DataObject,
    name: str,
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(accounts / "inside"))
    prefix = data.draw(st.sampled_from(["", f"{accounts}/inside/", f"{accounts}/outside/", "/"]))
    table = {} if kind is SystemdCredentialProvider else {"directory": f"{accounts}/inside"}
    try:
        account: HostAccount = kind(table, 1).host_account(f"{prefix}{name}")
    except CredspecError:
        assert f"{prefix}{name}" != "reader"
        return
    if account.keytab is not None:
        assert account.keytab == accounts / "inside/reader"
    else:
        assert account.user == "inside"


# What all have in common


@given(pieces("https://", "vault.test", "evil", ":8200", "/v1", "\\", "@", "?", "#", "%", "[::1]"))
@example("https://vault.test:8200")
@example("https://[::1]:8200/x")
def test_urls_of_the_configuration(text: str) -> None:
    found = server_url(text)
    if found is None:
        assert not re.fullmatch(r"https://[a-z]{1,20}\.test(:8200)?", text)
        return
    server, path = found
    written = f"https://{server}{path}"
    assert text in {written, written.replace(":443", "", 1)}
    assert not set(server.host) & set("\\@?#%/ ")


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.test/",
        "https://vault.test:8200/",
        "https://vault.test@evil.test/",
        "https://evil.test@vault.test/",
        "http://vault.test/",
        "https://vault.test.evil.test/",
    ],
)
def test_a_client_library_cannot_ask_another_server(asked: Asked, url: str) -> None:
    client = HttpsClient(Server("vault.test"), client_context("w", None), Deadline(1), "w")
    with pytest.raises(Exception, match=r"host-account-provider|No connection adapters|Invalid"):
        requests_session(client).get(url)
    assert asked == []
    for strange in ("https://vault.test/x", "https://vault.test\\@evil.test/x"):
        requests_session(client).get(strange)
    assert [server for server, _, _ in asked] == ["vault.test:443"] * 2


# Secrets of the cluster


@settings(max_examples=200, deadline=None, suppress_health_check=FIXTURES)
@given(
    pieces(
        "credspec", "kube-system", ":", "reader", "admin", "/", "..", ".", "?", "\r\n", "\0", "%2f"
    )
)
@example("reader")
@example("credspec:reader")
@example("kube-system:reader")
@example("admin")
def test_only_the_named_secrets_of_the_own_namespace_are_read(
    asked: Asked, tmp_path_factory: pytest.TempPathFactory, given: str
) -> None:
    asked.clear()
    base = tmp_path_factory.getbasetemp() / "kubernetes"
    if not base.exists():
        base.mkdir()
        settings_of("kubernetes", base / "service", 7, Certificates(base / "tls"))
    table = {
        "url": "https://localhost:7",
        "ca_file": str(base / "service/ca.crt"),
        "token_file": str(base / "service/token"),
        "namespace": "credspec",
        "secrets": ["reader"],
    }
    with suppress(CredspecError):
        KubernetesProvider(table, 1).host_account(given)
    for server, target, headers in asked:
        assert (server, target) == (
            "localhost:7",
            "/api/v1/namespaces/credspec/secrets/reader",
        )
        assert headers["Authorization"] == "Bearer the-token"
        assert given in {"reader", "credspec:reader"}
    assert bool(asked) == (given in {"reader", "credspec:reader"})
