"""The options of a pod's tickets: annotations of the pod that become attributes of its volumes."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from credspec.contract.errors import ShimError
from credspec.contract.lease_environment import KEYTAB_ENVIRONMENT, LEASE_ENVIRONMENT
from credspec.contract.ticket_options import KEYTAB, MODE, OWNER, SERVICES, TICKETS, check_options
from credspec.kubernetes.objects.names import (
    KEYTAB_ATTRIBUTE,
    MODE_ATTRIBUTE,
    SERVICES_ATTRIBUTE,
    TICKETS_ATTRIBUTE,
    UID_ATTRIBUTE,
)
from credspec.kubernetes.webhook.pod import table_in, text_in
from credspec.kubernetes.webhook.refusals import PodInvalidError

_YES: Final = frozenset({"true", "1"})


class TicketOptions(NamedTuple):
    """The attributes of the volumes, the variables of containers, and the group of the files.

    `is_owned` is whether the pod names the owner of the files itself.
    """

    attributes: dict[str, str]
    variables: dict[str, str]
    group: int | None
    is_owned: bool


def ticket_options(pod: dict[str, Any]) -> TicketOptions:
    """Return what a pod's annotations say of its tickets.

    Raises:
        PodInvalidError: `kubernetes-option-invalid`.
        ReviewMalformedError: `kubernetes-pod-malformed`.
    """
    annotations = table_in(table_in(pod, "metadata"), "annotations")
    given = {
        name: text
        for name, _ in (OWNER, MODE, KEYTAB, TICKETS, SERVICES)
        if (text := text_in(annotations, name))
    }
    try:
        check_options(given)
    except ShimError as error:
        raise PodInvalidError.of(
            "kubernetes-option-invalid",
            error.text,
            where="/metadata/annotations",
            remedy="correct the annotation",
        ) from None
    uid, _, gid = given.get(OWNER[0], "").partition(":")
    keytab = given.get(KEYTAB[0], "").lower() in _YES
    attributes = {
        UID_ATTRIBUTE: uid,
        MODE_ATTRIBUTE: given.get(MODE[0], ""),
        KEYTAB_ATTRIBUTE: "true" if keytab else "",
        TICKETS_ATTRIBUTE: given.get(TICKETS[0], "").lower(),
        SERVICES_ATTRIBUTE: given.get(SERVICES[0], ""),
    }
    return TicketOptions(
        {name: value for name, value in attributes.items() if value},
        LEASE_ENVIRONMENT | (KEYTAB_ENVIRONMENT if keytab else {}),
        int(gid) if gid else None,
        is_owned=bool(uid),
    )
