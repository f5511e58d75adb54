"""Options of tickets of services in the forms that carry a spec, for ``credspec convert``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from credspec.contract.errors import ShimError
from credspec.contract.service_names import SERVICES as SERVICES_KIND
from credspec.contract.service_names import listed_services
from credspec.contract.ticket_options import SERVICES, TICKETS
from credspec.errors import UsageError
from credspec.spec.conversions import Form

FORMS: Final = (Form.DOCKER_RUN, Form.COMPOSE, Form.OCI)
"""The forms that can carry them."""


def ticket_labels(services: Sequence[str]) -> dict[str, str]:
    """Return the labels, or annotations, that ask for tickets of some services only.

    Raises:
        UsageError: `service-name-invalid`.
    """
    try:
        listed = listed_services(",".join(services), "--tickets-of")
    except ShimError as error:
        raise UsageError.of("service-name-invalid", error.text) from None
    return {TICKETS[0]: SERVICES_KIND, SERVICES[0]: ",".join(listed)} if listed else {}


def with_labels(text: str, form: Form, labels: Mapping[str, str]) -> str:
    """Return a converted spec with labels, in one of `FORMS`."""
    if not labels:
        return text
    if form is Form.DOCKER_RUN:
        words = (f" --label {shlex.quote(f'{name}={value}')}" for name, value in labels.items())
        return text.rstrip("\n") + "".join(words) + "\n"
    if form is Form.COMPOSE:
        lines = (f"      {name}: {json.dumps(value)}\n" for name, value in labels.items())
        return f"{text}    labels:\n" + "".join(lines)
    document = json.loads(text)
    document["annotations"] |= labels
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
