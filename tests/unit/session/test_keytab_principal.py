"""Which entry of a keytab is the host: by rule, whatever the order of the entries."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import NotPermittedError
from credspec.kerberos.keys import Enctype, Key
from credspec.kerberos.keytab import KeytabEntry, keytab_bytes
from credspec.session.host_identity import MachineKeytab
from credspec.session.keytab_principal import (
    HostNames,
    KeytabPrincipal,
    computer_principals,
    guess_text,
    read_keytab,
    with_guess,
)

HOST = HostNames("web-server-number-one", frozenset({"a.test"}))
OWN = KeytabPrincipal("WEB-SERVER-NUMB$@A.TEST", 3, 100)


def chosen(*entries: KeytabPrincipal, host: HostNames = HOST) -> str:
    return computer_principals(entries, host)[0].name


LEFTOVERS = st.lists(
    st.builds(
        KeytabPrincipal,
        st.sampled_from(
            [
                "OLDHOST$@A.TEST",
                "WEB-SERVER-NUMB$@OLD.TEST",
                "WebApp01$@A.TEST",
                "host/oldhost.a.test@A.TEST",
                "HTTP/www.a.test@A.TEST",
                "alice@A.TEST",
            ]
        ),
        st.integers(1, 300),
        st.integers(0, 2**31),
    )
)


@given(LEFTOVERS, LEFTOVERS)
def test_the_host_s_own_name_in_its_own_domain_wins_in_any_place(
    before: list[KeytabPrincipal], after: list[KeytabPrincipal]
) -> None:
    assert chosen(*before, OWN, *after) == OWN.name


@given(st.permutations([OWN, KeytabPrincipal("OLD$@A.TEST"), KeytabPrincipal("X$@B.TEST", 9, 9)]))
def test_the_order_of_entries_decides_nothing(entries: list[KeytabPrincipal]) -> None:
    assert chosen(*entries) == OWN.name
    assert chosen(*entries, host=HostNames("other", frozenset({"b.test"}))) == "X$@B.TEST"


def test_without_the_host_s_name_joined_entries_count_then_the_newest() -> None:
    nobody = HostNames("vm")
    joined = [KeytabPrincipal("PC7$@A.TEST", 2, 5), KeytabPrincipal("host/pc7.a.test@A.TEST", 2, 5)]
    assert chosen(KeytabPrincipal("OLD$@A.TEST", 9, 9), *joined, host=nobody) == "PC7$@A.TEST"
    newer = KeytabPrincipal("NEW$@A.TEST", 1, 9)
    assert chosen(KeytabPrincipal("OLD$@A.TEST", 9, 5), newer, host=nobody) == newer.name
    versions = [KeytabPrincipal("OLD$@A.TEST", 1), KeytabPrincipal("NEW$@A.TEST", 2)]
    assert chosen(*versions, host=nobody) == "NEW$@A.TEST"


def keytab(path: Path, *principals: str) -> Path:
    key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, bytes(32))
    entries = [KeytabEntry(name, n, key) for n, name in enumerate(principals, 1)]
    path.write_bytes(keytab_bytes(entries, timestamp=1000))
    return path


def test_a_keytab_is_read_with_the_newest_entry_of_each(tmp_path: Path) -> None:
    path = keytab(tmp_path / "k", "A$@A.TEST", "host/a@A.TEST", "A$@A.TEST")
    assert read_keytab(path) == [
        KeytabPrincipal("A$@A.TEST", 3, 1000),
        KeytabPrincipal("host/a@A.TEST", 2, 1000),
    ]


def test_the_domain_that_is_asked_for_is_preferred(tmp_path: Path) -> None:
    path = keytab(tmp_path / "k", "OLD$@OLD.TEST", "NEW$@A.TEST", "OLD2$@OLD.TEST")
    assert MachineKeytab(path, domain="a.test").name == "NEW$@A.TEST"
    identity = MachineKeytab(path)
    identity.prefer_domain("a.test")
    assert identity.name == "NEW$@A.TEST"
    for text in ("OLD$@OLD.TEST", "OLD2$@OLD.TEST", "[host_identity]", str(path)):
        assert text in identity.guess


def test_what_the_configuration_names_is_no_guess(tmp_path: Path) -> None:
    path = keytab(tmp_path / "k", "A$@A.TEST", "B$@A.TEST")
    identity = MachineKeytab(path, "b$")
    assert (identity.name, identity.guess) == ("B$@A.TEST", "")
    alone = MachineKeytab(keytab(tmp_path / "one", "A$@A.TEST", "host/a@A.TEST"))
    assert (alone.name, alone.guess) == ("A$@A.TEST", "")


def test_errors_name_a_guess_once() -> None:
    path = Path("/etc/krb5.keytab")
    guess = guess_text(OWN.name, [OWN, KeytabPrincipal("B$@B.TEST")], path)
    error = NotPermittedError.of("a", "refused", remedy="ask")
    told = with_guess(with_guess(error, guess), guess)
    assert str(told).count("B$@B.TEST") == 1
    assert told.code == "a"
    assert str(told).count("ask") == 1
    assert with_guess(error, "") is error


@pytest.mark.parametrize("wanted", [None, "C$"])
def test_no_principal_names_what_there_is(tmp_path: Path, wanted: str | None) -> None:
    path = keytab(tmp_path / "k", "host/a@A.TEST", "alice@A.TEST")
    with pytest.raises(NotPermittedError, match=r"host/a@A\.TEST.*host-principal-missing"):
        _ = MachineKeytab(path, wanted).name


def test_the_host_is_of_the_default_realm_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "krb5.conf"
    conf.write_text("[libdefaults]\n default_realm = Realm.TEST\n")
    monkeypatch.setenv("KRB5_CONFIG", str(conf))
    assert "realm.test" in HostNames.of_system(None).domains
    assert HostNames.of_system("Other.TEST").domains == {"other.test"}
