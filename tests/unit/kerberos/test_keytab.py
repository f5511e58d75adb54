from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import krb5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.directory.accounts import GroupManagedServiceAccount
from credspec.directory.managed_password import PASSWORD_BYTES, ManagedPassword
from credspec.kerberos.keys import Enctype, Key, computer_salt, derive_keys
from credspec.kerberos.keytab import (
    KeytabEntry,
    account_keytab,
    joined_keytabs,
    keytab_bytes,
    keytab_entries,
    managed_password_keys,
    service_name_spellings,
)

ONE, TWO = b"\x01" * PASSWORD_BYTES, b"\x02" * PASSWORD_BYTES
HOURS, MINUTES = timedelta(hours=9), timedelta(minutes=4)

GOLDEN = bytes.fromhex(
    "0502"  # version
    "00000049"  # length
    "0002 0009 4558414d504c452e54 0004 48545450 0003 776562"  # HTTP/web@EXAMPLE.T
    "00000002 00000007"  # NT-SRV-INST, time
    "2c 0012 0020" + "aa" * 32 + "0000012c"  # version 300 in eight bits, AES256, version 300
)


def test_the_bytes_of_an_entry() -> None:
    key = Key(Enctype.AES256_CTS_HMAC_SHA1_96, b"\xaa" * 32)
    made = keytab_bytes([KeytabEntry("HTTP/web@EXAMPLE.T", 300, key)], timestamp=7)
    assert made == GOLDEN
    assert "aa" not in repr(KeytabEntry("a@B", 1, key))
    # An account is NT-PRINCIPAL; without a time it is that of no moment.
    account = keytab_bytes([KeytabEntry("A$@B", 1, key)])
    assert bytes.fromhex("0001 0001 42 0002 4124 00000001 00000000 01") in account


@pytest.mark.parametrize(
    ("previous", "query", "expected"),
    [
        (None, HOURS, {4: ONE}),
        (TWO, HOURS, {4: ONE, 3: TWO}),
        # Within five minutes, the current password is the next one.
        (TWO, MINUTES, {5: ONE, 4: TWO}),
        (None, MINUTES, {5: ONE}),
    ],
)
def test_version_numbers(
    previous: bytes | None, query: timedelta, expected: dict[int, bytes]
) -> None:
    found = managed_password_keys("A$", "X.TEST", ManagedPassword(ONE, previous, query, query), 4)
    alone = {
        password: managed_password_keys(
            "a", "x.test", ManagedPassword(password, None, HOURS, HOURS), 1
        )[1]
        for password in (ONE, TWO)
    }
    assert found == {version: alone[password] for version, password in expected.items()}
    assert list(found) == sorted(found, reverse=True)


def test_the_first_password_has_none_before_it() -> None:
    password = ManagedPassword(ONE, TWO, HOURS, HOURS)
    assert list(managed_password_keys("a", "X.TEST", password, 1)) == [1]


def account(*names: str) -> GroupManagedServiceAccount:
    return GroupManagedServiceAccount("CN=A", "A$", "S-1-5-1", True, True, names, ())


def principals_in(path: Path, keytab: bytes) -> list[bytes]:
    path.write_bytes(keytab)
    context = krb5.init_context()
    return [e.principal.name for e in krb5.kt_resolve(context, f"FILE:{path}".encode())]


