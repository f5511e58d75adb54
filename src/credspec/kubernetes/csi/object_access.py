"""Which credential spec a pod may have: that of an object which its account may use."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from credspec.errors import CredspecError, NotFoundError, NotPermittedError
from credspec.kubernetes.api.client import ApiClient
from credspec.kubernetes.api.reviews import Decision, review_use
from credspec.kubernetes.csi.volume_request import Pod
from credspec.kubernetes.objects.credential_spec import missing_object, read_object
from credspec.kubernetes.objects.names import RESOURCE_PATH

_MOST_KEPT: Final = 4096
_Key = tuple[str, str, str]


def boot_seconds() -> float:
    """Return the seconds since the node's boot, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Answer(NamedTuple):
    """What the API server said: the spec, or why there is none to be had.

    `asked` is when it was asked, in seconds of CLOCK_BOOTTIME; `chance`, from 0 to 1, says how long
    this one is good for, so that what was asked together is not asked together again.
    """

    asked: float
    chance: float = 0.0
    document: str = ""
    refusal: NotPermittedError | NotFoundError | None = None


class ObjectAccess:
    """Asks the API server, on the node, whatever admitted the pod.

    The last answer for a service account and an object is kept, so that pods of one deployment on
    one node need not all ask about the same, and those that ask at the same time share a question.
    `boottime` is CLOCK_BOOTTIME, in seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        *,
        boottime: Callable[[], float] = boot_seconds,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._api = api
        self._boottime = boottime
        self._chance = chance
        self._last: dict[_Key, Answer] = {}
        self._asking: dict[_Key, asyncio.Task[Answer]] = {}

    def last(self, pod: Pod, spec_name: str) -> Answer | None:
        """Return the last answer for the pod's service account, None without one."""
        return self._last.get((pod.namespace, pod.service_account, spec_name))

    async def ask(self, pod: Pod, spec_name: str) -> Answer:
        """Return whether a pod's service account may use an object, and the spec in it.

        Both are asked at the same time; what the object says is known only to those who may use it.
        A refusal is `csi-use-not-permitted` or `kubernetes-spec-missing`.

        Raises:
            InvalidSpecError: the object holds no spec that can be used.
            CredspecError: as `ApiClient.get` and `review_use`.
        """
        key = (pod.namespace, pod.service_account, spec_name)
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask(pod, spec_name))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        # The caller that began it may be cancelled; the others wait on.
        return await asyncio.shield(task)

    async def _ask(self, pod: Pod, spec_name: str) -> Answer:
        asked = self._boottime()  # what changes from now on may not be in the answer
        try:
            answer = Answer(asked, self._chance(), await self._document(pod, spec_name))
        except (NotPermittedError, NotFoundError) as error:
            answer = Answer(asked, self._chance(), refusal=error.detached())
        if len(self._last) >= _MOST_KEPT:
            self._last.clear()
        self._last[pod.namespace, pod.service_account, spec_name] = answer
        return answer

    async def _document(self, pod: Pod, spec_name: str) -> str:
        decision, content = await asyncio.gather(
            review_use(self._api, pod.namespace, pod.service_account, spec_name),
            self._api.get(f"{RESOURCE_PATH}/{spec_name}"),
            return_exceptions=True,
        )
        if isinstance(decision, NotFoundError):
            # Not the object: the API server has no such reviews.
            raise CredspecError(*decision.problems)
        if isinstance(decision, BaseException):
            raise decision
        if not decision.is_allowed:
            raise _not_permitted(pod, spec_name, decision)
        if isinstance(content, NotFoundError):
            raise missing_object(spec_name)
        if isinstance(content, BaseException):
            raise content
        return read_object(content).spec.to_text(compact=True)


def _not_permitted(pod: Pod, spec_name: str, decision: Decision) -> NotPermittedError:
    reason = f", reason: {decision.reason!r}" if decision.reason else ""
    return NotPermittedError.of(
        "csi-use-not-permitted",
        f"service account {pod.service_account!r} is not authorized to `use` GMSA cred spec "
        f"{spec_name!r}{reason}",
        where=str(pod),
        remedy="bind a Role with the verb use on gmsacredentialspecs.windows.k8s.io/"
        f"{spec_name} to it in the namespace {pod.namespace}",
    )
