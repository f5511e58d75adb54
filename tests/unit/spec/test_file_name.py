import pytest

from credspec.errors import UsageError
from credspec.spec.file_name import default_file_name, valid_file_name, with_json_suffix


def test_default_name_is_lower_case_without_dollar_sign() -> None:
    assert default_file_name("CONTOSO", "WebApp01$") == "contoso_webapp01.json"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("www", "www.json"),
        ("www.json", "www.json"),
        ("WWW.JSON", "WWW.JSON"),
        ("contoso_production", "contoso_production.json"),
        ("json", "json.json"),
        ("a.json.bak", "a.json.bak.json"),
    ],
)
def test_suffix_is_there_once(name: str, expected: str) -> None:
    assert with_json_suffix(name) == expected


@pytest.mark.parametrize("name", ["www", "www.json", "contoso_wébapp", "a b", ".hidden"])
def test_names_of_files(name: str) -> None:
    assert valid_file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "...",
        "../x",
        "a/b",
        "a\\b",
        "/x",
        "C:x",
        "a\nb",
        "a\0b",
        "a*",
        "a\ud800",
        "x" * 241,
    ],
)
def test_what_is_no_name_of_a_file(name: str) -> None:
    with pytest.raises(UsageError, match="file-name-invalid"):
        valid_file_name(name)