def test_an_accounts_keytab_has_its_name_and_its_service_principal_names(tmp_path: Path) -> None:
    password = ManagedPassword(ONE, TWO, HOURS, HOURS)
    of = account("HTTP/web.x.test", "MSSQLSvc/db.x.test:1433/one", "web", "a/b/c/d", "HTTP/w@X", "")
    made = account_keytab(of, "X.TEST", password, 4, made=datetime(2026, 1, 1, tzinfo=UTC))
    found = principals_in(tmp_path / "keytab", made)
    expected = [b"A$@X.TEST", b"HTTP/web.x.test@X.TEST", b"MSSQLSvc/db.x.test:1433/one@X.TEST"]
    expected += [b"http/web.x.test@X.TEST", b"mssqlsvc/db.x.test:1433/one@X.TEST"]
    # Two passwords, three keys each.
    assert found == [name for name in expected for _ in range(6)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("HTTP/Web.X.Test", {"HTTP/web.x.test", "http/web.x.test"}),
        ("http/web.x.test", {"HTTP/web.x.test"}),
        ("mssqlsvc/DB.X.TEST:1433", {"MSSQLSvc/db.x.test:1433", "mssqlsvc/db.x.test:1433"}),
        ("HOST/App", {"host/app"}),
        ("Ldap/DC1.x.test/X.test", {"ldap/dc1.x.test/x.test"}),
    ],
)
def test_names_are_there_as_programs_spell_them(name: str, expected: set[str]) -> None:
    found = service_name_spellings(name)
    assert found[0] == name
    assert expected <= set(found)


@given(
    st.from_regex(r"[A-Za-z]{1,8}/[A-Za-z.]{1,12}(:[0-9]{1,4})?(/[A-Za-z]{1,4})?", fullmatch=True)
)
def test_every_spelling_is_the_same_name_to_the_directory(name: str) -> None:
    found = service_name_spellings(name)
    assert {each.lower() for each in found} == {name.lower()}
    assert name.lower() in found
    assert len(found) == len(set(found)) <= 6


def test_each_password_has_keys_of_its_own_salt() -> None:
    """As of an account that was renamed: the next password is of its present name."""
    password = ManagedPassword(ONE, TWO, HOURS, HOURS)
    before, after = "X.TESThostold.x.test", computer_salt("X.TEST", "new")
    of = partial(managed_password_keys, "new$", "X.TEST")
    assert of(password, 4) == {4: derive_keys(ONE, after), 3: derive_keys(TWO, after)}
    assert of(password, 4, {4: before}) == {
        4: derive_keys(ONE, before),
        3: derive_keys(TWO, before),
    }
    assert of(password, 4, {3: before, 4: after}) == {
        4: derive_keys(ONE, after),
        3: derive_keys(TWO, before),
    }
    near = ManagedPassword(ONE, TWO, MINUTES, HOURS)
    assert of(near, 4, {4: before}) == {5: derive_keys(ONE, after), 4: derive_keys(TWO, before)}


def test_keytabs_joined(tmp_path: Path) -> None:
    password = ManagedPassword(ONE, None, HOURS, HOURS)
    made = account_keytab(account(), "X.TEST", password, 1, made=datetime(2026, 1, 1, tzinfo=UTC))
    assert principals_in(tmp_path / "two", joined_keytabs([made, made])) == [b"A$@X.TEST"] * 6
    assert joined_keytabs([]) == b"\x05\x02"


names = st.text(st.sampled_from("abcXYZ019-.$_"), min_size=1, max_size=30)
principals = st.builds("{}@{}".format, names, names) | st.builds(
    "{}/{}@{}".format, names, names, names
)
keys = st.builds(
    Key, st.just(Enctype.AES256_CTS_HMAC_SHA1_96), st.binary(min_size=32, max_size=32)
) | st.builds(Key, st.just(Enctype.ARCFOUR_HMAC), st.binary(min_size=16, max_size=16))


@given(
    st.lists(principals, max_size=4), st.dictionaries(st.integers(1, 2**32 - 1), st.tuples(keys))
)
def test_libkrb5_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory,
    given_principals: list[str],
    given_keys: dict[int, tuple[Key]],
) -> None:
    path: Path = tmp_path_factory.mktemp("keytab") / "keytab"
    entries = keytab_entries(given_principals, given_keys)
    path.write_bytes(keytab_bytes(entries))
    context = krb5.init_context()
    table = krb5.kt_resolve(context, f"FILE:{path}".encode())
    found = [
        (entry.principal.name, entry.kvno, entry.key.enctype, entry.key.data)
        for entry in (table if entries else [])
    ]
    assert found == [
        (e.principal.encode(), e.key_version, e.key.enctype, e.key.value) for e in entries
    ]
