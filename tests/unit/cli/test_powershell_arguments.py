import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.cli.powershell_arguments import Parameter, Value, parse_arguments
from credspec.errors import UsageError

PARAMETERS = (
    Parameter("AccountName", positional=True, mandatory=True),
    Parameter("Path"),
    Parameter("FileName", aliases=("Name",)),
    Parameter("Domain"),
    Parameter("AdditionalAccounts", array=True),
    Parameter("NoClobber", switch=True),
)


def words(*line: str) -> dict[str, str]:
    return parse_arguments(PARAMETERS, line).words


def additional(*line: str) -> tuple[Value, ...]:
    given_line = ("WebApp01", "-AdditionalAccounts", *line)
    return parse_arguments(PARAMETERS, given_line).arrays["AdditionalAccounts"]


def refused(*line: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse_arguments(PARAMETERS, line)
    return caught.value


@pytest.mark.parametrize(
    "line",
    [
        ("WebApp01", "-Path", "./www.json"),
        ("-AccountName", "WebApp01", "-Path", "./www.json"),
        ("-accountname", "WebApp01", "-PATH", "./www.json"),
        ("-Path", "./www.json", "WebApp01"),
        ("-AccountName:WebApp01", "-Path:./www.json"),
        ("-AccountName:", "WebApp01", "-P:./www.json"),
        ("-Ac", "WebApp01", "-Pa", "./www.json"),
        ("\u2013AccountName", "WebApp01", "\u2014Path", "./www.json"),
        ("'WebApp01'", "-Path", '"./www.json"'),
    ],
)
def test_forms_of_one_line(line: tuple[str, ...]) -> None:
    assert words(*line) == {"AccountName": "WebApp01", "Path": "./www.json"}


@pytest.mark.parametrize("name", ["-FileName", "-Name", "-na", "-F"])
def test_aliases_and_prefixes(name: str) -> None:
    assert words("a", name, "x")["FileName"] == "x"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (("-NoClobber",), True),
        (("-no",), True),
        (("-NoClobber:$true",), True),
        (("-NoClobber:$FALSE",), False),
        (("-NoClobber:", "$false"), False),
    ],
)
def test_switches(line: tuple[str, ...], expected: bool) -> None:
    assert parse_arguments(PARAMETERS, ("a", *line)).switches == {"NoClobber": expected}


def test_a_switch_takes_no_argument_without_a_colon() -> None:
    assert words("-NoClobber", "WebApp01") == {"AccountName": "WebApp01"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("C:\\x y,z.json", "C:\\x y,z.json"),
        ("-Path:-x.json", "-x.json"),
        ("-Path:a:b", "a:b"),
        ("-5", "-5"),
        ("'", "'"),
        ("-", "-"),
    ],
)
def test_values_of_words_are_verbatim(value: str, expected: str) -> None:
    line = (value,) if value.startswith("-Path") else ("-Path", value)
    assert words("a", *line)["Path"] == expected


X_AND_Y: Value = {"accountname": "x", "domain": "y.z"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (("a",), ("a",)),
        (("a,b",), ("a", "b")),
        (("a,", "b"), ("a", "b")),
        (("a", ",b"), ("a", "b")),
        (("a", ",", "b"), ("a", "b")),
        (("'a','b c'",), ("a", "b c")),
        (('"a", b$',), ("a", "b$")),
        (("'it''s'",), ("it's",)),
        (("@('a', 'b')",), ("a", "b")),
        (("@('a',", "'b')"), ("a", "b")),
        (("(a,b)",), ("a", "b")),
        (("@{AccountName='x';Domain='y.z'}",), (X_AND_Y,)),
        (("@{AccountName=x;Domain=y.z}",), (X_AND_Y,)),
        (("@{ accountNAME = 'x' ; DOMAIN = \"y.z\"; }",), (X_AND_Y,)),
        (("@{AccountName='x'\n Domain='y.z'}",), (X_AND_Y,)),
        (("@{AccountName='x';", "Domain='y.z'}"), (X_AND_Y,)),
        (("@{", "AccountName", "=", "'x';", "Domain='y.z'", "}"), (X_AND_Y,)),
        (("a,@{AccountName='x';Domain='y.z'},b",), ("a", X_AND_Y, "b")),
        (("a,", "@{AccountName='x';", "Domain='y.z'}", ",", "b"), ("a", X_AND_Y, "b")),
        (("@{AccountName='x;1';Domain='y'}",), ({"accountname": "x;1", "domain": "y"},)),
        (("@{}",), ({},)),
    ],
)
def test_arrays_and_hashtables(line: tuple[str, ...], expected: tuple[Value, ...]) -> None:
    assert additional(*line) == expected
    assert additional(*line, "-NoClobber") == expected


