from __future__ import annotations

import pytest

from credspec.doctor.account_steps import account_steps
from credspec.doctor.host_steps import HOST_STEPS
from credspec.doctor.logon_steps import IDENTITY_STEP, LOGON_STEPS
from credspec.doctor.network_steps import NETWORK_STEPS
from credspec.doctor.spec_steps import DOMAIN_STEP, SPEC_STEP
from credspec.doctor.windows_words import WINDOWS_WORDS, find_windows_word

STEPS = (
    *(SPEC_STEP, IDENTITY_STEP, *NETWORK_STEPS, *LOGON_STEPS, DOMAIN_STEP),
    *(*account_steps("WebApp01"), *HOST_STEPS),
)


@pytest.mark.parametrize("word", ["1311", "0x51f", "ERROR_NO_LOGON_SERVERS", " 1311 "])
def test_numbers_in_every_form(word: str) -> None:
    found = find_windows_word(word)
    assert found is not None
    assert "dns" in found.steps


@pytest.mark.parametrize("word", ["", "0xzz", "999", "nltest"])
def test_unknown_words(word: str) -> None:
    assert find_windows_word(word) is None


def test_every_word_leads_to_steps_that_exist() -> None:
    names = {step.name for step in STEPS}
    for entry in WINDOWS_WORDS:
        assert set(entry.steps) <= names


def test_steps_need_only_what_comes_before_them() -> None:
    seen: set[str] = set()
    for step in STEPS:
        assert set(step.needs) <= seen, step.key
        seen.add(step.key)
    assert len(seen) == len(STEPS)
