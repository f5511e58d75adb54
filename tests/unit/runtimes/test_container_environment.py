from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from credspec.runtimes.container_environment import with_lease_variables

OURS = {"KRB5CCNAME": "/run/credspec/krb5cc", "KRB5_CONFIG": "/run/credspec/krb5.conf"}
NAMES = st.sampled_from([*OURS, "PATH", "KRB5", "KRB5CCNAM", "krb5ccname"])
ENTRIES = st.lists(st.builds(lambda name, value: f"{name}={value}", NAMES, st.text(max_size=8)))


def named(entries: list[str]) -> set[str]:
    return {entry.partition("=")[0] for entry in entries}


@given(ENTRIES, ENTRIES)
def test_what_is_set_stays_and_the_rest_is_added_once(present: list[str], image: list[str]) -> None:
    made = with_lease_variables(present, OURS, image)
    assert made[: len(present)] == present
    missing = [name for name in OURS if name not in named(present) | named(image)]
    assert made[len(present) :] == [f"{name}={OURS[name]}" for name in missing]


@given(ENTRIES, ENTRIES)
def test_the_gateway_and_the_shim_come_to_the_same(present: list[str], image: list[str]) -> None:
    """Docker puts the container's own over the image's; then the shim has its turn."""
    gateway = with_lease_variables(present, OURS, image)
    merged = [e for e in image if e.partition("=")[0] not in named(gateway)] + gateway
    assert with_lease_variables(merged, OURS) == merged


def test_a_name_without_a_value_sets_nothing() -> None:
    assert with_lease_variables(["KRB5CCNAME", "PATH"], OURS)[0] == "PATH"
    assert "KRB5CCNAME=/run/credspec/krb5cc" in with_lease_variables(["KRB5CCNAME"], OURS)
    assert with_lease_variables(["KRB5CCNAME="], OURS)[0] == "KRB5CCNAME="
