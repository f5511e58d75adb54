"""Volumes published, looked after and taken back, in steps that can be repeated from any point.

A volume is a tmpfs, a lease of the agent's that fills it, and a bind mount where the pod finds it.
All three are found again by the volume's id, so a run that was killed anywhere leaves nothing that
the next call for this volume does not complete or remove.

The kubelet calls again for every volume each minute or so. As long as the API server's last answer
for the pod's service account and its object is not too old, such a call looks at the node alone. A
pod whose ``use`` was revoked, or whose object is gone, loses its tickets at the next time that is
asked; an API server that does not answer takes nothing from a pod that lives.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from credspec.errors import CredspecError, NotFoundError, NotPermittedError, UnreachableError
from credspec.kubernetes.csi.agent_leases import AgentLeases
from credspec.kubernetes.csi.object_access import Answer, ObjectAccess, boot_seconds
from credspec.kubernetes.csi.volume_mounts import VolumeMounts
from credspec.kubernetes.csi.volume_records import VolumeRecord, VolumeRecords, record_of
from credspec.kubernetes.csi.volume_request import VolumeRequest, lease_of
from credspec.service.events import Event, emit
from credspec.service.keyed_lock import KeyedLock

REVIEW_SECONDS: Final = 600.0
"""How old the API server's answer about a pod that lives may become, 60 per cent more at most."""

# Wide, from 70 per cent less: a cluster that started at once asks for all again between these two,
# which is a peak of their mean over their difference, and sharper in step with the kubelets' calls.
_LIVES: Final = (0.3, 1.6)
_REFUSED: Final = 0.25


