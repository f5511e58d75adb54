from __future__ import annotations

import re
import shlex

import hypothesis.strategies as st
from hypothesis import given

from credspec.directory.password_readers import how_to_allow

NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\\/"), min_size=1
)


@given(account=NAMES, readers=st.lists(NAMES, min_size=1, max_size=30), host=NAMES)
def test_the_command_keeps_all_who_may_read_now(
    account: str, readers: list[str], host: str
) -> None:
    text = how_to_allow(account, [f"CONTOSO\\{reader}" for reader in readers], host)
    listed = text.partition(" -PrincipalsAllowedToRetrieveManagedPassword ")[2]
    read = re.match(r"(?:'(?:[^']|'')*',?)+", listed)
    assert read is not None
    found = [each.replace("''", "'") for each in re.findall(r"'((?:[^']|'')*)'", read[0])]
    assert found == list(dict.fromkeys((*readers, host)))
    words = shlex.split(text[text.rindex("; or samba-tool") :])
    assert words[-2:] == [f"--name={account}", f"--principal={host}"]


@given(st.sampled_from([[], [f"S-1-5-21-1-2-3-{number}" for number in range(31)]]))
def test_a_list_that_cannot_be_shown_is_read_by_the_command(readers: list[str]) -> None:
    text = how_to_allow("WebApp01", readers, "HOST1$")
    assert "(@((Get-ADServiceAccount 'WebApp01' -Properties *)." in text
    assert "+ 'HOST1$')" in text
