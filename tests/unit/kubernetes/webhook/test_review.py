"""Reviews: windows-gmsa's texts and codes, and whatever else is sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.errors import UnreachableError
from credspec.kubernetes.api.reviews import Decision
from credspec.kubernetes.webhook.review import Answer, Endpoint, answer_review
from support.webhook.reviews import CREDSPEC, SimulatedCluster, gmsa, patch_in, review

USER = ("shop", "web", "webapp01")


def pod(name: str | None = "webapp01", contents: str | None = None, **spec: Any) -> dict[str, Any]:
    options = {"gmsaCredentialSpecName": name, "gmsaCredentialSpec": contents}
    return {
        "metadata": {"name": "front"},
        "spec": {
            "serviceAccountName": "web",
            "securityContext": {"windowsOptions": options},
            "containers": [{"name": "app"}],
            **spec,
        },
    }


def with_container(name: str | None, contents: str | None = None) -> dict[str, Any]:
    options = {"gmsaCredentialSpecName": name, "gmsaCredentialSpec": contents}
    containers = [
        {"name": "other"},
        {"name": "app", "securityContext": {"windowsOptions": options}},
    ]
    return pod(None, containers=containers)


def cluster() -> SimulatedCluster:
    return SimulatedCluster(
        {
            "webapp01": gmsa("webapp01"),
            "empty": gmsa("empty", credspec=None),
            "broken": gmsa("broken", credspec={"CmsPlugins": []}),
        },
        {USER, ("shop", "web", "empty"), ("shop", "web", "broken")},
    )


def answered(body: bytes, endpoint: Endpoint = Endpoint.VALIDATE, asked: Any = None) -> Answer:
    return asyncio.run(answer_review(body, endpoint, asked or cluster()))


def status_of(answer: Answer) -> tuple[int, str]:
    response = answer.document["response"]
    assert response["allowed"] is False
    return response["status"]["code"], response["status"]["message"]


@pytest.mark.parametrize("make", [pod, with_container], ids=["pod", "container"])
@pytest.mark.parametrize(
    ("name", "contents", "code", "text"),
    [
        (
            "other",
            None,
            404,
            "cred spec other does not exist",
        ),
        (
            "empty",
            None,
            417,
            "cred spec empty does not have a credspec key",
        ),
        ("broken", None, 422, "cred spec broken is not valid: "),
        (
            None,
            "{}",
            422,
            "has a GMSA cred spec set, but does not define the name of the corresponding resource",
        ),
        (
            "webapp01",
            '{"a": 1}',
            422,
            'contents for {kind} "{owner}" does not match the contents of GMSA resource "webapp01"',
        ),
        ("webapp01", "not JSON", 422, 'GMSA resource "webapp01": not JSON'),
    ],
)
def test_refusals_are_worded_as_those_of_windows(
    make: Any, name: str | None, contents: str | None, code: int, text: str
) -> None:
    kind, owner = ("pod", "front") if make is pod else ("container", "app")
    found, message = status_of(answered(review(make(name, contents))))
    assert found == code
    assert text.replace("{kind}", kind).replace("{owner}", owner) in message


def test_a_pod_without_a_name_yet_is_called_by_what_its_name_begins_with() -> None:
    made = pod(None, "{}")
    made["metadata"] = {"generateName": "front-7d4b9-"}
    _, message = status_of(answered(review(made)))
    assert 'pod "front-7d4b9-" has a GMSA cred spec set' in message


def test_a_service_account_that_may_not_use_the_spec_is_refused() -> None:
    asked = SimulatedCluster({"webapp01": gmsa("webapp01")}, {("prod", *USER[1:])})
    code, message = status_of(answered(review(pod()), asked=asked))
    assert code == 403
    assert (
        'service account "web" is not authorized to `use` GMSA cred spec "webapp01", '
        'reason: "no rule"'
    ) in message
    assert "[kubernetes-spec-not-authorized]" in message


@pytest.mark.parametrize("contents", [None, json.dumps(CREDSPEC), json.dumps(CREDSPEC, indent=2)])
def test_a_pod_with_the_contents_of_its_spec_passes(contents: str | None) -> None:
    asked = cluster()
    answer = answered(review(pod("webapp01", contents)), asked=asked)
    assert answer.document["response"] == {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "allowed": True,
    }
    assert sorted(asked.asked) == [("get", "webapp01"), ("use", *USER)]


def test_the_replicas_of_a_pod_ask_once_in_five_seconds() -> None:
    asked = cluster()
    for _ in range(20):
        answered(review(pod()), asked=asked)
    assert sorted(asked.asked) == [("get", "webapp01"), ("use", *USER)]
    answered(review(pod(), namespace="prod"), asked=asked)
    assert ("use", "prod", *USER[1:]) in asked.asked
    asked.asked.clear()
    asked.users.clear()
    asked.now += 5
    assert status_of(answered(review(pod()), asked=asked))[0] == 403


def test_a_refusal_is_not_remembered() -> None:
    asked = SimulatedCluster({}, set())
    assert status_of(answered(review(pod()), asked=asked))[0] == 404
    asked.objects["webapp01"] = gmsa("webapp01", credspec={"CmsPlugins": []})
    asked.users.add(USER)
    assert status_of(answered(review(pod()), asked=asked))[0] == 422
    asked.users.clear()
    asked.objects["webapp01"] = gmsa("webapp01")
    assert status_of(answered(review(pod()), asked=asked))[0] == 403
    asked.users.add(USER)
    assert answered(review(pod()), asked=asked).document["response"]["allowed"]


@pytest.mark.parametrize("make", [pod, with_container], ids=["pod", "container"])
def test_contents_are_compared_with_the_object_as_it_is_now(make: Any) -> None:
    asked = cluster()
    made = review(make("webapp01", json.dumps(CREDSPEC)))
    assert answered(made, asked=asked).document["response"]["allowed"]
    asked.objects["webapp01"] = gmsa("webapp01", credspec=CREDSPEC | {"CmsPlugins": ["Other"]})
    assert status_of(answered(made, asked=asked))[0] == 422


def test_a_volume_without_the_webhook_is_checked_too() -> None:
    csi = {"driver": "credspec.dev", "volumeAttributes": {"credentialSpecName": "other"}}
    made = pod(None, volumes=[{"name": "t", "csi": csi}])
    assert status_of(answered(review(made)))[0] == 404


def test_a_pod_for_windows_is_left_to_windows_gmsa() -> None:
    asked = cluster()
    answer = answered(review(pod("other", os={"name": "windows"})), asked=asked)
    assert answer.document["response"]["allowed"]
    assert not asked.asked


def test_a_pod_without_any_of_it_asks_the_cluster_nothing() -> None:
    asked = cluster()
    assert answered(review(pod(None)), asked=asked).document["response"]["allowed"]
    assert not asked.asked


class Away(SimulatedCluster):
    async def may_use(self, *_: str) -> Decision:
        raise UnreachableError.of("kubernetes-api-unreachable", "no answer")


def test_an_api_server_that_is_away_refuses_with_its_reason() -> None:
    asked = Away({"webapp01": gmsa("webapp01")}, set())
    code, message = status_of(answered(review(pod()), asked=asked))
    assert code == 500
    assert "unable to retrieve the contents of cred spec webapp01: no answer" in message


def test_many_specs_are_refused_before_the_cluster_is_asked() -> None:
    names = [f"s{number}" for number in range(17)]
    containers = [
        {"name": name, "securityContext": {"windowsOptions": {"gmsaCredentialSpecName": name}}}
        for name in names
    ]
    known = SimulatedCluster(
        {name: gmsa(name) for name in names}, {("shop", "web", name) for name in names}
    )
    answer = answered(review(pod(None, containers=containers[:16])), asked=known)
    assert answer.document["response"]["allowed"]
    asked = cluster()
    code, message = status_of(answered(review(pod(None, containers=containers)), asked=asked))
    assert (code, "kubernetes-too-many-specs" in message, asked.asked) == (422, True, [])


HOSTILE = st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs", "L"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(HOSTILE, HOSTILE, HOSTILE, st.sampled_from(Endpoint))
def test_no_text_of_a_pod_forges_a_line_or_moves_the_cursor(
    name: str, path: str, account: str, endpoint: Endpoint
) -> None:
    """Refusals and warnings are printed by kubectl, and logged by the webhook."""
    mount = {"name": "t", "mountPath": f"/etc/{path}", "subPath": "krb5.conf"}
    made = pod(
        None,
        serviceAccountName=account,
        containers=[{"name": name, "volumeMounts": [mount]}],
        volumes=[
            {
                "name": "t",
                "csi": {
                    "driver": "credspec.dev",
                    "volumeAttributes": {"credentialSpecName": "webapp01"},
                },
            }
        ],
    )
    made["metadata"] |= {"name": name, "annotations": {"credspec.dev/gmsa": "webapp01"}}
    response = answered(review(made), endpoint).document["response"]
    shown = [*response.get("warnings", ()), response.get("status", {}).get("message", "")]
    assert any(shown)
    assert all(each.isprintable() for each in shown)


@pytest.mark.parametrize(
    ("new", "old", "text"),
    [
        (pod("a"), pod("b"), 'GMSA name modified on pod "front"'),
        (pod("a", "{}"), pod("a"), 'GMSA contents modified on pod "front"'),
        (pod("a", "{}"), pod("b"), 'GMSA name and contents modified on pod "front"'),
        (pod(None), pod("b"), 'GMSA name modified on pod "front"'),
        (with_container("a"), with_container("b"), 'GMSA name modified on container "app"'),
        (
            {"metadata": {"name": "front", "annotations": {"credspec.dev/gmsa": "a"}}},
            {"metadata": {"name": "front"}},
            'GMSA name modified on pod "front"',
        ),
    ],
)
def test_the_identity_of_a_pod_cannot_be_changed(new: Any, old: Any, text: str) -> None:
    code, message = status_of(answered(review(new, operation="UPDATE", old=old)))
    assert code == 403
    assert f"cannot update an existing pod's GMSA settings ({text})" in message


@pytest.mark.parametrize("made", [pod("a", "{}"), with_container("a"), pod(None), {}])
def test_another_change_of_a_pod_passes(made: dict[str, Any]) -> None:
    new = {**made, "metadata": {"name": "front", "labels": {"a": "b"}}}
    old = {**made, "metadata": {"name": "front"}}
    for endpoint in Endpoint:
        answer = answered(review(new, operation="UPDATE", old=old), endpoint)
        assert answer.document["response"] == {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "allowed": True,
        }


def test_mutation_asks_the_cluster_nothing() -> None:
    asked = cluster()
    operations = patch_in(answered(review(pod()), Endpoint.MUTATE, asked).document)
    assert operations[-1]["path"] == "/metadata/annotations"
    assert not asked.asked


def linux(contents: str) -> dict[str, Any]:
    """Return a Linux pod that names its spec; one of its containers has contents as well."""
    options = {"gmsaCredentialSpecName": "webapp01", "gmsaCredentialSpec": contents}
    containers = [{"name": "app", "securityContext": {"windowsOptions": options}}]
    return pod(containers=containers, os={"name": "linux"})


def test_contents_are_looked_at_before_they_are_removed() -> None:
    assert patch_in(answered(review(linux(json.dumps(CREDSPEC))), Endpoint.MUTATE).document)
    code, message = status_of(answered(review(linux("{}")), Endpoint.MUTATE))
    assert (code, "kubernetes-contents-differ" in message) == (422, True)


def test_contents_that_cannot_be_looked_at_are_not_removed() -> None:
    class Unread(SimulatedCluster):
        async def credential_spec(self, _: str) -> dict[str, Any] | None:
            raise UnreachableError.of("kubernetes-api-unreachable", "no answer")

    body = review(linux(json.dumps(CREDSPEC)))
    code, message = status_of(answered(body, Endpoint.MUTATE, Unread({}, set())))
    assert (code, "kubernetes-spec-unreadable" in message) == (500, True)


@pytest.mark.parametrize("sub_resource", ["binding", "status", "resize"])
@pytest.mark.parametrize("operation", ["CREATE", "UPDATE"])
@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_other_subresources_pass_as_they_are(
    sub_resource: str, operation: str, endpoint: Endpoint
) -> None:
    asked = cluster()
    csi = {"driver": "credspec.dev", "volumeAttributes": {"credentialSpecName": "webapp01"}}
    made = pod(volumes=[{"name": "t", "csi": csi}], ephemeralContainers=[{"name": "debug"}])
    body = review(made, operation=operation, old=pod("b"), sub_resource=sub_resource)
    assert not patch_in(answered(body, endpoint, asked).document)
    assert not asked.asked


@pytest.mark.parametrize("name", ["", None])
def test_a_name_that_is_empty_asks_for_nothing(name: str | None) -> None:
    for endpoint in Endpoint:
        assert not patch_in(answered(review(pod(name, name)), endpoint).document)


def test_ephemeral_containers_are_patched_by_their_subresource_only() -> None:
    csi = {"driver": "credspec.dev", "volumeAttributes": {"credentialSpecName": "webapp01"}}
    old = pod(None, volumes=[{"name": "t", "csi": csi}])
    new = {**old, "spec": {**old["spec"], "ephemeralContainers": [{"name": "debug"}]}}
    body = review(new, operation="UPDATE", old=old, sub_resource="ephemeralcontainers")
    paths = {each["path"] for each in patch_in(answered(body, Endpoint.MUTATE).document)}
    assert paths == {f"/spec/ephemeralContainers/0/{key}" for key in ("volumeMounts", "env")}
    assert not patch_in(
        answered(review(new, operation="UPDATE", old=old), Endpoint.MUTATE).document
    )
    assert answered(body).document["response"]["allowed"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "unable to unmarshall JSON body as an admission review: not JSON"),
        (b"{" * 100_000, "admission review: not JSON"),
        (b"[" * 100_000, "admission review: "),
        (b"\xff", "admission review: not JSON"),
        (b"[]", "it is no AdmissionReview"),
        (b"{}", "no 'Request' field in JSON body"),
        (b'{"kind": "Pod"}', "it is no AdmissionReview"),
        (
            b'{"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "a"}}',
            "it is of 'admission.k8s.io/v1beta1'",
        ),
        (b'{"request": {"uid": 1}}', "it has no uid"),
        (b'{"request": {"uid": ""}}', "it has no uid"),
        (b'{"request": {"uid": "%s"}}' % (b"a" * 129), "it has no uid"),
    ],
)
def test_what_is_no_review_is_refused(body: bytes, text: str) -> None:
    answer = answered(body)
    code, message = status_of(answer)
    assert (answer.http_status, code) == (400, 400)
    assert text in message


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
            "expected a Pod object, got a Deployment",
        ),
        ({"kind": {"group": "x.example", "version": "v1", "kind": "Pod"}}, "expected a Pod object"),
        ({"kind": None}, "expected a Pod object, got a None"),
        ({"operation": "DELETE"}, "unexpected operation DELETE"),
        ({"object": None}, "unable to unmarshall pod JSON object"),
        ({"operation": "UPDATE"}, "unable to unmarshall pod JSON object"),
        ({"object": {"spec": []}}, "unable to unmarshall pod JSON object: spec is not an object"),
    ],
)
@pytest.mark.parametrize("endpoint", list(Endpoint))
def test_what_is_no_pod_is_refused(members: Any, text: str, endpoint: Endpoint) -> None:
    answer = answered(review(pod(), **members), endpoint)
    code, message = status_of(answer)
    assert (answer.http_status, code) == (200, 400)
    assert text in message
    assert answer.document["response"]["uid"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["request", "uid", "kind", "object", "oldObject", "operation", "apiVersion", "spec"]
            ),
            inner,
        )
    ),
)


@settings(max_examples=200)
@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
def test_no_body_makes_it_raise(body: bytes) -> None:
    for endpoint in Endpoint:
        assert answered(body, endpoint).document["kind"] == "AdmissionReview"
