"""With Podman, neither an image nor a Dockerfile chooses an identity or an option."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from support.engines.engine_command import run_client
from support.engines.folder_engine import FolderPodmanEngine, ReleaseFolder
from support.engines.podman_engine import PodmanEngine

IMAGE = "kerberos-client"
SPEC = "--annotation=credspec.dev/spec=file://WebApp01.json"
CONFIRMED = "--tmpfs=/run/credspec"
DEFAULT = "Default principal: WebApp01$@EXAMPLE.TEST"
OPTIONS = {"mode": "0666", "keytab": "true", "owner": "1000:1000"}
SHOW = ("sh", "-c", "stat -c '%a %u' /run/credspec/krb5cc; ls /run/credspec")
WAYS = {"runtime": ("--runtime=credspec",), "hooks": ()}

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def engine(host: Any, engines_folder: ReleaseFolder | None) -> Iterator[PodmanEngine]:
    if engines_folder is None:
        running = PodmanEngine(host.config.run_directory)
    else:
        running = FolderPodmanEngine(host.config.run_directory, engines_folder)
    try:
        imported = running.podman("import", "-", IMAGE, data=host.image)
        assert imported.returncode == 0, imported.stderr
        yield running
    finally:
        running.close()


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, engine: PodmanEngine) -> Run:
    def call(*arguments: str) -> CompletedProcess[str]:
        hooks = request.param == "hooks"
        words = ("run", "--rm", "--network=none", *arguments)
        return engine.podman(*WAYS[request.param], *words, hooks=hooks)

    return call


@pytest.fixture(autouse=True)
def nothing_left(host: Any) -> Iterator[None]:
    yield
    end = time.monotonic() + 60
    while (host.leases() or host.mounts()) and time.monotonic() < end:
        time.sleep(0.1)
    assert (host.leases(), host.mounts()) == ([], [])


def grants(host: Any) -> int:
    log = host.config.audit_log
    lines = log.read_text().splitlines() if log.exists() else []
    return sum(json.loads(line).get("decision") == "granted" for line in lines)


def build(engine: PodmanEngine, dockerfile: str, name: str, annotations: dict[str, str]) -> None:
    words = [f"--annotation={key}={value}" for key, value in annotations.items()]
    built = engine.podman(
        "build", "--quiet", "--network=none", *words, "-t", name, "-", data=dockerfile.encode()
    )
    assert built.returncode == 0, built.stderr


def passes_images_annotations_on(engine: PodmanEngine) -> bool:
    """Podman 4 does, Podman 5 does not."""
    return int(engine.podman("--version").stdout.split()[-1].partition(".")[0]) < 5


@pytest.mark.parametrize("option", OPTIONS)
def test_an_images_annotation_is_no_option(
    host: Any, engine: PodmanEngine, run: Run, option: str
) -> None:
    build(engine, f"FROM {IMAGE}\n", "hostile", {f"credspec.dev/{option}": OPTIONS[option]})
    before = grants(host)
    shown = run(SPEC, CONFIRMED, "hostile", *SHOW)
    if not passes_images_annotations_on(engine):
        assert shown.stdout == "600 0\nkrb5.conf\nkrb5cc\n", shown.stderr
        return
    assert shown.returncode != 0
    assert "[option-unconfirmed]" in shown.stderr
    assert f"credspec.dev/{option}" in shown.stderr
    assert grants(host) == before


def test_an_option_of_the_user_counts_over_the_images(engine: PodmanEngine, run: Run) -> None:
    build(engine, f"FROM {IMAGE}\n", "hostile", {"credspec.dev/mode": "0666"})
    mode = "--annotation=credspec.dev/mode=0440"
    shown = run(SPEC, CONFIRMED, mode, "hostile", *SHOW)
    assert shown.stdout.startswith("440 0\n"), shown.stderr


LINK = f"FROM {IMAGE}\nRUN rm -rf /tmp && ln -s /run/credspec /tmp\n"
INIT = """\
WORKDIR /usr/local/sbin
RUN ln -s /bin/sh init
CMD ["/usr/local/sbin/init", "-c", "klist"]
"""


@pytest.mark.parametrize(
    ("options", "dockerfile"),
    [
        (("--read-only",), LINK),
        (("--tmpfs=/tmp",), LINK),
        # What Podman takes for systemd has such file systems without being asked.
        ((), LINK + INIT),
        (("--image-volume=tmpfs",), f"FROM {IMAGE}\nVOLUME /run/credspec\n"),
        ((CONFIRMED,), f"FROM {IMAGE}\n"),
    ],
    ids=["read-only", "another tmpfs", "init", "image volume", "confirmed"],
)
def test_an_images_annotation_chooses_no_identity(
    host: Any, engine: PodmanEngine, run: Run, options: tuple[str, ...], dockerfile: str
) -> None:
    """By whatever way an image has a tmpfs made where the tickets go."""
    annotations = {"credspec.dev/spec": "file://WebApp01.json", "io.container.manager": "docker"}
    build(engine, dockerfile, "hostile", annotations)
    before = grants(host)
    command = () if "CMD" in dockerfile else ("klist",)
    shown = run(*options, "hostile", *command)
    assert "WebApp01" not in shown.stdout
    if passes_images_annotations_on(engine):
        assert shown.returncode != 0
        assert "[spec-carrier-unconfirmed]" in shown.stderr
    assert grants(host) == before


def test_an_image_takes_no_identity_away(engine: PodmanEngine, run: Run) -> None:
    """One that calls its container a pod's sandbox still has what its user asks for."""
    sandbox = {"io.kubernetes.cri-o.ContainerType": "sandbox"}
    build(engine, f"FROM {IMAGE}\n", "hostile", sandbox)
    shown = run(SPEC, CONFIRMED, "hostile", "klist")
    assert DEFAULT in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    "name",
    [
        *("Credspec.dev/spec", "credspec.dev/specs", " credspec.dev/spec", "credspec.dev./spec"),
        *("credspec.dev%2Fspec", "cred\u017fpec.dev/spec", "credspec.dev/KEYTAB"),
    ],
)
def test_a_name_is_right_or_refused(run: Run, name: str) -> None:
    shown = run(f"--annotation={name}=file://WebApp01.json", CONFIRMED, IMAGE, "klist")
    assert shown.returncode != 0
    assert "[carrier-misspelt]" in shown.stderr, shown.stderr


