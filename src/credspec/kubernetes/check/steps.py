"""What ``credspec kubernetes check`` looks at, in the order in which a pod gets its identity."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography import x509

from credspec.errors import CredspecError, NotFoundError, NotPermittedError, UnreachableError
from credspec.kubernetes.check.kubectl import View
from credspec.kubernetes.objects.credential_spec import (
    CredentialSpecObject,
    missing_object,
    object_of,
)
from credspec.kubernetes.objects.names import ANNOTATION, DRIVER, PLURAL
from credspec.kubernetes.webhook.pod import (
    credential_volumes,
    is_for_windows,
    list_in,
    service_account,
    table_in,
    text_in,
)
from credspec.kubernetes.webhook.requested import NAME_FIELD, requested_by
from credspec.printable import printable

NODE_LABELS: Final = "app.kubernetes.io/name=credspec-node"
"""The labels by which the pods of the DaemonSet are found."""

_WEBHOOK: Final = "pods.credspec.dev"
_CONFIGURATIONS: Final = "mutatingwebhookconfigurations"
_MAX_SHOWN: Final = 600
_CODE: Final = re.compile(r"\[([a-z0-9]+(?:-[a-z0-9]+)+)\]")


@dataclass(slots=True, kw_only=True)
class Evidence:
    """What is known so far; each step adds to it. `now` is the time that certificates are for."""

    view: View
    namespace: str
    name: str
    now: datetime
    pod: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    mounted: list[str] = field(default_factory=list)
    objects: list[CredentialSpecObject] = field(default_factory=list)
    node: str = ""
    node_pod: dict[str, Any] = field(default_factory=dict)

    @property
    def specs(self) -> list[str]:
        """The credential specs of the pod, asked for or mounted."""
        return list(dict.fromkeys([*self.asked, *self.mounted]))


def check_pod(evidence: Evidence) -> str:
    """Look whether the pod is there and names a credential spec.

    Raises:
        NotFoundError: `kubernetes-pod-missing`, `kubernetes-pod-without-spec`.
        CredspecError: those of `requested_by`.
    """
    pod = evidence.view.get("pods", evidence.name, evidence.namespace)
    if pod is None:
        raise NotFoundError.of(
            "kubernetes-pod-missing",
            f"there is no pod {evidence.name}",
            where=f"namespace {evidence.namespace}",
            remedy="if a controller cannot make it, its events say why: kubectl get events",
        )
    evidence.pod = pod
    evidence.node = text_in(table_in(pod, "spec"), "nodeName")
    evidence.mounted = [spec for spec in credential_volumes(pod).values() if spec]
    requested = requested_by(pod)
    named = [requested.pod, *requested.of_containers.values()]
    evidence.asked = list(dict.fromkeys(each for each in named if each is not None))
    if not evidence.specs:
        raise NotFoundError.of(
            "kubernetes-pod-without-spec",
            "the pod names no credential spec",
            where=f"pod {evidence.namespace}/{evidence.name}",
            expected=f"the annotation {ANNOTATION}, {NAME_FIELD}, or a volume of {DRIVER}",
            remedy="credspec convert --to kubernetes --pod webhook prints an example",
        )
    return f"names {', '.join(evidence.specs)}"


def check_webhook(evidence: Evidence) -> str:
    """Look whether the pod was given its volumes, and if not, why.

    Raises:
        NotFoundError: `kubernetes-webhook-missing`, `kubernetes-pod-not-injected`.
        NotPermittedError: `kubernetes-pod-for-windows`.
        CredspecError: those of `authority_end`.
    """
    missing = [spec for spec in evidence.asked if spec not in evidence.mounted]
    if not missing:
        return "the pod has its volumes"
    if is_for_windows(evidence.pod):
        raise NotPermittedError.of(
            "kubernetes-pod-for-windows",
            "the pod is one for Windows nodes",
            where="/spec",
            remedy="for a Linux pod, remove the OS or the node selector of Windows",
        )
    webhook = _webhook(evidence.view)
    if webhook is None:
        raise NotFoundError.of(
            "kubernetes-webhook-missing",
            f"no webhook configuration has {_WEBHOOK}",
            where=_CONFIGURATIONS,
            remedy="install the chart with webhook.enabled, or let the pod name a volume",
        )
    check_authority(webhook, evidence.now)
    raise NotFoundError.of(
        "kubernetes-pod-not-injected",
        f"the pod has no volume for {', '.join(missing)}, though the webhook is installed",
        where="/spec/volumes",
        remedy="make the pod again: it is older than the webhook, or the webhook was away and its "
        "failurePolicy is Ignore",
    )


def check_authority(webhook: dict[str, Any], now: datetime) -> datetime:
    """Return until when the API server trusts the webhook.

    Raises:
        UnreachableError: `kubernetes-webhook-authority`.
    """
    bundle = text_in(table_in(webhook, "clientConfig"), "caBundle")
    try:
        certificates = x509.load_pem_x509_certificates(base64.b64decode(bundle, validate=True))
    except (ValueError, binascii.Error):
        certificates = []
    ends = [each.not_valid_after_utc for each in certificates]
    if ends and max(ends) > now:
        return max(ends)
    found = f"it expired at {max(ends):%Y-%m-%d %H:%M} UTC" if ends else "there is none"
    raise UnreachableError.of(
        "kubernetes-webhook-authority",
        found,
        where=f"caBundle of {_WEBHOOK}",
        expected="a certificate that is valid now",
        remedy="look at the log of the webhook, which writes it, or at cert-manager",
    )


def check_object(evidence: Evidence) -> str:
    """Look whether the objects are there and valid.

    Raises:
        CredspecError: `kubernetes-spec-missing`, and those of `object_of`.
    """
    for name in evidence.specs:
        document = evidence.view.get(f"{PLURAL}.windows.k8s.io", name)
        if document is None:
            raise missing_object(name)
        evidence.objects.append(object_of(document))
    accounts = [account for each in evidence.objects for account in each.spec.accounts]
    return f"names the accounts {', '.join(accounts)}"


def check_rights(evidence: Evidence) -> str:
    """Look whether the pod's service account may use the objects.

    Raises:
        NotPermittedError: `kubernetes-use-forbidden`, and those of `View.may_use`.
    """
    account = service_account(evidence.pod)
    for name in evidence.specs:
        if not evidence.view.may_use(evidence.namespace, account, name):
            raise NotPermittedError.of(
                "kubernetes-use-forbidden",
                f"the service account {account} may not use {name}",
                where=f"namespace {evidence.namespace}",
                remedy=f"credspec convert ... --to kubernetes --name {name} --role --namespace "
                f"{evidence.namespace} --service-account {account} | kubectl apply -f -",
            )
    return f"the service account {account} may use them"


def check_node(evidence: Evidence) -> str:
    """Look whether the pod's node has the driver, and whether it is ready.

    Raises:
        UnreachableError: `kubernetes-pod-not-scheduled`, `kubernetes-driver-missing`,
            `kubernetes-driver-not-registered`, `kubernetes-driver-not-ready`.
    """
    if not evidence.node:
        raise UnreachableError.of(
            "kubernetes-pod-not-scheduled",
            "the pod has no node yet",
            where=f"pod {evidence.namespace}/{evidence.name}",
            remedy="kubectl describe pod says what the scheduler waits for",
        )
    where = f"node {evidence.node}"
    pods = evidence.view.find("pods", "", labels=NODE_LABELS)
    own = [each for each in pods if table_in(each, "spec").get("nodeName") == evidence.node]
    if evidence.view.get("csidrivers", DRIVER) is None or not own:
        raise UnreachableError.of(
            "kubernetes-driver-missing",
            "the CSI driver does not run there",
            where=where,
            expected="a pod of the chart's DaemonSet, and the CSIDriver object",
            remedy="install the chart; look at nodes.tolerations and nodes.nodeSelector",
        )
    evidence.node_pod = own[0]
    metadata = table_in(own[0], "metadata")
    shown = f"{text_in(metadata, 'namespace')}/{text_in(metadata, 'name')}"
    for status in list_in(table_in(own[0], "status"), "containerStatuses"):
        if status.get("ready") is not True:
            raise UnreachableError.of(
                "kubernetes-driver-not-ready",
                f"the container {text_in(status, 'name')} of {shown} is not ready",
                where=where,
                remedy=f"kubectl logs --namespace {text_in(metadata, 'namespace')} "
                f"{text_in(metadata, 'name')} -c {text_in(status, 'name')}",
            )
    registered = list_in(
        table_in(evidence.view.get("csinodes", evidence.node) or {}, "spec"), "drivers"
    )
    if DRIVER not in {each.get("name") for each in registered}:
        raise UnreachableError.of(
            "kubernetes-driver-not-registered",
            f"the kubelet does not know the driver {DRIVER}",
            where=where,
            remedy=f"look at the log of csi-driver in {shown}; host.kubeletDirectory must be the "
            "kubelet's --root-dir",
        )
    return f"{shown} runs on {evidence.node}"


def check_volume(evidence: Evidence) -> str:
    """Look whether the volume was mounted.

    Raises:
        UnreachableError: `kubernetes-volume-failed` with what the driver said.
    """
    statuses = [
        status
        for key in ("initContainerStatuses", "containerStatuses")
        for status in list_in(table_in(evidence.pod, "status"), key)
    ]
    if any("running" in table_in(each, "state") for each in statuses):
        return "containers of the pod run"
    events = evidence.view.events_of(evidence.namespace, evidence.name)
    failures = [each for each in events if each.get("reason") == "FailedMount"]
    if failures:
        message = text_in(failures[-1], "message")
        code = _CODE.findall(message)
        raise UnreachableError.of(
            "kubernetes-volume-failed",
            message.rpartition(" desc = ")[2][:_MAX_SHOWN],
            where=f"pod {evidence.namespace}/{evidence.name}",
            remedy=f"docs/errors.md explains {code[-1]}" if code else "kubectl describe pod",
        )
    return "no failure was reported"


def check_domain(evidence: Evidence) -> str:
    """Let the agent of the node walk from the spec to a ticket.

    Raises:
        UnreachableError: `kubernetes-node-check-failed` with the end of what it printed.
    """
    metadata = table_in(evidence.node_pod, "metadata")
    for each in evidence.objects:
        output = evidence.view.run_in(
            text_in(metadata, "namespace"),
            text_in(metadata, "name"),
            "agent",
            ["credspec", "check", "-"],
            each.spec.to_text(),
        )
        if output.status:
            lines = [line.strip() for line in (output.stdout + output.stderr).splitlines()]
            start = next((i for i, x in enumerate(lines) if x.startswith("First cause")), -3)
            raise UnreachableError.of(
                "kubernetes-node-check-failed",
                " | ".join(filter(None, lines[start:]))[:_MAX_SHOWN],
                where=f"node {evidence.node}, spec {each.name}",
                remedy="run it there for all steps: kubectl exec --stdin --namespace "
                f"{text_in(metadata, 'namespace')} {text_in(metadata, 'name')} -c agent -- "
                "credspec check -",
            )
    return "the node gets tickets for them"


STEPS: Final = (
    ("pod", check_pod, ()),
    ("webhook", check_webhook, ("pod",)),
    ("object", check_object, ("pod",)),
    ("rights", check_rights, ("pod",)),
    ("node", check_node, ("pod",)),
    ("volume", check_volume, ("pod", "webhook")),
    ("domain", check_domain, ("object", "node")),
)
"""Name, function, and the steps without which it makes no sense."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended: ``ok``, ``failed`` or ``skipped``, and what it found."""

    name: str
    state: str
    text: str
    error: CredspecError | None = None


def examine(evidence: Evidence) -> list[Result]:
    """Look at everything; a step that needs a failed one is skipped."""
    results: list[Result] = []
    failed: set[str] = set()
    for name, look, needs in STEPS:
        blocking = [each for each in needs if each in failed]
        if blocking:
            failed.add(name)
            results.append(Result(name, "skipped", f"needs {', '.join(blocking)}"))
            continue
        try:
            results.append(Result(name, "ok", printable(look(evidence))))
        except CredspecError as error:
            failed.add(name)
            results.append(Result(name, "failed", str(error), error))
    return results


def _webhook(view: View) -> dict[str, Any] | None:
    for configuration in view.find(_CONFIGURATIONS, ""):
        for webhook in list_in(configuration, "webhooks"):
            if webhook.get("name") == _WEBHOOK:
                return webhook
    return None
