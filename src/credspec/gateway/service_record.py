"""What the gateway adds to a Swarm service, its note of that, and a service as it was asked for.

The note is a label of the service, which its tasks do not see.
"""

from __future__ import annotations

import json
from typing import Any, Final

from credspec.contract.names import MOUNT_POINT, NEEDS_RUNTIME
from credspec.contract.ticket_options import VARIABLES
from credspec.gateway.json_object import JsonObject, elements
from credspec.gateway.settings_json import member, with_texts

LABEL: Final = "credspec.dev/service"
"""The label of a service that has the note."""

TASK: Final = ("TaskTemplate", "ContainerSpec")
"""The way from a service to what its tasks' containers are."""


def as_requested(service: JsonObject) -> JsonObject | None:
    """Return a service's specification without what the gateway added; None if nothing was.

    Raises:
        NotAnObjectError: it is nothing that dockerd has.
    """
    labels = objects(service, "Labels")
    note = _note(labels)
    if note is None:
        return None
    task = member(service, TASK[0])
    container = member(task, TASK[1])
    added = {*VARIABLES, *note["Env"]}
    environment = [
        entry for entry in _list(container, "Env") if str(entry).partition("=")[0] not in added
    ]
    container = _with_list(container, "Env", [json.dumps(entry) for entry in environment])
    kept = [text for text in list_of(container, "Mounts") if not is_tickets_mount(text)]
    container = _with_list(container, "Mounts", kept)
    configs = [*list_of(container, "Configs"), *map(json.dumps, note["Configs"])]
    container = _with_list(container, "Configs", configs)
    sysctls = {m.key: m.value for m in objects(container, "Sysctls").members}
    sysctls.pop(NEEDS_RUNTIME, None)
    container = with_texts(container, "Sysctls", sysctls)
    privileges = objects(container, "Privileges")
    privileges = privileges.with_member("CredentialSpec", json.dumps(note["CredentialSpec"]))
    container = container.with_member("Privileges", str(privileges))
    service = service.with_member("Labels", str(labels.without_exactly(LABEL)))
    return service.with_member(TASK[0], str(task.with_member(TASK[1], str(container))))


def with_note(service: JsonObject, spec: Any, variables: list[str], configs: list[Any]) -> str:
    """Return the service with the note: the credential spec, names of variables, configs."""
    note = {"CredentialSpec": spec, "Env": variables, "Configs": configs}
    labels = objects(service, "Labels").without_exactly(LABEL)
    return str(
        service.with_member("Labels", str(labels.with_member(LABEL, json.dumps(json.dumps(note)))))
    )


def objects(parent: JsonObject, key: str) -> JsonObject:
    """Return an object's member that is an object, empty if there is none or it is null.

    Raises:
        NotAnObjectError: it is something else.
    """
    found = parent.find(key)
    if not found or found[-1].value is None:
        return JsonObject(())
    return JsonObject.parse(found[-1].text)


def is_tickets_mount(text: str) -> bool:
    """Return whether a mount of a service is one where tickets, or their options, are."""
    found = [m.value for m in JsonObject.parse(text).find("Target")]
    target = str(found[-1]).rstrip("/") if found else ""
    return target == MOUNT_POINT or target.startswith((f"{MOUNT_POINT}/", f"{MOUNT_POINT}="))


def _note(labels: JsonObject) -> dict[str, Any] | None:
    """Return the note, None if there is none that the gateway could have written."""
    for found in labels.members:
        if found.key != LABEL:
            continue
        try:
            note = json.loads(found.value)
            is_note = (
                isinstance(note["CredentialSpec"], dict)
                and isinstance(note["Configs"], list)
                and all(isinstance(name, str) for name in note["Env"])
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return note if is_note else None
    return None


def _list(parent: JsonObject, key: str) -> list[Any]:
    found = parent.find(key)
    value = found[-1].value if found else None
    return value if isinstance(value, list) else []


def list_of(parent: JsonObject, key: str) -> list[str]:
    """Return the elements of an object's list, each as written; none without one.

    Raises:
        NotAnObjectError: it is something else.
    """
    found = parent.find(key)
    return elements(found[-1].text) if found and found[-1].value is not None else []


def _with_list(parent: JsonObject, key: str, texts: list[str]) -> JsonObject:
    """Return an object with a list, or without it if it is empty, as dockerd has it."""
    if texts:
        return parent.with_member(key, f"[{','.join(texts)}]")
    return JsonObject(tuple(m for m in parent.members if m not in parent.find(key)))
