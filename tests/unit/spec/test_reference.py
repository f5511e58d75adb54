import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.spec.reference import SpecReference, parse_reference, parse_security_options

MALFORMED = (
    "invalid credential spec security option - value must be prefixed by 'file://', "
    "'registry://', or 'raw://' followed by a non-empty value"
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file://www.json", SpecReference("file", "www.json")),
        ("FiLe://WWW.json", SpecReference("file", "WWW.json")),
        ("file:///etc/x.json", SpecReference("file", "/etc/x.json")),
        ('raw://{"a": "b://c=d"}', SpecReference("raw", '{"a": "b://c=d"}')),
        ("raw:// ", SpecReference("raw", " ")),
    ],
)
def test_reads(text: str, expected: SpecReference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "rubbish", "rubbish://", "rubbish://x", "file:/x", "://x", "www.json", " file://x"),
        *("file://", "registry://", "raw://", "config://", "config://id"),
    ],
)
def test_refuses_in_the_words_of_the_daemon(text: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        parse_reference(text)
    assert caught.value.problems[0].text() == MALFORMED
    assert caught.value.code == "spec-reference-invalid"


def test_config_exists_for_swarm_services() -> None:
    assert parse_reference("config://id", swarm=True) == SpecReference("config", "id")


def test_registry_exists_on_windows_alone() -> None:
    assert parse_reference("Registry://web", windows=True) == SpecReference("registry", "web")
    with pytest.raises(
        InvalidSpecError, match="exists only on Windows; expected a reference"
    ) as caught:
        parse_reference("registry://web")
    assert caught.value.code == "spec-reference-registry"


def test_repr_hides_the_document() -> None:
    reference = SpecReference("raw", '{"PluginInput": "hunter2"}')
    assert "hunter2" not in repr(reference)
    assert str(reference) == 'raw://{"PluginInput": "hunter2"}'


def test_takes_the_last_of_several_options() -> None:
    options = [
        "seccomp=unconfined",
        "CreDENtiaLSPeC=rAw://{}",
        "no-new-privileges",
        "credentialspec=file://a=b.json",
        "label:disable",
        "credentialspec:file://x",
        "=credentialspec",
    ]
    reference, others = parse_security_options(options)
    assert reference == SpecReference("file", "a=b.json")
    assert others == [options[0], options[2], *options[4:]]


def test_nothing_without_options() -> None:
    assert parse_security_options([]) == (None, [])
    assert parse_security_options(["apparmor=x"]) == (None, ["apparmor=x"])


@pytest.mark.parametrize("bad", ["credentialspec=", "credentialspec=x", "credentialspec=raw://"])
def test_checks_every_option_not_only_the_last(bad: str) -> None:
    with pytest.raises(InvalidSpecError, match="invalid credential spec security option"):
        parse_security_options([bad, "credentialspec=file://good.json"])


@given(st.sampled_from(["file", "raw"]), st.text(min_size=1), st.booleans())
def test_values_are_verbatim(scheme: str, value: str, upper: bool) -> None:
    given_scheme = scheme.upper() if upper else scheme
    reference = parse_reference(f"{given_scheme}://{value}")
    assert reference.value == value
    assert parse_reference(str(reference)) == reference


@given(st.lists(st.text() | st.text().map(lambda text: f"credentialspec={text}")))
def test_other_options_are_untouched(options: list[str]) -> None:
    try:
        _, others = parse_security_options(options)
    except InvalidSpecError:
        return
    assert others == [o for o in options if not o.lower().startswith("credentialspec=")]


def test_the_configs_of_a_swarm_are_for_its_services_only() -> None:
    options = ["credentialspec=config://www.json"]
    with pytest.raises(InvalidSpecError):
        parse_security_options(options)
    reference, _ = parse_security_options(options, swarm=True)
    assert reference is not None
    assert reference.scheme == "config"
