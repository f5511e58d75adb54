"""A namespace of a test cluster, with objects and pods as its users write them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from credspec.lab.domain import Lab
from support.engines.containerd_engine import IMAGE
from support.kubernetes.cluster import Cluster

DEFAULT = "Default principal: {account}$@EXAMPLE.TEST"


class Namespace:
    """A namespace whose Pod Security level is `level`, and what its users do in it."""

    def __init__(
        self, lab: Lab, cluster: Cluster, name: str = "shop", *, level: str = "restricted"
    ) -> None:
        self.cluster = cluster
        self.name = name
        self._lab = lab
        labels = {"pod-security.kubernetes.io/enforce": level}
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
        cluster.wait(
            "the service account",
            lambda: (
                cluster.kubectl_result("get", "serviceaccount", "default", "-n", name).returncode
                == 0
            ),
        )

    def converted(self, account: str, *options: str) -> list[dict[str, Any]]:
        """Return what ``credspec convert --to kubernetes`` prints of an account's spec."""
        spec = Path(self._lab.specs_directory, f"{account}.json")
        if not spec.exists():
            self._lab_command("New-CredentialSpec", "-AccountName", account, "-Path", str(spec))
        form = ("--to", "kubernetes", "--name", account.lower(), "--namespace", self.name)
        shown = self._lab_command("credspec", "convert", str(spec), *form, *options)
        return [each for each in yaml.safe_load_all(shown) if each is not None]

    def allow(self, account: str) -> None:
        """Make an account's object and the right of the service account `default` to use it."""
        self.cluster.apply(*self.converted(account, "--role"))
        self.wait_for_right(account.lower())

    def forbid(self, account: str) -> None:
        """Take the right again."""
        name = f"use-{account.lower()}"
        self.cluster.kubectl("delete", "rolebinding", name, "-n", self.name)
        self.wait_for_right(account.lower(), is_there=False)

    def wait_for_right(self, spec: str, *, is_there: bool = True) -> None:
        """Wait until the API server knows of the change of the right to use an object."""
        who = f"--as=system:serviceaccount:{self.name}:default"
        what = f"gmsacredentialspecs.windows.k8s.io/{spec}"
        asked = ("auth", "can-i", "use", what, "-n", self.name, who)
        answer = "yes" if is_there else "no"
        self.cluster.wait(
            f"{answer} to the use of {spec}",
            lambda: self.cluster.kubectl_result(*asked).stdout.strip() == answer,
        )

    def clear(self) -> None:
        """Delete what runs, and wait until it is gone."""
        options = ("--all", "-n", self.name, "--grace-period=1", "--timeout=120s")
        self.cluster.kubectl("delete", "deployments,jobs,pods", *options, seconds=130)

    def logs(self, pod: str, *options: str) -> str:
        """Return what a pod has printed; nothing if it cannot be had."""
        return self._shown("logs", pod, *options, "-n", self.name)

    def run_in(self, pod: str, *command: str, container: str = "") -> str:
        """Return what a command in a pod prints; nothing if it fails."""
        chosen = ("-c", container) if container else ()
        return self._shown("exec", pod, *chosen, "-n", self.name, "--", *command)

    def klist(self, pod: str) -> str:
        """Return what klist in a pod prints; nothing if there are no tickets."""
        return self.run_in(pod, "klist")

    def events(self, pod: str) -> str:
        """Return the messages of a pod's events."""
        return self.cluster.events(pod, self.name)

    def has_tickets(self, pod: str, account: str = "WebApp01") -> bool:
        """Return whether klist in a pod shows an account's tickets."""
        return DEFAULT.format(account=account) in self.klist(pod)

    def wait_for_tickets(self, pod: str, account: str = "WebApp01") -> None:
        """Wait until klist in a pod shows an account's tickets."""
        self.cluster.wait(
            f"tickets of {account} in {pod}",
            lambda: self.has_tickets(pod, account),
            context=lambda: self.events(pod),
        )

    def wait_ready(self, pod: str) -> None:
        """Wait until all containers of a pod run."""
        options = ("-n", self.name, "--for=condition=Ready", "--timeout=110s")
        self.cluster.kubectl("wait", f"pod/{pod}", *options)

    def refused(self, pod: dict[str, Any]) -> str:
        """Return why the API server does not take a pod.

        Raises:
            AssertionError: it takes it.
        """
        found = self.cluster.kubectl_result("apply", "-f", "-", data=json.dumps(pod))
        assert found.returncode != 0, found.stdout
        return found.stderr

    def refused_at_last(self, pod: dict[str, Any]) -> str:
        """Wait until the webhook has forgotten a right that was taken; return its refusal."""
        text = json.dumps(pod)
        dry_run = ("apply", "--dry-run=server", "-f", "-")
        self.cluster.wait(
            "the refusal",
            lambda: self.cluster.kubectl_result(*dry_run, data=text).returncode != 0,
        )
        return self.refused(pod)

    def _shown(self, *arguments: str) -> str:
        found = self.cluster.kubectl_result(*arguments)
        return found.stdout if found.returncode == 0 else ""

    def _lab_command(self, *command: str) -> str:
        argv = self._lab.exec_argv([str(Path(sys.executable).parent / command[0]), *command[1:]])
        found = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        assert found.returncode == 0, found.stderr
        return found.stdout


def container(name: str = "main", line: str = "sleep 3600", **fields: Any) -> dict[str, Any]:
    """Return a container of the client image that the level `restricted` admits."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", line],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        **fields,
    }


def pod_spec(*containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return the spec of a pod that the level `restricted` admits."""
    context = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "fsGroup": 2000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    context |= fields.pop("securityContext", {})
    return {
        "terminationGracePeriodSeconds": 0,
        "securityContext": context,
        "containers": list(containers or [container()]),
        **fields,
    }


def pod(
    name: str,
    *containers: dict[str, Any],
    namespace: str = "shop",
    annotations: dict[str, str] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Return a pod; `fields` are those of its spec."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations or {}},
        "spec": pod_spec(*containers, **fields),
    }


def asking(name: str, *containers: dict[str, Any], spec: str = "webapp01", **fields: Any) -> Any:
    """Return a pod with the annotation of the webhook."""
    return pod(name, *containers, annotations={"credspec.dev/gmsa": spec}, **fields)


def windows_options(spec: str | None, contents: str | None = None) -> dict[str, Any]:
    """Return the part of a security context by which pods for Windows name a spec."""
    given = {"gmsaCredentialSpecName": spec, "gmsaCredentialSpec": contents}
    return {"windowsOptions": {key: value for key, value in given.items() if value is not None}}


def with_volume(
    name: str, spec: str = "webapp01", *, attributes: dict[str, str] | None = None, **fields: Any
) -> dict[str, Any]:
    """Return a pod with a volume of its own, which no webhook is asked about."""
    environment = {"KRB5CCNAME": "/run/credspec/krb5cc", "KRB5_CONFIG": "/run/credspec/krb5.conf"}
    main = container(
        line=fields.pop("line", "sleep 3600"),
        env=[{"name": key, "value": value} for key, value in environment.items()],
        volumeMounts=[{"name": "gmsa", "mountPath": "/run/credspec"}],
    )
    volume = {
        "driver": "credspec.dev",
        "volumeAttributes": {"credentialSpecName": spec, **(attributes or {})},
    }
    return pod(name, main, volumes=[{"name": "gmsa", "csi": volume}], **fields)