def test_a_variable_is_no_carrier(host: Any, engine: PodmanEngine) -> None:
    shown = engine.podman(
        *("--runtime=credspec", "run", "--rm", "--network=none"),
        *("-e", "CREDSPEC=file://WebApp01.json", CONFIRMED, IMAGE, "klist"),
    )
    assert shown.returncode != 0
    assert "[spec-carrier-unconfirmed]" in shown.stderr
    assert "credspec.dev/spec" in shown.stderr


STEAL = "cat /run/credspec/krb5cc /run/credspec/krb5.keytab > /stolen 2>/dev/null; klist || true"
DOCKERFILES = {
    "variable": "ENV CREDSPEC=file://WebApp01.json CREDSPEC_KEYTAB=true CREDSPEC_MODE=0644\n",
    "nothing": "",
}


@pytest.mark.parametrize("builder", ["podman", "podman-hooks", "podman-default", "buildah"])
@pytest.mark.parametrize("carrier", DOCKERFILES)
def test_a_build_has_no_identity(
    host: Any, engine: PodmanEngine, tmp_path: Path, builder: str, carrier: str
) -> None:
    """Whatever its Dockerfile and its base image say, and with a tmpfs, which it may ask for."""
    if builder == "buildah" and shutil.which("buildah") is None:
        pytest.skip("Buildah is not installed")
    annotated = {"credspec.dev/spec": "file://WebApp01.json", "credspec.dev/keytab": "true"}
    build(engine, f"FROM {IMAGE}\n", "hostile-base", annotated)
    (tmp_path / "Dockerfile").write_text(
        f"FROM hostile-base\n{DOCKERFILES[carrier]}"
        f"RUN --mount=type=tmpfs,target=/run/credspec sh -c '{STEAL}'\n"
    )
    words = ["--network=none", "--annotation=credspec.dev/spec=file://WebApp01.json"]
    words += ["-t", f"stolen-{builder}-{carrier}", str(tmp_path)]
    before = grants(host)
    if builder == "buildah":
        shown = buildah(engine, "build", "--runtime", str(engine.setup.launcher), *words)
    elif builder == "podman-default":
        shown = with_default_runtime(engine, "build", *words)
    elif builder == "podman-hooks":
        shown = engine.podman("build", *words, hooks=True)
    else:
        shown = engine.podman("--runtime=credspec", "build", *words)
    said = shown.stdout + shown.stderr
    assert "WebApp01$" not in said
    if carrier == "variable" and builder != "podman-hooks":
        assert shown.returncode != 0
        assert "[spec-in-build]" in said, said
    else:
        assert shown.returncode == 0, said
        run = ("run", "--rm", "--network=none", "-e", "CREDSPEC=", words[-2])
        taken = engine.podman(*run, "stat", "-c", "%s", "/stolen")
        assert taken.stdout == "0\n", taken.stderr
    assert grants(host) == before


def buildah(engine: PodmanEngine, *arguments: str) -> CompletedProcess[str]:
    storage = ["--root", f"{engine.directory}/root", "--runroot", f"{engine.run}/storage"]
    command = ["buildah", *storage, "--storage-driver=vfs", *arguments]
    return run_client(command, environment=engine.environment | {"BUILDAH_ISOLATION": "oci"})


def with_default_runtime(engine: PodmanEngine, *arguments: str) -> CompletedProcess[str]:
    config = engine.directory / "default.conf"
    text = Path(engine.environment["CONTAINERS_CONF"]).read_text()
    config.write_text(f'[engine]\nruntime = "credspec"\n{text}')
    command = engine.command(*arguments, hooks=False)
    return run_client(command, environment=os.environ | {"CONTAINERS_CONF": str(config)})


def test_no_user_of_the_host_reaches_a_containers_tickets(host: Any, engine: PodmanEngine) -> None:
    options = ["--annotation=credspec.dev/mode=0644", "--network=none", "--name=h1"]
    started = engine.podman(
        "--runtime=credspec", "run", "-d", SPEC, CONFIRMED, *options, IMAGE, "sleep", "600"
    )
    assert started.returncode == 0, started.stderr
    try:
        [mount] = host.mounts()
        pid = engine.podman("inspect", "--format", "{{.State.Pid}}", "h1").stdout.strip()
        for path in (f"{mount}/krb5cc", f"/proc/{pid}/root/run/credspec/krb5cc"):
            assert Path(path).stat().st_mode & 0o777 == 0o644
            command = ["setpriv", "--reuid=games", "--regid=games", "--clear-groups"]
            got = subprocess.run([*command, "cat", path], capture_output=True, check=False)
            assert (got.returncode, got.stdout) == (1, b"")
    finally:
        engine.podman("rm", "--force", "--time", "0", "h1")
