from __future__ import annotations

from credspec.agent.known_salts import KnownSalts


def test_an_account_s_salts_by_its_passwords() -> None:
    salts = KnownSalts()
    assert (salts.last("Web$"), salts.of_versions("Web$", 3)) == (None, {})
    salts.took("Web$", "old")
    assert salts.of_versions("web$", 3) == {3: "old"}
    salts.took("WEB$", "new")
    assert salts.last("Web$") == "new"
    assert salts.of_versions("Web$", 4) == {3: "old", 4: "new"}
    assert salts.last("Other$") is None


def test_only_the_latest_are_kept() -> None:
    salts = KnownSalts()
    for version in range(1, 100):
        salts.took("Web$", str(version))
        found = salts.of_versions("Web$", version)
    assert found[99] == "99"
    assert found[98] == "98"
    assert len(found) < 10
