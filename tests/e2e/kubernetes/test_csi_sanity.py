"""csi-sanity of the CSI project, against the driver's process; it needs no cluster.

`make test-kubernetes` builds it; without it, this is left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from credspec.kubernetes.api.server import ApiServer
from support.kubernetes.driver_process import DriverProcess
from support.kubernetes.programs import missing, path_of
from support.servers.certificate_authority import make_authority

pytestmark = pytest.mark.skipif(
    bool(missing("csi-sanity")) and "CREDSPEC_TEST_KUBERNETES" not in os.environ,
    reason="csi-sanity is not built: make test-kubernetes",
)

# The driver has no controller, which makes volumes; both need one.
NOT_FOR_INLINE_VOLUMES = "Controller Server|should remove target path"


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[DriverProcess]:
    authority = make_authority(tmp_path / "ca")
    token = tmp_path / "token"
    token.write_text("t")
    config = tmp_path / "config.toml"
    run = tmp_path / "run"
    run.mkdir()
    config.write_text(f'run_directory = "{run}"\n')
    # A socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="credspec-kubelet-", dir="/var/tmp") as directory:
        found = DriverProcess(
            Path(directory),
            ApiServer("https://127.0.0.1:1", authority.certificate, token),
            config,
            command=("unshare", "--mount"),
        )
        found.start()
        try:
            yield found
        finally:
            found.stop()


def test_csi_sanity(driver: DriverProcess) -> None:
    below = driver.pods / "sanity"
    below.mkdir()
    found = subprocess.run(
        [
            path_of("csi-sanity"),
            f"--csi.endpoint=unix:{driver.socket}",
            f"--csi.mountdir={below / 'mount'}",
            f"--csi.stagingdir={below / 'staging'}",
            f"--ginkgo.skip={NOT_FOR_INLINE_VOLUMES}",
            "--ginkgo.no-color",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4000:]
    ran = re.search(r"Ran (\d+) of \d+ Specs", found.stdout)
    assert ran is not None
    assert int(ran[1]) >= 10
