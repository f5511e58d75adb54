from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credspec.directory.account_identity import IdentityForm, parse_account_identity
from credspec.errors import UsageError

GUID = "56d9b66c-d746-4f87-bd26-26760cfdca2e"
DN = "CN=WebApp01,CN=Managed Service Accounts,DC=contoso,DC=com"
SID = "S-1-5-21-702590844-1001920913-2680819671-1104"


@pytest.mark.parametrize(
    ("text", "form", "value", "domain"),
    [
        ("WebApp01", IdentityForm.ACCOUNT_NAME, "WebApp01", None),
        ("WebApp01$", IdentityForm.ACCOUNT_NAME, "WebApp01", None),
        ("WebApp01$$", IdentityForm.ACCOUNT_NAME, "WebApp01", None),
        (DN, IdentityForm.DISTINGUISHED_NAME, DN, "contoso.com"),
        (GUID.upper(), IdentityForm.GUID, GUID, None),
        (f"{{{GUID}}}", IdentityForm.GUID, GUID, None),
        (SID, IdentityForm.SID, SID, None),
        ("WebApp01$@contoso.com", IdentityForm.USER_PRINCIPAL_NAME, "WebApp01", "contoso.com"),
        (r"CONTOSO\WebApp01$", IdentityForm.LOGON_NAME, "WebApp01", "CONTOSO"),
    ],
)
def test_forms(text: str, form: IdentityForm, value: str, domain: str | None) -> None:
    identity = parse_account_identity(text)
    assert (identity.form, identity.value, identity.domain) == (form, value, domain)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Web(App)", r"(sAMAccountName=Web\28App\29$)"),
        (r"CONTOSO\WebApp01", "(sAMAccountName=WebApp01$)"),
        (SID.lower(), f"(objectSid={SID})"),
        ("a@contoso.com", "(|(userPrincipalName=a@contoso.com)(sAMAccountName=a$))"),
        ("a@other.com", "(userPrincipalName=a@other.com)"),
        ("CN=a*,DC=b", r"(distinguishedName=CN=a\2a,DC=b)"),
    ],
)
def test_filters(text: str, expected: str) -> None:
    assert parse_account_identity(text).filter_in("Contoso.com") == expected


def test_a_guid_is_searched_in_its_order_of_bytes() -> None:
    """The first three groups are little-endian (MS-DTYP 2.3.4.2)."""
    found = parse_account_identity(GUID).filter_in("contoso.com")
    assert found.startswith(r"(objectGUID=\6c\b6\d9\56\46\d7\87\4f\bd\26")
    octets = bytes.fromhex(found.removeprefix("(objectGUID=").rstrip(")").replace("\\", ""))
    assert uuid.UUID(bytes_le=octets) == uuid.UUID(GUID)


@pytest.mark.parametrize(
    "text",
    [
        *("", "$", ".", "..", "*", "a b", "a\nb", "a\0", "a/b", "../a", "a,b", "a\ud800", "x" * 65),
        *(
            "\\a",
            "CONTOSO\\",
            "@contoso.com",
            "a@",
            "a@..",
            "a\\b\\c",
            "CN=" + "x" * 2000 + ",DC=a",
        ),
        *("CN=a\r\n,DC=b", "a@b@*"),
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="account-name-invalid"):
        parse_account_identity(text)


@settings(max_examples=2000)
@given(st.text() | st.from_regex(r"[A-Za-z0-9@\\$=,(){}*.-]{1,40}", fullmatch=True))
def test_no_name_gets_out_of_its_filter(text: str) -> None:
    try:
        found = parse_account_identity(text).filter_in("contoso.com")
    except UsageError:
        return
    # Parentheses are ours alone, and every backslash is an escape.
    bare = re.sub(r"\\[0-9a-f]{2}", "", found)
    assert "\\" not in bare
    assert "*" not in bare
    assert "\0" not in bare
    assert bare.count("(") == bare.count(")") == (3 if bare.startswith("(|") else 1)
