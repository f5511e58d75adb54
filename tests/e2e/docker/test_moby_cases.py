"""The cases of moby's own tests of the option, each under moby's name, at a Linux dockerd.

From `daemon/oci_windows_test.go` (TestSetWindowsCredentialSpecInSpec) and
`integration-cli/docker_cli_run_test.go`. Windows looks at the option when a container is started,
the gateway when it is created. Where Linux must differ, the case shows what is answered instead.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from support.engines.docker_gateway import (
    SAMPLE,
    Daemon,
    Docker,
    UnixConnection,
    carried,
    kept,
    run_argv,
)

MALFORMED = (
    "invalid credential spec security option - value must be prefixed by 'file://', "
    "'registry://', or 'raw://' followed by a non-empty value"
)
ABSOLUTE = "invalid credential spec: file:// path cannot be absolute"
NO_REGISTRY = (
    "invalid credential spec: registry:// exists only on Windows; "
    "expected a reference with file:// or raw:// [spec-reference-registry]"
)
UNREADABLE = "failed to load credential spec: open {{specs}}/{}: no such file or directory"
RAW = SAMPLE.read_text("utf-8-sig")


def created(gateway: Docker, option: str) -> str:
    made = gateway("create", "--network=none", "--security-opt", option, "tiny", "env")
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def refusal(gateway: Docker, option: str) -> str:
    """What the client says was refused; no container is left of it."""
    result = gateway(*run_argv("--security-opt", option), "true")
    # The client makes 127 of texts with "no such file or directory".
    assert result.returncode in {125, 127}
    assert gateway("ps", "-aq").stdout == ""
    # Older clients end the daemon's text with a full stop.
    line = result.stderr.splitlines()[0].removesuffix(".")
    return line.removeprefix("docker: Error response from daemon: ")


@pytest.mark.parametrize(
    "body",
    [{}, {"HostConfig": {}}, {"HostConfig": {"SecurityOpt": []}}],
    ids=lambda body: f"it does nothing if there are no security options {json.dumps(body)}",
)
def test_no_options(
    gateway: Docker, daemon: Daemon, gateway_socket: Path, body: dict[str, Any]
) -> None:
    del gateway
    connection = UnixConnection(gateway_socket)
    json_type = {"Content-Type": "application/json"}
    request = json.dumps({"Image": "tiny", "Cmd": ["true"], **body})
    connection.request("POST", "/v1.41/containers/create", request, json_type)
    answer = connection.getresponse()
    name = json.loads(answer.read())["Id"]
    connection.close()
    container = kept(daemon, name)
    assert answer.status == 201
    # Without a HostConfig dockerd names no runtime.
    assert container["HostConfig"].get("Runtime", "runc") == "runc"
    assert not container["HostConfig"]["SecurityOpt"]
    assert carried(container) is None
    variables = [entry.partition("=")[0] for entry in container["Config"]["Env"] or []]
    assert [name for name in variables if name.startswith(("CREDSPEC", "KRB5"))] == []


@pytest.mark.parametrize(
    ("option", "reference"),
    [
        pytest.param(
            "credentialspec=file://www.json",
            "file://www.json",
            id="happy path with a 'file://' option",
        ),
        pytest.param(
            f"credentialspec=raw://{RAW}", f"raw://{RAW}", id="happy path with a 'raw://' option"
        ),
        pytest.param(
            f"CreDENtiaLSPeC=rAw://{RAW}",
            f"raw://{RAW}",
            id="it's not case sensitive in the option names",
        ),
    ],
)
def test_taken(gateway: Docker, daemon: Daemon, option: str, reference: str) -> None:
    name = created(gateway, option)
    container = kept(daemon, name)
    assert container["HostConfig"]["Runtime"] == "credspec"
    assert not container["HostConfig"]["SecurityOpt"]
    assert carried(container) == reference
    # As on Windows, inspect shows the option as it was given.
    shown = json.loads(gateway("inspect", name).stdout)[0]
    assert shown["HostConfig"]["SecurityOpt"] == [option]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        pytest.param(
            "credentialspec=file://C:\\path\\to\\my\\credspec.json",
            ABSOLUTE,
            id="it's not allowed to use a 'file://' option with an absolute path",
        ),
        pytest.param(
            "credentialspec=file://..\\credspec.json",
            "invalid credential spec: file:// path must be under {specs}",
            id="it's not allowed to use a 'file://' option breaking out of the cred specs' "
            "directory",
        ),
        pytest.param(
            "credentialspec=file://i-dont-exist.json",
            # No container has a name yet, so the text does not tell one.
            UNREADABLE.format("i-dont-exist.json"),
            id="when using a 'file://' option pointing to a file that doesn't exist, it fails "
            "gracefully",
        ),
        # Linux has no registry, and no way to fail in one either.
        pytest.param(
            "credentialspec=registry://my-cred-spec",
            NO_REGISTRY,
            id="happy path with a 'registry://' option",
        ),
        pytest.param(
            "credentialspec=registry://my-cred-spec",
            NO_REGISTRY,
            id="when using a 'registry://' option and opening the registry key fails, it fails "
            "gracefully",
        ),
        pytest.param(
            "credentialspec=registry://my-cred-spec",
            NO_REGISTRY,
            id="when using a 'registry://' option pointing to a value that doesn't exist, it fails "
            "gracefully",
        ),
        pytest.param(
            "credentialspec=registry://my-cred-spec",
            NO_REGISTRY,
            id="when using a 'registry://' option and reading the registry value fails, it fails "
            "gracefully",
        ),
        # A swarm's tasks are created inside dockerd and do not come this way.
        pytest.param(
            "credentialspec=config://my-cred-spec",
            MALFORMED,
            id="happy path with a 'config://' option",
        ),
        pytest.param(
            "credentialspec=config://whatever",
            MALFORMED,
            id="using a 'config://' option on a container not managed by swarmkit is not allowed, "
            "and results in a generic error message to hide that purely internal API",
        ),
        # Linux has options of its own, so this is dockerd's to refuse.
        pytest.param(
            "credentialspe=config://whatever",
            'invalid --security-opt 2: "credentialspe=config://whatever"',
            id="it rejects unknown options",
        ),
        pytest.param(
            "credentialspec=idontexist://whatever",
            MALFORMED,
            id="it rejects unsupported credentialspec options",
        ),
        *(
            pytest.param(
                f"credentialspec={scheme}://", MALFORMED, id=f"it rejects empty values for {scheme}"
            )
            for scheme in ("file", "registry", "config", "raw")
        ),
        *(
            pytest.param(
                f"credentialspec={value}", text, id=f"TestRunCredentialSpecFailures {value}"
            )
            for value, text in (
                ("rubbish", MALFORMED),
                ("rubbish://", MALFORMED),
                ("file://", MALFORMED),
                ("registry://", MALFORMED),
                ("file://c:\\blah.txt", ABSOLUTE),
                ("file://doesnotexist.txt", UNREADABLE.format("doesnotexist.txt")),
            )
        ),
    ],
)
def test_refused(gateway: Docker, specs: Path, option: str, text: str) -> None:
    """The daemon's own words come first; what to do and the code stand behind those of specs."""
    shown = refusal(gateway, option)
    assert shown.startswith(text.format(specs=specs))
    if option.startswith("credentialspec="):
        assert re.search(r" \[[a-z-]+\]$", shown)


