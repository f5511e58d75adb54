"""The seven calls as gRPC takes them: who calls, how many at a time, until when, and what it hears.

Requests come as bytes and are read here, so that what may be secret in them is known, is in no
object of gRPC's, and is dropped before the call ends.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from credspec.agent.audit import Caller
from credspec.agent.events import Event, emit
from credspec.errors import CredspecError, InvalidSpecError, forget_frames, internal_error
from credspec.runtimes.credentials_fetcher import credentialsfetcher_pb2 as wire
from credspec.runtimes.credentials_fetcher.call_status import status_of
from credspec.runtimes.credentials_fetcher.connections import caller_of
from credspec.runtimes.credentials_fetcher.message_fields import MOST_FIELDS, has_few_fields
from credspec.runtimes.credentials_fetcher.requests import Refusal, RefusedCallError
from credspec.runtimes.credentials_fetcher.service import Granted, Service

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

NAME: Final = "credentialsfetcher.CredentialsFetcherService"
MOST_CALLS: Final = 32
"""How many calls of a user other than root may be under way."""

_ROOT: Final = 0
_DEADLINE_SECONDS: Final = 120.0
# Answered later than this before its own deadline, a caller might never learn of its lease.
_ANSWER_SECONDS: Final = 0.1

_Answer: TypeAlias = "Message | Granted"
_Call: TypeAlias = Callable[[Any, Caller], Awaitable[_Answer]]


class CallHandlers:
    """The calls of a service.

    `served` is called with the peer's address at the start of each call, and whether its request
    may hold a secret; `expect` with that address, the id of a lease that was made for it, and what
    undoes it if the answer does not arrive.
    """

    def __init__(
        self,
        service: Service,
        served: Callable[[str, bool], None] = lambda *_: None,
        expect: Callable[[str, str, Callable[[], None]], None] = lambda *_: None,
    ) -> None:
        self._service = service
        self._served = served
        self._expect = expect
        self._under_way: Counter[int] = Counter()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the calls as gRPC takes them."""
        import grpc

        service = self._service
        calls: tuple[tuple[str, type[Message], _Call], ...] = (
            ("AddKerberosLease", wire.CreateKerberosLeaseRequest, service.add),
            (
                "AddNonDomainJoinedKerberosLease",
                wire.CreateNonDomainJoinedKerberosLeaseRequest,
                service.add_with_user,
            ),
            (
                "RenewNonDomainJoinedKerberosLease",
                wire.RenewNonDomainJoinedKerberosLeaseRequest,
                service.renew_with_user,
            ),
            ("AddKerberosArnLease", wire.KerberosArnLeaseRequest, service.add_by_arn),
            ("RenewKerberosArnLease", wire.RenewKerberosArnLeaseRequest, service.renew_by_arn),
            ("DeleteKerberosLease", wire.DeleteKerberosLeaseRequest, service.delete),
            ("HealthCheck", wire.HealthCheckRequest, service.health),
        )
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                # Without a deserializer the bytes come as they are.
                name: grpc.unary_unary_rpc_method_handler(
                    self._answered(name, kind, call),
                    response_serializer=lambda answer: answer.SerializeToString(),
                )
                for name, kind, call in calls
            },
        )

    def _answered(
        self, name: str, kind: type[Message], call: _Call
    ) -> Callable[[bytes, Any], Awaitable[Message]]:
        """Return a call that says in credentials-fetcher's words what went wrong."""

        async def answer(request: bytes, context: Any) -> Message:
            message = _read(kind, request)
            is_secret = message is None or _may_hold_secret(name, request)
            # gRPC's own variables hold the bytes until the call ends, these do not.
            del request
            self._served(context.peer(), is_secret)
            outcome = await self._outcome(name, call, message, context)
            # What ends the call leads in a circle to this frame, which may hold no password then.
            del message
            if isinstance(outcome, Granted):
                self._expect(context.peer(), outcome.lease, outcome.undo)
                # gRPC may not even send it: the call can end before this frame does.
                context.add_done_callback(_undo_unless_sent(outcome.undo))
                return outcome.answer
            if not isinstance(outcome, tuple):
                return outcome
            await context.abort(*outcome)
            raise AssertionError("unreachable")

        return answer

    async def _outcome(
        self, name: str, call: _Call, message: Message | None, context: Any
    ) -> _Answer | tuple[grpc.StatusCode, str]:
        """Return a call's answer, or the status and text of its refusal."""
        import grpc

        caller = caller_of(context.peer())
        if caller is None or not self._service.may_call(caller.uid):
            return grpc.StatusCode.PERMISSION_DENIED, "caller unknown"
        uid = caller.uid
        if uid != _ROOT and self._under_way[uid] >= MOST_CALLS:
            text = f"user {uid} has {MOST_CALLS} calls under way [calls-number]"
            return grpc.StatusCode.RESOURCE_EXHAUSTED, text
        self._under_way[uid] += 1
        try:
            if message is None:
                raise _unreadable()
            left = context.time_remaining()
            patience = _DEADLINE_SECONDS if left is None else left - _ANSWER_SECONDS
            async with asyncio.timeout(min(patience, _DEADLINE_SECONDS)):
                return await _without_frames(call(message, caller))
        except RefusedCallError as refused:
            emit(Event.REQUEST_FAILED, uid=uid, path=name, error=str(refused.error))
            code, text = grpc.StatusCode[status_of(refused.error)], str(refused)
        except TimeoutError:
            emit(Event.REQUEST_FAILED, uid=uid, path=name, error="deadline")
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            text = f"{Refusal.ACCOUNT_TICKET}: no answer in time"
        except CredspecError as error:
            emit(Event.REQUEST_FAILED, uid=uid, path=name, error=str(error))
            code, text = grpc.StatusCode[status_of(error)], str(error)
        except Exception as error:  # noqa: BLE001 - the caller is answered, others are served
            emit(Event.INTERNAL_ERROR, path=name, error=type(error).__name__)
            code, text = grpc.StatusCode.INTERNAL, str(internal_error(error, name))
        finally:
            self._under_way[uid] -= 1
            if not self._under_way[uid]:
                del self._under_way[uid]
        return code, text


