"""A client of credentials-fetcher's interface, made from the interface as it is published.

The table below is the published one (protos/credentialsfetcher.proto of aws/credentials-fetcher):
package, service, messages, fields and their numbers. Nothing here comes from our server's modules.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "credentialsfetcher"
SERVICE = "CredentialsFetcherService"
CALLS = {
    "AddKerberosLease": ("CreateKerberosLeaseRequest", "CreateKerberosLeaseResponse"),
    "AddNonDomainJoinedKerberosLease": (
        "CreateNonDomainJoinedKerberosLeaseRequest",
        "CreateNonDomainJoinedKerberosLeaseResponse",
    ),
    "RenewNonDomainJoinedKerberosLease": (
        "RenewNonDomainJoinedKerberosLeaseRequest",
        "RenewNonDomainJoinedKerberosLeaseResponse",
    ),
    "DeleteKerberosLease": ("DeleteKerberosLeaseRequest", "DeleteKerberosLeaseResponse"),
    "HealthCheck": ("HealthCheckRequest", "HealthCheckResponse"),
    "AddKerberosArnLease": ("KerberosArnLeaseRequest", "CreateKerberosArnLeaseResponse"),
    "RenewKerberosArnLease": ("RenewKerberosArnLeaseRequest", "RenewKerberosArnLeaseResponse"),
}
# A name in brackets is repeated; one with a colon has another type than string.
MESSAGES = {
    "HealthCheckRequest": "service",
    "HealthCheckResponse": "status",
    "CreateKerberosLeaseRequest": "[credspec_contents]",
    "CreateKerberosLeaseResponse": "lease_id [created_kerberos_file_paths]",
    "CreateNonDomainJoinedKerberosLeaseRequest": "[credspec_contents] username password domain",
    "CreateNonDomainJoinedKerberosLeaseResponse": "lease_id [created_kerberos_file_paths]",
    "RenewNonDomainJoinedKerberosLeaseRequest": "username password domain",
    "RenewNonDomainJoinedKerberosLeaseResponse": "[renewed_kerberos_file_paths]",
    "DeleteKerberosLeaseRequest": "lease_id",
    "DeleteKerberosLeaseResponse": "lease_id [deleted_kerberos_file_paths]",
    "KerberosArnLeaseRequest": (
        "[credspec_arns] access_key_id secret_access_key session_token region"
    ),
    "KerberosTicketArnResponse": "credspec_arns created_kerberos_file_paths",
    "CreateKerberosArnLeaseResponse": (
        "lease_id [krb_ticket_response_map:KerberosTicketArnResponse]"
    ),
    "RenewKerberosArnLeaseRequest": "access_key_id secret_access_key session_token region",
    "RenewKerberosArnLeaseResponse": "status",
}


def interface() -> descriptor_pb2.FileDescriptorProto:
    """The interface as a descriptor; fields are numbered in their order, from 1."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="protos/credentialsfetcher.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(fields.split(), start=1):
            field, _, of = text.strip("[]").partition(":")
            message.field.add(
                name=field,
                number=number,
                label=field_type.LABEL_REPEATED if "[" in text else field_type.LABEL_OPTIONAL,
                type=field_type.TYPE_MESSAGE if of else field_type.TYPE_STRING,
                type_name=f".{PACKAGE}.{of}" if of else None,
            )
    service = file.service.add(name=SERVICE)
    for name, (asked, answered) in CALLS.items():
        service.method.add(
            name=name, input_type=f".{PACKAGE}.{asked}", output_type=f".{PACKAGE}.{answered}"
        )
    return file


class PeerClient:
    """Calls by the names and with the messages of the published interface."""

    def __init__(self, socket: Path) -> None:
        pool = descriptor_pool.DescriptorPool()
        pool.Add(interface())
        self._types = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
            for name in MESSAGES
        }
        self.channel = grpc.insecure_channel(f"unix:{socket}")

    def call(self, name: str, *, seconds: float = 60, **fields: Any) -> Any:
        """Call, and return the answer; raises grpc.RpcError."""
        answered = self._types[CALLS[name][1]]
        return self.raw(name, answered.FromString)(self.message(name, **fields), timeout=seconds)

    def message(self, name: str, **fields: Any) -> bytes:
        """The bytes of a call's request."""
        return bytes(self._types[CALLS[name][0]](**fields).SerializeToString())

    def raw(self, name: str, answered: Any = bytes) -> grpc.UnaryUnaryMultiCallable:
        """The call by its path, which takes any bytes."""
        return self.channel.unary_unary(
            f"/{PACKAGE}.{SERVICE}/{name}", response_deserializer=answered
        )

    def refusal(self, name: str, **fields: Any) -> tuple[grpc.StatusCode, str]:
        """Call what must fail, and return status and text."""
        try:
            self.call(name, **fields)
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        raise AssertionError(f"{name} was not refused")

    def close(self) -> None:
        self.channel.close()
