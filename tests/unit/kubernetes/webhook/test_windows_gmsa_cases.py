"""The integration cases of windows-gmsa by their names, for Linux pods, in a simulated API server.

It does what the API server does: mutate, refuse what no Linux pod may have, validate.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from credspec.kubernetes.webhook.checks import Cluster
from credspec.kubernetes.webhook.review import Endpoint, answer_review
from support.webhook.json_patch import applied
from support.webhook.pods import faults_of
from support.webhook.reviews import CREDSPEC, SimulatedCluster, gmsa, patch_in, review

NAMES = [f"cred-spec-{number}" for number in range(3)]
CONTENTS = json.dumps(CREDSPEC)


class RefusedError(Exception):
    """What the user of kubectl would see."""


def created(pod: dict[str, Any], cluster: Cluster | None = None) -> dict[str, Any]:
    cluster = cluster or SimulatedCluster(
        {name: gmsa(name) for name in NAMES}, {("shop", "web", name) for name in NAMES}
    )
    sent = sent_to(Endpoint.MUTATE, review(pod), cluster)
    made: dict[str, Any] = applied(pod, patch_in(sent))
    faults = faults_of(made)
    if faults:
        raise RefusedError(str(faults))
    # Reinvoked after other webhooks: nothing may change.
    assert not patch_in(sent_to(Endpoint.MUTATE, review(made), cluster))
    sent_to(Endpoint.VALIDATE, review(made), cluster)
    return made


def updated(pod: dict[str, Any], old: dict[str, Any]) -> None:
    cluster = SimulatedCluster({}, set())
    sent_to(Endpoint.VALIDATE, review(pod, operation="UPDATE", old=old), cluster)


def sent_to(endpoint: Endpoint, body: bytes, cluster: Cluster) -> dict[str, Any]:
    answer = asyncio.run(answer_review(body, endpoint, cluster)).document
    if not answer["response"]["allowed"]:
        raise RefusedError(answer["response"]["status"]["message"])
    return answer


def options(name: str | None, contents: str | None = None) -> dict[str, Any]:
    members = {"gmsaCredentialSpecName": name, "gmsaCredentialSpec": contents}
    given = {key: value for key, value in members.items() if value is not None}
    return {"windowsOptions": given} if given else {}


def pod(
    of_pod: dict[str, Any], *of_containers: dict[str, Any], os: str | None = None
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "serviceAccountName": "web",
        "securityContext": of_pod,
        "containers": [
            {"name": f"nginx{index}", "securityContext": each}
            for index, each in enumerate(of_containers or ({},))
        ],
    }
    if os:
        spec["os"] = {"name": os}
    return {"metadata": {"name": "front"}, "spec": spec}


def specs_of(made: dict[str, Any]) -> list[str | None]:
    """Return the spec whose tickets each container has."""
    volumes = {
        each["name"]: each["csi"]["volumeAttributes"]["credentialSpecName"]
        for each in made["spec"].get("volumes", [])
    }
    return [
        next((volumes[mount["name"]] for mount in each.get("volumeMounts", [])), None)
        for each in made["spec"]["containers"]
    ]


OS = pytest.mark.parametrize("os", [None, "linux"])


@OS
def test_simulated_happy_path_with_pod_level_cred_spec(os: str | None) -> None:
    assert specs_of(created(pod(options(NAMES[0]), os=os))) == [NAMES[0]]


@OS
def test_simulated_happy_path_with_container_level_cred_spec(os: str | None) -> None:
    made = created(pod({}, options(NAMES[0]), {}, os=os))
    assert specs_of(made) == [NAMES[0], None]


@OS
def test_simulated_happy_path_with_several_containers(os: str | None) -> None:
    made = created(pod(options(NAMES[1]), options(NAMES[0]), {}, options(NAMES[2]), os=os))
    assert specs_of(made) == [NAMES[0], NAMES[1], NAMES[2]]


@OS
def test_simulated_happy_path_with_pre_set_matching_contents(os: str | None) -> None:
    contents = json.dumps(CREDSPEC, indent=1)
    assert specs_of(created(pod(options(NAMES[0], contents), os=os))) == [NAMES[0]]


def test_simulated_happy_path_with_host_agent_config_in_cred_spec() -> None:
    config = {
        "PluginGUID": "{859E1386-BDB4-49E8-85C7-3070B13920E1}",
        "PluginInput": "contoso.com:gmsaccg:<password>",
        "PortableCcgVersion": "1",
    }
    directory = CREDSPEC["ActiveDirectoryConfig"] | {"HostAccountConfig": config}  # type: ignore[operator]
    document = gmsa(NAMES[0], credspec={**CREDSPEC, "ActiveDirectoryConfig": directory})
    cluster = SimulatedCluster({NAMES[0]: document}, {("shop", "web", NAMES[0])})
    assert specs_of(created(pod(options(NAMES[0])), cluster)) == [NAMES[0]]


@OS
def test_simulated_service_account_does_not_have_permissions_to_use_cred_spec(
    os: str | None,
) -> None:
    cluster = SimulatedCluster({NAMES[0]: gmsa(NAMES[0])}, set())
    expected = 'service account "web" is not authorized to `use` GMSA cred spec "cred-spec-0"'
    for made in (pod(options(NAMES[0]), os=os), pod({}, options(NAMES[0]), os=os)):
        with pytest.raises(RefusedError, match=expected):
            created(made, cluster)


@OS
def test_simulated_cred_spec_does_not_exist(os: str | None) -> None:
    with pytest.raises(RefusedError, match="cred spec i-sure-dont-exist does not exist"):
        created(pod(options("i-sure-dont-exist"), os=os))


@OS
def test_simulated_cannot_pre_set_contents_without_name(os: str | None) -> None:
    expected = "has a GMSA cred spec set, but does not define the name of the corresponding"
    for made in (
        pod(options(None, CONTENTS), os=os),
        pod({}, options(None, CONTENTS), os=os),
    ):
        with pytest.raises(RefusedError, match=expected):
            created(made)


@OS
@pytest.mark.parametrize("contents", ['{"a": "b"}', "{"])
def test_simulated_cannot_pre_set_unmatching_gmsa_settings(os: str | None, contents: str) -> None:
    expected = 'does not match the contents of GMSA resource "cred-spec-0"'
    for made in (
        pod(options(NAMES[0], contents), os=os),
        pod({}, options(NAMES[0], contents), os=os),
    ):
        with pytest.raises(RefusedError, match=expected):
            created(made)


@pytest.mark.parametrize("is_pods", [True, False])
def test_simulated_cannot_update_existing_gmsa_settings(is_pods: bool) -> None:
    def made(name: str, contents: str | None = None) -> dict[str, Any]:
        own = options(name, contents)
        return pod(own) if is_pods else pod({}, own)

    for new in (made(NAMES[1]), made(NAMES[0], CONTENTS), made(NAMES[1], CONTENTS)):
        with pytest.raises(RefusedError, match="cannot update an existing pod's GMSA settings"):
            updated(new, made(NAMES[0]))


@OS
def test_simulated_possible_to_update_pod_with_existing_gmsa_settings(os: str | None) -> None:
    old = created(pod(options(NAMES[0]), os=os))
    new = json.loads(json.dumps(old))
    new["metadata"]["labels"] = {"a": "b"}
    updated(new, old)