async def _without_frames(answer: Awaitable[_Answer]) -> _Answer:
    """Await an answer; an error leads to no frame that held the request, which has a password.

    From Python 3.13 on, what a context manager raises leads in a circle to the frames below it.
    """
    try:
        return await answer
    except BaseException as error:
        forget_frames(error)
        raise


def _undo_unless_sent(undo: Callable[[], None]) -> Callable[[Any], None]:
    def ended(context: Any) -> None:
        if not context.done():
            undo()

    return ended


def _may_hold_secret(name: str, request: bytes) -> bool:
    """Return whether a call's request may hold a password, in a field or in a spec."""
    if name in {"HealthCheck", "DeleteKerberosLease"}:
        return False
    # A key may be written with escapes.
    return name != "AddKerberosLease" or b"\\u" in request or b"plugin" in request.lower()


def _read(kind: type[Message], data: bytes) -> Message | None:
    """Return a message, None if the bytes are none.

    Until version 1.3.1, RenewKerberosArnLease had the request of AddKerberosArnLease; that one has
    a fifth field, and its first one holds ARNs.
    """
    from google.protobuf.message import DecodeError

    if not has_few_fields(data):
        return None
    with suppress(DecodeError):
        if kind is wire.RenewKerberosArnLeaseRequest:
            older = wire.KerberosArnLeaseRequest.FromString(data)
            if older.region and all(arn.startswith("arn:") for arn in older.credspec_arns):
                return older
        return kind.FromString(data)
    return None


def _unreadable() -> RefusedCallError:
    return RefusedCallError(
        Refusal.SPEC_MALFORMED,
        InvalidSpecError.of(
            "message-invalid",
            "the message is not of the interface",
            where="request",
            expected=f"at most {MOST_FIELDS} fields of the published types, with text in UTF-8",
        ),
    )
