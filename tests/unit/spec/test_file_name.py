import pytest

from credspec.spec.file_name import default_file_name, with_json_suffix


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
