from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credspec.errors import InvalidSpecError
from credspec.fetcher_lease_files import (
    TicketEntry,
    metadata_text,
    read_metadata,
)

FIRST = {
    "krb_file_path": "/var/credentials-fetcher/krbdir/0a/WebApp01/krb5cc",
    "service_account_name": "WebApp01",
    "domain_name": "contoso.com",
    "domainless_user": "",
}
texts = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1)
entries = st.builds(
    TicketEntry,
    file=texts,
    account=texts,
    domain=texts,
    user=texts | st.just(""),
    user_domain=texts | st.just(""),
    distinguished_name=texts | st.just(""),
    spec_arn=texts | st.just(""),
    secret_arn=texts | st.just(""),
)


@given(st.lists(entries, max_size=5))
def test_what_is_written_is_read(given_entries: list[TicketEntry]) -> None:
    assert read_metadata(metadata_text(given_entries).encode()) == given_entries


def test_both_versions_are_read() -> None:
    entry = TicketEntry(
        file=FIRST["krb_file_path"], account="WebApp01", domain="contoso.com", user=""
    )
    assert read_metadata(json.dumps({"krb_ticket_info": [FIRST]}).encode()) == [entry]
    assert read_metadata(json.dumps([FIRST]).encode()) == [entry]
    extra = FIRST | {"credspec_info": "", "distinguished_name": "", "unknown": 1}
    assert read_metadata(json.dumps({"krb_ticket_info": [extra]}).encode()) == [entry]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{",
        b"1",
        b"{}",
        b'{"krb_ticket_info": {}}',
        b"[1]",
        b"[{}]",
        json.dumps([FIRST | {"domain_name": 1}]).encode(),
        json.dumps([FIRST | {"domain_name": "a\nb"}]).encode(),
        json.dumps([FIRST | {"domainless_user": "\ud800"}]).encode(),
        json.dumps([FIRST] * 1001).encode(),
        b"[" * 100_000,
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(InvalidSpecError, match="metadata-invalid"):
        read_metadata(data)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        read_metadata(data)
    except InvalidSpecError as error:
        assert error.code == "metadata-invalid"