@dataclass(frozen=True, slots=True)
class Volumes:
    """All volumes of this node. `boottime` is CLOCK_BOOTTIME, in seconds."""

    access: ObjectAccess
    agent: AgentLeases
    mounts: VolumeMounts
    records: VolumeRecords
    locks: KeyedLock[str] = field(default_factory=KeyedLock)
    review_seconds: float = REVIEW_SECONDS
    boottime: Callable[[], float] = boot_seconds

    async def publish(self, request: VolumeRequest) -> None:
        """Let the target show a volume with tickets, or say why not; a pod keeps what it may.

        Raises:
            NotPermittedError: `csi-use-not-permitted`; the agent's policy or the domain refuses.
            NotFoundError: `kubernetes-spec-missing`.
            UnreachableError: the API server, the agent or the domain does not answer.
            CredspecError: of the step that failed.
        """
        async with self.locks.hold(request.lease_id):
            found = await asyncio.to_thread(self.records.get, request.lease_id)
            record = found if found is not None and found.is_of(request) else record_of(request)
            if await self._is_complete(record):
                await self._look_after(record)
            else:
                await self._complete(record)

    async def unpublish(self, volume_id: str, target: Path) -> None:
        """Take a volume back; one that is gone, or never was, is fine.

        Raises:
            CredspecError: `csi-unmount`.
        """
        lease_id = lease_of(volume_id)
        async with self.locks.hold(lease_id):
            record = await asyncio.to_thread(self.records.get, lease_id)
            await asyncio.to_thread(self.mounts.unbind, target)
            if record is not None and record.target != target and await self._is_bound(record):
                return
            await self._remove(lease_id)

    async def sweep(self, pods: Path) -> int:
        """Take back the volumes of pods that the kubelet has no trace of; return how many.

        `pods` is the kubelet's directory of all pods. Usually the kubelet asks for it itself, even
        for pods that were deleted while it was away; not on a node that was reset.
        """
        count = 0
        for record in await asyncio.to_thread(lambda: list(self.records.all())):
            if not await asyncio.to_thread(_is_gone, pods, record.pod.uid):
                continue
            try:
                await self.unpublish(record.volume_id, record.target)
            except CredspecError as error:
                _report(Event.VOLUME_FAILED, record, error=str(error))
            else:
                _report(Event.VOLUME_ABANDONED, record)
                count += 1
        return count

    async def _is_complete(self, record: VolumeRecord) -> bool:
        """Return whether nothing is missing that the node knows of."""
        if not record.is_granted:
            return False
        is_mounted = await asyncio.to_thread(self.mounts.is_mounted, record.lease_id)
        if not is_mounted or not await self._is_bound(record):
            return False
        try:
            return await self.agent.has(record.lease_id)
        except CredspecError:
            return True  # an agent that is being restarted adopts it

    async def _is_bound(self, record: VolumeRecord) -> bool:
        return await asyncio.to_thread(
            self.mounts.is_bound,
            record.lease_id,
            record.target,
            is_read_only=record.options.is_read_only,
        )

    async def _look_after(self, record: VolumeRecord) -> None:
        """Ask again for a pod that lives, if it is time, or take what another pod was answered.

        Raises as `publish`; the pod keeps its tickets, but for those that it may not have any more.
        """
        answer = self.access.last(record.pod, record.spec_name)
        asked = record.asked if answer is None else max(record.asked, answer.asked)
        # After a restart of the driver only the volume is known.
        chance = _chance(record.lease_id) if answer is None else answer.chance
        low, high = _LIVES
        if not self._is_recent(asked, self.review_seconds * (low + (high - low) * chance)):
            try:
                answer = await self.access.ask(record.pod, record.spec_name)
            except UnreachableError as error:
                # Living pods go on; it is asked again at the kubelet's next call.
                _report(Event.VOLUME_NOT_REVIEWED, record, error=str(error))
                return
        if answer is None or answer.asked <= record.asked:
            return
        if answer.refusal is not None:
            await self._revoke(record, answer.refusal)
            raise answer.refusal.detached()
        if _digest(answer.document) != record.document:
            await self._fill(record, answer)
        else:
            await self._write(replace(record, asked=answer.asked))

    async def _complete(self, record: VolumeRecord) -> None:
        """Make what is missing of a volume, all of it or nothing.

        Raises as `publish`.
        """
        is_pods = await self._is_bound(record)
        try:
            answer = self.access.last(record.pod, record.spec_name) if is_pods else None
            # Pods that live and may not have their tickets do not all ask each minute.
            is_known = answer is not None and answer.refusal is not None
            age = self.review_seconds * _REFUSED
            if answer is None or not is_known or not self._is_recent(answer.asked, age):
                answer = await self.access.ask(record.pod, record.spec_name)
            if answer.refusal is not None:
                raise answer.refusal.detached()
            # First, so that a volume is never without one.
            await self._write(replace(record, document=""))
            if not await asyncio.to_thread(self.mounts.is_mounted, record.lease_id):
                await asyncio.to_thread(self.mounts.make, record.lease_id, record.options)
            await self._fill(record, answer)
        except BaseException as error:
            if not await self._is_bound(record):
                # The pod does not run yet, and the kubelet may never ask for it to be taken back.
                await asyncio.shield(self._undo(record))
            elif isinstance(error, NotPermittedError | NotFoundError):
                await self._revoke(record, error)
            raise

    def _is_recent(self, asked: float, seconds: float) -> bool:
        return 0 <= self.boottime() - asked < seconds

    async def _fill(self, record: VolumeRecord, answer: Answer) -> None:
        directory = self.mounts.path(record.lease_id)
        document = answer.document
        await self.agent.make(record.lease_id, document, record.pod, directory, record.options)
        await asyncio.to_thread(
            self.mounts.bind,
            record.lease_id,
            record.target,
            is_read_only=record.options.is_read_only,
        )
        await self._write(replace(record, document=_digest(document), asked=answer.asked))
        _report(Event.VOLUME_PUBLISHED, record)

    async def _revoke(self, record: VolumeRecord, error: CredspecError) -> None:
        """Have the tickets of a pod wiped that may not have them any more; the volume stays."""
        # Also without a record of the grant: a driver that was killed may not have written it.
        await self.agent.release(record.lease_id)
        if not record.is_granted:
            return
        _report(Event.VOLUME_REVOKED, record, error=str(error))
        await self._write(replace(record, document=""))

    async def _undo(self, record: VolumeRecord) -> None:
        try:
            await self._remove(record.lease_id)
        except CredspecError as error:
            _report(Event.VOLUME_FAILED, record, error=str(error))

    async def _remove(self, lease_id: str) -> None:
        try:
            await self.agent.release(lease_id)
        except CredspecError as error:
            # It finds out on its own: nothing is mounted there any more.
            emit(Event.VOLUME_FAILED, lease=lease_id, error=str(error))
        await asyncio.to_thread(self.mounts.remove, lease_id)
        await asyncio.to_thread(self.records.remove, lease_id)

    async def _write(self, record: VolumeRecord) -> None:
        await asyncio.to_thread(self.records.write, record)


def _digest(document: str) -> str:
    return hashlib.sha256(document.encode()).hexdigest()


def _chance(lease_id: str) -> float:
    """Return a number from 0 to 1 that is a volume's own."""
    return int(lease_id[:8], 16) / 2**32


def _is_gone(pods: Path, uid: str) -> bool:
    """Return whether the kubelet has no directory of a pod, and can be seen not to have one."""
    return pods.is_dir() and not (pods / uid).exists()


def _report(event: Event, record: VolumeRecord, **fields: str) -> None:
    emit(event, lease=record.lease_id, pod=str(record.pod), spec=record.spec_name, **fields)
