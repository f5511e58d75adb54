"""The shim's errors: what callers decide on is a field, what people read is the text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.contract.agent_client import _refusal
from credspec.contract.errors import NotYetError, ShimError, StartAbandonedError
from credspec.contract.ticket_options import MODE, check_options
from credspec.errors import CredspecError, Problem
from credspec.gateway.create_request import check_options_given
from credspec.run.process_lease import in_host_mounts

CODES = st.from_regex(r"[a-z0-9]+(-[a-z0-9]+){0,3}", fullmatch=True)
# Also texts that look as if a code were in them or at their end.
TEXTS = st.text(max_size=40) | st.builds(lambda t, c: f"{t} [{c}]", st.text(max_size=20), CODES)
PROBLEMS = st.builds(Problem, code=CODES, found=TEXTS.filter(bool), where=TEXTS, remedy=TEXTS)


@given(CODES, TEXTS)
def test_code_and_text_are_what_was_given(code: str, text: str) -> None:
    for error in (ShimError(code, text), NotYetError(code, text, 2.0)):
        assert (error.code, error.text, str(error)) == (code, text, f"{text} [{code}]")
    assert StartAbandonedError(3.4).code == "start-abandoned"


@given(st.lists(PROBLEMS, min_size=1, max_size=3), st.none() | st.floats(0, 60))
def test_what_the_agent_says_is_said_as_it_stands(
    problems: list[Problem], retry_after: float | None
) -> None:
    error = CredspecError(*problems)
    found = _refusal(error.to_json(), "503", retry_after)
    assert str(found) == str(error)
    assert found.code == problems[-1].code
    assert isinstance(found, NotYetError) == (retry_after is not None)


@pytest.mark.parametrize(
    "document",
    [{}, [], None, 7, "x", {"detail": "x [y]"}, {"problems": []}, {"problems": [{}]}],
)
def test_an_answer_that_is_no_problem_document(document: object) -> None:
    assert _refusal(document, "500", None).code == "agent-answer"


@given(CODES, TEXTS)
def test_the_code_reaches_who_calls_in_another_mount_namespace(code: str, text: str) -> None:
    def fail() -> None:
        raise ShimError(code, text)

    with pytest.raises(CredspecError) as caught:
        in_host_mounts(fail)
    assert caught.value.problems == (Problem(code=code, found=text),)


def test_an_option_is_refused_by_the_gateway_with_the_shims_code() -> None:
    wanted = {MODE[0]: "x [mount]"}
    with pytest.raises(ShimError) as of_shim:
        check_options(wanted)
    with pytest.raises(CredspecError) as of_gateway:
        check_options_given(wanted, [])
    assert of_gateway.value.code == of_shim.value.code == "option-invalid"
