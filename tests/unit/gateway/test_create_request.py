from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract import names
from credspec.contract.lease_environment import LEASE_ENVIRONMENT
from credspec.contract.ticket_options import ANNOTATIONS, VARIABLES
from credspec.errors import InvalidSpecError, UsageError
from credspec.gateway.create_request import (
    CreateBody,
    CreateTarget,
    parse_target,
    parse_version,
)
from credspec.gateway.json_object import JsonObject
from support.specs.spellings import spellings

OPTION = "credentialspec=file://www.json"
OLD, NEW = (1, 42), (1, 43)
CONFIRMED = {"SecurityOpt": None, "Runtime": "credspec", "Tmpfs": {"/run/credspec": ""}}
NO_OPTIONS = [
    *("CREDSPEC_OWNER=", "CREDSPEC_MODE=", "CREDSPEC_KEYTAB="),
    *("CREDSPEC_TICKETS=", "CREDSPEC_SERVICES="),
]
TICKETS = [f"{name}={value}" for name, value in LEASE_ENVIRONMENT.items()]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)
ours = {"hostconfig", "env", "securityopt", "runtime", "annotations"}
members = st.dictionaries(
    st.text().filter(lambda key: key.casefold() not in ours), json_values, max_size=5
)


def rewritten(document: Any, version: tuple[int, int] = OLD) -> Any:
    """Return what dockerd is sent, without the record that test_inspect_answer.py is about."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    create = CreateBody.unpack(data)
    assert create is not None
    sent = json.loads(create.pack(version))
    (config,) = (value for key, value in sent.items() if key.casefold() == "hostconfig")
    annotations = config.get("Annotations", {})
    if version < (1, 43):
        (record,) = (key for key in config["Tmpfs"] if key.startswith("/run/credspec/requested="))
        del config["Tmpfs"][record]
        assert not set(annotations) & set(ANNOTATIONS), "dockerd would drop them"
    else:
        annotations.pop("credspec.dev/requested", None)
    return sent


def request(*options: str, **host_config: Any) -> dict[str, Any]:
    return {"Image": "x", "HostConfig": {"SecurityOpt": list(options), **host_config}}


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("POST", "/v1.41/containers/create?name=a", CreateTarget((1, 41))),
        ("POST", "/containers/create", CreateTarget(None)),
        ("GET", "/containers/create", None),
        ("POST", "/v1.41/containers/create/", None),
        ("POST", "/v1.41/containers/created", None),
        ("POST", "/v1.41/containers/x/start?a=/containers/create", None),
        ("POST", "/v1.41/services/create", None),
    ],
)
def test_target(method: str, target: str, expected: CreateTarget | None) -> None:
    assert parse_target(method, target) == expected


def test_version() -> None:
    assert parse_version(" 1.41 ") == (1, 41)
    assert parse_version("one") is None


def test_old_daemons_get_an_environment_variable() -> None:
    document = rewritten(request(OPTION) | {"Env": ["A=1"]})
    assert document["Env"] == ["A=1", *TICKETS, "CREDSPEC=file://www.json", *NO_OPTIONS]
    assert document["HostConfig"] == CONFIRMED


LABELS = {
    "credspec.dev/owner": "1000:1000",
    "credspec.dev/mode": "0440",
    "credspec.dev/keytab": "true",
    "other": "x",
}


def test_labels_become_options() -> None:
    document = rewritten(request(OPTION) | {"Labels": LABELS}, NEW)
    assert document["Labels"] == LABELS
    wanted = {name: value for name, value in LABELS.items() if name != "other"}
    assert document["HostConfig"]["Annotations"] == {
        "credspec.dev/spec": "file://www.json",
        **wanted,
    }
    assert "KRB5_KTNAME=/run/credspec/krb5.keytab" in document["Env"]
    document = rewritten(request(OPTION) | {"Labels": LABELS, "Env": ["CREDSPEC_MODE=0440"]}, OLD)
    assert document["Env"][-6:] == [
        "CREDSPEC=file://www.json",
        "CREDSPEC_OWNER=1000:1000",
        "CREDSPEC_MODE=0440",
        "CREDSPEC_KEYTAB=true",
        "CREDSPEC_TICKETS=",
        "CREDSPEC_SERVICES=",
    ]
    assert document["Env"].count("CREDSPEC_MODE=0440") == 1
    # Images set variables, too: what confirms each of them for the shim is a tmpfs.
    assert document["HostConfig"]["Tmpfs"] == {
        "/run/credspec": "",
        "/run/credspec/owner=1000:1000": "",
        "/run/credspec/mode=0440": "",
        "/run/credspec/keytab=true": "",
    }


def test_tickets_of_services_by_labels() -> None:
    labels = {
        "credspec.dev/tickets": "services",
        "credspec.dev/services": "HTTP/www.a.test,MSSQLSvc/sql.a.test:1433",
    }
    document = rewritten(request(OPTION) | {"Labels": labels}, NEW)
    assert document["HostConfig"]["Annotations"].items() >= labels.items()
    document = rewritten(request(OPTION) | {"Labels": labels}, OLD)
    assert document["Env"][-1] == f"CREDSPEC_SERVICES={labels['credspec.dev/services']}"
    assert document["HostConfig"]["Tmpfs"] == {
        "/run/credspec": "",
        "/run/credspec/tickets=services": "",
        f"/run/credspec/services={labels['credspec.dev/services']}": "",
    }
    for wrong, code in (
        ({"credspec.dev/tickets": "services"}, "tickets-options"),
        (labels | {"credspec.dev/keytab": "true"}, "tickets-options"),
        (labels | {"credspec.dev/services": "krbtgt/A.TEST"}, "option-invalid"),
    ):
        for version in (OLD, NEW):
            with pytest.raises(UsageError, match=code):
                rewritten(request(OPTION) | {"Labels": wrong}, version)


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("value", ["CREDSPEC_MODE=0444", "CREDSPEC_KEYTAB=true"])
def test_an_option_as_a_variable_is_refused_not_dropped(
    version: tuple[int, int], value: str
) -> None:
    with pytest.raises(UsageError, match="docker-variable-option"):
        rewritten(request(OPTION) | {"Env": [value]}, version)


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize(
    ("name", "value"), [("owner", "app"), ("mode", "0777"), ("keytab", "x"), ("owner", "../../etc")]
)
def test_options_that_are_none_are_refused(version: tuple[int, int], name: str, value: str) -> None:
    with pytest.raises(UsageError, match="option-invalid"):
        rewritten(request(OPTION) | {"Labels": {f"credspec.dev/{name}": value}}, version)


def test_the_clients_own_annotation_wins_over_a_label() -> None:
    wanted = request(OPTION) | {"Labels": LABELS}
    wanted["HostConfig"]["Annotations"] = {"credspec.dev/mode": "0400"}
    assert rewritten(wanted, NEW)["HostConfig"]["Annotations"]["credspec.dev/mode"] == "0400"
    assert "CREDSPEC_MODE=0400" in rewritten(wanted, OLD)["Env"]


@pytest.mark.parametrize("labels", [[], "x", 5])
def test_labels_that_are_none(labels: object) -> None:
    with pytest.raises(UsageError, match="docker-wrong-type"):
        rewritten(request(OPTION) | {"Labels": labels})


def test_the_clients_own_tmpfs_stay() -> None:
    wanted = request(OPTION)
    wanted["HostConfig"]["Tmpfs"] = {"/scratch": "size=1m", "/run/credspec": "uid=5"}
    config = rewritten(wanted)["HostConfig"]
    assert config["Tmpfs"] == {"/scratch": "size=1m", "/run/credspec": ""}


def test_variables_of_the_client_stay_what_they_are() -> None:
    document = rewritten(request(OPTION) | {"Env": ["KRB5CCNAME=FILE:/mine"]}, NEW)
    assert document["Env"] == ["KRB5CCNAME=FILE:/mine", *TICKETS[1:]]


def test_new_daemons_get_an_annotation() -> None:
    document = rewritten(request(OPTION, Annotations={"a": "b"}) | {"Env": ["A=1"]}, NEW)
    assert document["Env"] == ["A=1", *TICKETS]
    expected = {"a": "b", "credspec.dev/spec": "file://www.json"}
    assert document["HostConfig"]["Annotations"] == expected


def test_other_options_stay_in_order_and_the_last_spec_wins() -> None:
    options = ["seccomp=unconfined", "CredentialSpec=FILE://a.json", "no-new-privileges", OPTION]
    document = rewritten(request(*options))
    assert document["HostConfig"]["SecurityOpt"] == ["seccomp=unconfined", "no-new-privileges"]
    assert document["Env"] == [*TICKETS, "CREDSPEC=file://www.json", *NO_OPTIONS]


def test_a_raw_document_is_carried_verbatim() -> None:
    raw = '{"a": "=://\\u00e9\\"", "b": 1.50}'
    document = rewritten(request(f"credentialspec=raw://{raw}"))
    assert document["Env"] == [*TICKETS, f"CREDSPEC=raw://{raw}", *NO_OPTIONS]


@pytest.mark.parametrize("version", [OLD, NEW])
def test_the_option_wins_over_carriers_of_the_client(version: tuple[int, int]) -> None:
    document = rewritten(
        request(OPTION, Annotations={"credspec.dev/spec": "file://evil.json"})
        | {"Env": ["CREDSPEC=file://evil.json", "CREDSPEC", "CREDSPEC_OTHER=1"]},
        version,
    )
    assert "evil" not in json.dumps(document)
    assert json.dumps(document).count("file://www.json") == 1
    assert "CREDSPEC_OTHER=1" in document["Env"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"HostConfig": null}',
        b'{"HostConfig": []}',
        b'{"HostConfig": {"SecurityOpt": "credentialspec=rubbish"}}',
        b'{"HostConfig": {"SecurityOpt": [1, "credentialspec=file://a"]}}',
        b'{"HostConfig": {"SecurityOpt": ["seccomp=unconfined"]}} ',
        b'{"HostConfig": {"SecurityOpt": ["credentialspec=file://a"]}} more',
        b'{"a": NaN, "HostConfig": {"SecurityOpt": ["credentialspec=file://a"]}}',
    ],
)
def test_what_the_daemon_is_to_have_as_it_is(data: bytes) -> None:
    assert CreateBody.unpack(data) is None


@given(members)
def test_a_request_without_the_option_is_never_touched(document: dict[str, Any]) -> None:
    assert CreateBody.unpack(json.dumps(document).encode()) is None


@given(st.binary())
def test_no_bytes_break_it(data: bytes) -> None:
    assert CreateBody.unpack(data) is None


@given(members, members, st.booleans())
def test_unknown_members_survive(
    body: dict[str, Any], config: dict[str, Any], ascii_only: bool
) -> None:
    document = body | {"HostConfig": config | {"SecurityOpt": [OPTION]}}
    data = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    result = rewritten(data)
    assert {key: result[key] for key in body} == body
    assert {key: result["HostConfig"][key] for key in config} == config


def test_numbers_repeated_keys_and_invalid_utf_8_survive_as_written() -> None:
    kept = b'"A":1e400,"A":123456789012345678901234567890.10,"B":"\xff\\ud800\\/"'
    data = b'{%b,"HostConfig":{%b,"SecurityOpt":["%b"]}}' % (kept, kept, OPTION.encode())
    create = CreateBody.unpack(data)
    assert create is not None
    assert create.pack(NEW).count(kept) == 2


def test_keys_count_in_any_letter_case_as_for_the_daemon() -> None:
    result = rewritten({"hostconfig": {"securityopt": [OPTION], "RUNTIME": ""}, "env": ["A=1"]})
    assert result == {
        "hostconfig": {
            "securityopt": None,
            "RUNTIME": "credspec",
            "Tmpfs": {"/run/credspec": ""},
        },
        "env": ["A=1", *TICKETS, "CREDSPEC=file://www.json", *NO_OPTIONS],
    }


@pytest.mark.parametrize("runtime", ["crun", "runsc", "kata", "RUNC", 1, [1], {"a": 1}])
def test_another_runtime_is_a_conflict(runtime: object) -> None:
    with pytest.raises(UsageError, match="docker-runtime-conflict"):
        rewritten(request(OPTION, Runtime=runtime))


@pytest.mark.parametrize("runtime", [None, "", "credspec", "runc", "io.containerd.runc.v2"])
def test_our_runtime_or_runc_or_none_is_no_conflict(runtime: object) -> None:
    """Inspect shows runc of any other container, and tools copy it from there."""
    assert rewritten(request(OPTION, Runtime=runtime))["HostConfig"]["Runtime"] == "credspec"


@pytest.mark.parametrize("present", [[], ["crun"], ["runc"], ["runc", "crun"]])
def test_runc_is_a_conflict_where_our_runtime_runs_crun(
    present: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in present:
        (tmp_path / name).touch(0o755)
    monkeypatch.setattr(names, "_SEARCH_PATH", str(tmp_path))
    if present == ["crun"]:
        with pytest.raises(UsageError, match="docker-runtime-conflict"):
            rewritten(request(OPTION, Runtime="runc"))
    else:
        rewritten(request(OPTION, Runtime="runc"))


@pytest.mark.parametrize(
    "document",
    [
        request(OPTION) | {"Env": 5},
        request(OPTION) | {"Env": [5]},
        request(OPTION, Annotations="a"),
        request(OPTION, Annotations=["a"]),
    ],
)
def test_wrong_types_are_refused_not_dropped(document: object) -> None:
    with pytest.raises(UsageError, match="docker-wrong-type"):
        rewritten(document)


def test_a_host_config_that_the_daemon_would_drop_is_refused() -> None:
    config = '"HostConfig": {"SecurityOpt": ["credentialspec=file://a"]}'
    assert CreateBody.unpack(f'{{{config}, "HostConfig": null}}'.encode()) is None
    with pytest.raises(UsageError, match="docker-repeated-key"):
        CreateBody.unpack(f'{{{config}, "hostConfig": {{}}}}'.encode())


def test_a_malformed_reference_has_the_text_of_windows() -> None:
    with pytest.raises(InvalidSpecError, match="value must be prefixed by 'file://'"):
        CreateBody.unpack(json.dumps(request("credentialspec=rubbish")).encode())


@given(st.dictionaries(st.text(), json_values))
def test_json_objects_come_back(document: dict[str, Any]) -> None:
    for text in (json.dumps(document), json.dumps(document, indent=3)):
        assert json.loads(str(JsonObject.parse(text))) == document


@given(st.sampled_from(ANNOTATIONS).flatmap(spellings), st.sampled_from([OLD, NEW]), st.booleans())
def test_an_annotation_or_label_in_another_spelling_is_refused(
    name: str, version: tuple[int, int], as_label: bool
) -> None:
    document = request(OPTION)
    (document if as_label else document["HostConfig"])["Labels" if as_label else "Annotations"] = {
        name: "file://www.json"
    }
    with pytest.raises(UsageError, match="docker-misspelt-name") as caught:
        rewritten(document, version)
    assert "did you mean credspec.dev/" in str(caught.value)


@given(st.sampled_from(ANNOTATIONS).flatmap(spellings))
def test_without_the_option_too(name: str) -> None:
    """It would be a container without an identity, and without a word."""
    with pytest.raises(UsageError, match="docker-misspelt-name"):
        CreateBody.unpack(json.dumps(request(Annotations={name: "file://www.json"})).encode())


@given(st.sampled_from(VARIABLES).flatmap(spellings), st.sampled_from([OLD, NEW]))
def test_a_variable_in_another_spelling_is_refused(name: str, version: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="docker-misspelt-name"):
        rewritten(request(OPTION) | {"Env": [f"{name}=file://www.json"]}, version)


@given(spellings("credentialspec"))
def test_the_option_in_another_spelling_is_refused_or_taken(name: str) -> None:
    """Letter case alone does not matter, as on Windows."""
    data = json.dumps(request(f"{name}=file://www.json")).encode()
    if name.lower() == "credentialspec":
        assert CreateBody.unpack(data) is not None
        return
    with pytest.raises(UsageError, match="docker-misspelt-name"):
        CreateBody.unpack(data)


@given(
    st.sampled_from(["HostConfig", "SecurityOpt"]).flatmap(
        lambda name: st.tuples(st.just(name), spellings(name, escapes=False))
    )
)
def test_a_member_that_dockerd_would_not_know_is_refused_or_taken(pair: tuple[str, str]) -> None:
    name, spelt = pair
    config = {"SecurityOpt": [OPTION]}
    document = {spelt: config} if name == "HostConfig" else {"HostConfig": {spelt: [OPTION]}}
    try:
        create = CreateBody.unpack(json.dumps(document).encode())
    except UsageError as error:
        assert error.code == "docker-misspelt-name"
    else:
        # One that Go takes for the same name.
        assert create is not None
        assert len(spelt) == len(name)


def test_python_and_go_differ_about_letters() -> None:
    document = {"HostCon\ufb01g": {"SecurityOpt": [OPTION]}}
    with pytest.raises(UsageError, match="did you mean HostConfig"):
        CreateBody.unpack(json.dumps(document).encode())


@pytest.mark.parametrize("of", ["Annotations", "Labels"])
def test_one_of_our_names_twice_is_refused(of: str) -> None:
    twice = '{"credspec.dev/mode": "0600", "credspec\\u002edev/mode": "0644"}'
    inner = f', "Annotations": {twice}' if of == "Annotations" else ""
    outer = f', "Labels": {twice}' if of == "Labels" else ""
    text = f'{{"HostConfig": {{"SecurityOpt": ["{OPTION}"]{inner}}}{outer}}}'
    with pytest.raises(UsageError, match="docker-repeated-key"):
        CreateBody.unpack(text.encode())


@pytest.mark.parametrize("spelled", [str, str.lower, str.upper])
@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("SecurityOpt", f'["{OPTION}"]', "[]"),
        ("Runtime", '""', '""'),
        ("Annotations", '{"credspec.dev/keytab": "true"}', "{}"),
        ("Tmpfs", "{}", "{}"),
    ],
)
def test_a_member_that_is_there_twice_beside_the_option_is_refused(
    key: str, first: str, second: str, spelled: Callable[[str], str]
) -> None:
    """The daemon would merge the two, or take another one than what was checked here."""
    option = "" if key == "SecurityOpt" else f'"SecurityOpt": ["{OPTION}"], '
    config = f'{{{option}"{key}": {first}, "{spelled(key)}": {second}}}'
    with pytest.raises(UsageError, match="docker-repeated-key"):
        CreateBody.unpack(f'{{"HostConfig": {config}}}'.encode())


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("runtime", ["", None, "credspec"])
def test_an_annotation_without_the_option_asks_for_the_same(
    version: tuple[int, int], runtime: str | None
) -> None:
    asked = request(Annotations={"credspec.dev/spec": "file://www.json"}, Runtime=runtime)
    by_option = request(OPTION, Runtime=runtime)
    found, expected = (rewritten(document, version) for document in (asked, by_option))
    found["HostConfig"].pop("Annotations", None)
    expected["HostConfig"].pop("Annotations", None)
    found["HostConfig"]["SecurityOpt"] = expected["HostConfig"]["SecurityOpt"]
    assert found == expected


def test_a_runtime_of_the_clients_reads_the_annotation_itself() -> None:
    asked = request(Annotations={"credspec.dev/spec": "file://www.json"}, Runtime="mine")
    assert CreateBody.unpack(json.dumps(asked).encode()) is None
    # Docker's own would not: the container would run without its identity.
    asked["HostConfig"]["Runtime"] = "runc"
    assert rewritten(asked)["HostConfig"]["Runtime"] == "credspec"


def test_a_label_does_not_name_the_spec() -> None:
    for document in (request(), request(OPTION)):
        labelled = document | {"Labels": {"credspec.dev/spec": "file://other.json"}}
        with pytest.raises(UsageError, match="docker-label-spec"):
            CreateBody.unpack(json.dumps(labelled).encode())
    same = request(OPTION) | {"Labels": {"credspec.dev/spec": "file://www.json"}}
    assert CreateBody.unpack(json.dumps(same).encode()) is not None


def test_a_tmpfs_of_another_letter_case_is_another() -> None:
    found = rewritten(request(OPTION, Tmpfs={"/RUN/credspec": "size=1m"}), OLD)
    assert found["HostConfig"]["Tmpfs"] == {"/RUN/credspec": "size=1m", "/run/credspec": ""}


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_tmpfs_without_options_as_null_stays(version: tuple[int, int]) -> None:
    """Which is an empty text for dockerd."""
    found = rewritten(request(OPTION, Tmpfs={"/scratch": None}), version)
    assert not found["HostConfig"]["Tmpfs"]["/scratch"]
    assert "/scratch" in found["HostConfig"]["Tmpfs"]
