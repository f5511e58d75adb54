from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import credspec
from credspec.contract import c_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_it_writes_and_reads_as_the_package_does(value: object) -> None:
    written = c_json.dumps(value)
    assert written == json.dumps(value).encode()
    assert c_json.loads(written) == json.loads(written) == value


@given(VALUES, st.text(" \t\r\n"), st.text(" \t\r\n"))
def test_space_around(value: object, before: str, after: str) -> None:
    assert c_json.loads(f"{before}{json.dumps(value, indent=1)}{after}".encode()) == value


@given(
    st.binary()
    | VALUES.map(json.dumps).map(str.encode)
    | st.text('[]{}":,0123456789.eE+-truefalsn \\"\n').map(str.encode)
)
def test_it_refuses_what_the_package_refuses(data: bytes) -> None:
    try:
        data.decode()
        expected = json.loads(data.decode())
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            c_json.loads(data)
    else:
        assert json.dumps(c_json.loads(data)) == json.dumps(expected)


def test_what_is_no_json() -> None:
    with pytest.raises(TypeError, match="bytes is not JSON"):
        c_json.dumps({"a": b""})


@pytest.mark.parametrize("accelerated", [True, False])
def test_with_and_without_the_accelerator(accelerated: bool) -> None:
    source = str(Path(credspec.__file__).parents[1])
    program = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        f"if not {accelerated}: sys.modules['_json'] = None\n"
        "from credspec.contract import c_json\n"
        "assert c_json.loads(c_json.dumps({'a': [1, 'x']})) == {'a': [1, 'x']}\n"
        "print('re' in sys.modules)"
    )
    command = [sys.executable, "-IS", "-c", program]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed == f"{not accelerated}\n"


@pytest.mark.parametrize("text", ['{"a"}', "{", '["a', '{"a": 1,}', "nul"])
def test_a_broken_text_is_an_error_of_its_own_where_nobody_imported_json(text: str) -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[3] / 'src')!r})\n"
        "from credspec.contract import c_json\n"
        "assert 'json' not in sys.modules\n"
        f"try: c_json.loads_strictly({text.encode()!r})\n"
        "except ValueError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")