@pytest.mark.parametrize(
    "value",
    ["file://valid.json", f"raw://{RAW}"],
    ids=["TestRunCredentialSpecWellFormed file", "TestRunCredentialSpecWellFormed raw"],
)
def test_well_formed(gateway: Docker, daemon: Daemon, specs: Path, value: str) -> None:
    (specs / "valid.json").write_bytes(SAMPLE.read_bytes())
    name = created(gateway, f"credentialspec={value}")
    assert carried(kept(daemon, name)) == value
    ran = gateway("start", "--attach", name)
    assert ran.returncode == 0, ran.stderr
    # What a container of Windows asks nltest for, one of Linux finds where its variables say.
    assert "KRB5CCNAME=/run/credspec/krb5cc" in ran.stdout.splitlines()


def test_of_two_options_both_are_checked_and_the_last_counts(
    gateway: Docker, daemon: Daemon, specs: Path
) -> None:
    (specs / "other.json").write_bytes(SAMPLE.read_bytes())
    good, other = "credentialspec=file://www.json", "credentialspec=file://other.json"
    made = gateway("create", "--security-opt", good, "--security-opt", other, "tiny", "true")
    name = made.stdout.strip()
    assert carried(kept(daemon, name)) == "file://other.json"
    shown = json.loads(gateway("inspect", name).stdout)[0]
    assert shown["HostConfig"]["SecurityOpt"] == [good, other]
    bad = ["--security-opt=credentialspec=rubbish", f"--security-opt={good}"]
    assert MALFORMED in gateway("create", *bad, "tiny", "true").stderr
