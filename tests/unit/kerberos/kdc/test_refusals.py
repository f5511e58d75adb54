"""The numbers of a KDC's errors, as libkrb5 reads them, which is what most clients ask with."""

from __future__ import annotations

import krb5
import pytest

from credspec.kerberos.kdc.refusals import KdcErrorCode
from credspec.kerberos.kdc_errors import KRB5_BASE

WORDS = {
    "UNKNOWN_SERVICE": "Server not found",
    "POLICY": "policy rejects request",
    "BAD_OPTION": "can't fulfill requested option",
    "ETYPE_UNSUPPORTED": "no support for encryption type",
    "PADATA_UNSUPPORTED": "no support for padata type",
    "SERVICE_UNAVAILABLE": "service is not available",
    "BAD_INTEGRITY": "integrity check failed",
    "TICKET_EXPIRED": "Ticket expired",
    "REPEATED": "replay",
    "BAD_MATCH": "don't match",
    "CLOCK_SKEW": "Clock skew too great",
    "BAD_VERSION": "version mismatch",
    "MESSAGE_TYPE": "Invalid message type",
    "MODIFIED": "Message stream modified",
    "INAPPROPRIATE_CHECKSUM": "Inappropriate type of checksum",
    "RESPONSE_TOO_BIG": "retry with TCP",
    "GENERIC": "Generic error",
    "FIELD_TOO_LONG": "Field is too long",
    "WRONG_REALM": "Realm not local to KDC",
}


@pytest.mark.parametrize("name", KdcErrorCode.__members__)
def test_clients_read_an_error_as_it_is_meant(name: str) -> None:
    error = krb5.Krb5Error(krb5.init_context(), KRB5_BASE + KdcErrorCode[name])
    assert WORDS[name] in str(error)