@pytest.mark.parametrize(
    ("line", "text", "code"),
    [
        (
            ("a", "-Foo", "x"),
            "A parameter cannot be found that matches parameter name 'Foo'.",
            "powershell-unknown",
        ),
        (
            ("--path", "x"),
            "A parameter cannot be found that matches parameter name '-path'.",
            "powershell-unknown",
        ),
        (
            ("-A", "x"),
            (
                "Parameter cannot be processed because the parameter name 'A' is ambiguous. "
                "Possible matches include: -AccountName -AdditionalAccounts."
            ),
            "powershell-ambiguous",
        ),
        (
            ("a", "-N", "x"),
            (
                "Parameter cannot be processed because the parameter name 'N' is ambiguous. "
                "Possible matches include: -FileName -NoClobber."
            ),
            "powershell-ambiguous",
        ),
        (
            ("a", "-Path"),
            (
                "Missing an argument for parameter 'Path'. Specify a parameter of type "
                "'System.String' and try again."
            ),
            "powershell-argument-missing",
        ),
        (
            ("a", "-Path", "-NoClobber"),
            (
                "Missing an argument for parameter 'Path'. Specify a parameter of type "
                "'System.String' and try again."
            ),
            "powershell-argument-missing",
        ),
        (
            ("a", "-AdditionalAccounts"),
            (
                "Missing an argument for parameter 'AdditionalAccounts'. "
                "Specify a parameter of type 'System.String[]' and try again."
            ),
            "powershell-argument-missing",
        ),
        (
            (),
            (
                "Cannot process command because of one or more missing mandatory parameters: "
                "AccountName."
            ),
            "powershell-missing",
        ),
        (
            ("",),
            "Cannot bind argument to parameter 'AccountName' because it is an empty string.",
            "powershell-argument-invalid",
        ),
        (
            ("a", "-Path", "''"),
            "Cannot bind argument to parameter 'Path' because it is an empty string.",
            "powershell-argument-invalid",
        ),
        (
            ("a", "b"),
            "A positional parameter cannot be found that accepts argument 'b'.",
            "powershell-positional",
        ),
        (
            ("a", "-Path", "b", "-path:c"),
            "Cannot bind parameter because parameter 'Path' is specified more than once.",
            "powershell-twice",
        ),
    ],
)
def test_errors_in_the_words_of_powershell(line: tuple[str, ...], text: str, code: str) -> None:
    error = refused(*line)
    assert error.problems[0].found == text
    assert error.code == code


def test_a_switch_value_that_the_shell_expanded_away_is_never_true() -> None:
    for line in (("a", "-NoClobber:"), ("a", "-NoClobber:", "-Path", "x")):
        error = refused(*line)
        assert error.code == "powershell-argument-missing"
        assert "quote" in error.problems[0].remedy


@pytest.mark.parametrize("value", ["maybe", "$null", "2"])
def test_switch_values(value: str) -> None:
    error = refused("a", f"-NoClobber:{value}")
    assert error.code == "powershell-argument-invalid"
    assert error.problems[0].expected == "$true or $false"


def test_a_hashtable_that_the_shell_cut_says_to_quote_it() -> None:
    error = refused("a", "-AdditionalAccounts", "@{AccountName=x")
    assert "The hash literal was incomplete" in error.problems[0].found
    assert "double quotes" in error.problems[0].remedy


@pytest.mark.parametrize(
    "value",
    [
        *("", ",", "a,", ",a", "a,,b", "'a", 'a"', "a b", "}", "@{x}", "@{=1}", "@{a=}"),
        *("@{a=1 b=2}", "@{a=1;A=2}", "@{a='1'2}", "@()", "a;b"),
    ],
)
def test_arrays_that_make_no_sense(value: str) -> None:
    assert refused("a", "-AdditionalAccounts", value).code == "powershell-argument-invalid"


def test_a_comma_does_not_swallow_the_next_parameter() -> None:
    assert refused("a", "-AdditionalAccounts", "b,", "-NoClobber").code.startswith("powershell-")


def test_a_hashtable_is_no_word() -> None:
    assert refused("-AccountName", "@{a=1}").code == "powershell-argument-invalid"


def test_duplicate_keys() -> None:
    error = refused("a", "-AdditionalAccounts", "@{a=1;A=2}")
    assert error.problems[0].found == "Duplicate keys 'A' are not allowed in hash literals."


NAMES = st.text(alphabet=st.characters(categories=["Lu", "Ll", "Nd"]), min_size=1)
TEXTS = st.text(alphabet=st.characters(exclude_characters="{}"))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@given(st.lists(TEXTS | st.fixed_dictionaries({"accountname": TEXTS, "domain": TEXTS}), min_size=1))
def test_every_array_is_read_back(values: list[Value]) -> None:
    literals = [
        quoted(value)
        if isinstance(value, str)
        else "@{" + ";".join(f"{key}={quoted(text)}" for key, text in value.items()) + "}"
        for value in values
    ]
    assert additional(",".join(literals)) == tuple(values)
    assert additional(*", ".join(literals).split(", ")[:0], ", ".join(literals)) == tuple(values)


PIECES = st.sampled_from(
    [
        "-Path",
        "-A",
        "-NoClobber:",
        "-Ad",
        "@{",
        "}",
        "@{a=1;",
        "b='",
        "'",
        ",",
        "a,",
        "@(",
        ")",
        "--",
    ]
)


@given(st.lists(PIECES | NAMES | st.text(), max_size=8))
def test_any_line_is_read_or_refused(line: list[str]) -> None:
    try:
        parse_arguments(PARAMETERS, line)
    except UsageError as error:
        assert error.code.startswith("powershell-")
