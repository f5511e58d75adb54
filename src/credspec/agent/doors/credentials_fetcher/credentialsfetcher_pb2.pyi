from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateKerberosLeaseRequest(_message.Message):
    __slots__ = ("credspec_contents",)
    CREDSPEC_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    credspec_contents: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, credspec_contents: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateKerberosLeaseResponse(_message.Message):
    __slots__ = ("lease_id", "created_kerberos_file_paths")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_KERBEROS_FILE_PATHS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    created_kerberos_file_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lease_id: _Optional[str] = ..., created_kerberos_file_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class CreateNonDomainJoinedKerberosLeaseRequest(_message.Message):
    __slots__ = ("credspec_contents", "username", "password", "domain")
    CREDSPEC_CONTENTS_FIELD_NUMBER: _ClassVar[int]
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    credspec_contents: _containers.RepeatedScalarFieldContainer[str]
    username: str
    password: str
    domain: str
    def __init__(self, credspec_contents: _Optional[_Iterable[str]] = ..., username: _Optional[str] = ..., password: _Optional[str] = ..., domain: _Optional[str] = ...) -> None: ...

class CreateNonDomainJoinedKerberosLeaseResponse(_message.Message):
    __slots__ = ("lease_id", "created_kerberos_file_paths")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    CREATED_KERBEROS_FILE_PATHS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    created_kerberos_file_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lease_id: _Optional[str] = ..., created_kerberos_file_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class RenewNonDomainJoinedKerberosLeaseRequest(_message.Message):
    __slots__ = ("username", "password", "domain")
    USERNAME_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    username: str
    password: str
    domain: str
    def __init__(self, username: _Optional[str] = ..., password: _Optional[str] = ..., domain: _Optional[str] = ...) -> None: ...

class RenewNonDomainJoinedKerberosLeaseResponse(_message.Message):
    __slots__ = ("renewed_kerberos_file_paths",)
    RENEWED_KERBEROS_FILE_PATHS_FIELD_NUMBER: _ClassVar[int]
    renewed_kerberos_file_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, renewed_kerberos_file_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class KerberosArnLeaseRequest(_message.Message):
    __slots__ = ("credspec_arns", "access_key_id", "secret_access_key", "session_token", "region")
    CREDSPEC_ARNS_FIELD_NUMBER: _ClassVar[int]
    ACCESS_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_ACCESS_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    credspec_arns: _containers.RepeatedScalarFieldContainer[str]
    access_key_id: str
    secret_access_key: str
    session_token: str
    region: str
    def __init__(self, credspec_arns: _Optional[_Iterable[str]] = ..., access_key_id: _Optional[str] = ..., secret_access_key: _Optional[str] = ..., session_token: _Optional[str] = ..., region: _Optional[str] = ...) -> None: ...

class KerberosTicketArnResponse(_message.Message):
    __slots__ = ("credspec_arns", "created_kerberos_file_paths")
    CREDSPEC_ARNS_FIELD_NUMBER: _ClassVar[int]
    CREATED_KERBEROS_FILE_PATHS_FIELD_NUMBER: _ClassVar[int]
    credspec_arns: str
    created_kerberos_file_paths: str
    def __init__(self, credspec_arns: _Optional[str] = ..., created_kerberos_file_paths: _Optional[str] = ...) -> None: ...

class CreateKerberosArnLeaseResponse(_message.Message):
    __slots__ = ("lease_id", "krb_ticket_response_map")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    KRB_TICKET_RESPONSE_MAP_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    krb_ticket_response_map: _containers.RepeatedCompositeFieldContainer[KerberosTicketArnResponse]
    def __init__(self, lease_id: _Optional[str] = ..., krb_ticket_response_map: _Optional[_Iterable[_Union[KerberosTicketArnResponse, _Mapping]]] = ...) -> None: ...

class RenewKerberosArnLeaseRequest(_message.Message):
    __slots__ = ("access_key_id", "secret_access_key", "session_token", "region")
    ACCESS_KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_ACCESS_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    access_key_id: str
    secret_access_key: str
    session_token: str
    region: str
    def __init__(self, access_key_id: _Optional[str] = ..., secret_access_key: _Optional[str] = ..., session_token: _Optional[str] = ..., region: _Optional[str] = ...) -> None: ...

class RenewKerberosArnLeaseResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...

class DeleteKerberosLeaseRequest(_message.Message):
    __slots__ = ("lease_id",)
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    def __init__(self, lease_id: _Optional[str] = ...) -> None: ...

class DeleteKerberosLeaseResponse(_message.Message):
    __slots__ = ("lease_id", "deleted_kerberos_file_paths")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    DELETED_KERBEROS_FILE_PATHS_FIELD_NUMBER: _ClassVar[int]
    lease_id: str
    deleted_kerberos_file_paths: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, lease_id: _Optional[str] = ..., deleted_kerberos_file_paths: _Optional[_Iterable[str]] = ...) -> None: ...

class HealthCheckRequest(_message.Message):
    __slots__ = ("service",)
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    service: str
    def __init__(self, service: _Optional[str] = ...) -> None: ...

class HealthCheckResponse(_message.Message):
    __slots__ = ("status",)
    STATUS_FIELD_NUMBER: _ClassVar[int]
    status: str
    def __init__(self, status: _Optional[str] = ...) -> None: ...
