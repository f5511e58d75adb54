"""Create requests with the gateway's note of what was asked for, and from those that have one."""

from __future__ import annotations

from credspec.runtimes.docker_gateway.json_object import JsonObject
from credspec.runtimes.docker_gateway.requested_settings import (
    RECORD_MOUNT,
    record_of,
    recorded,
    requested,
)
from credspec.runtimes.docker_gateway.settings_json import (
    read_settings,
    with_texts,
    write_settings,
)
from credspec.runtimes.ticket_options import REQUESTED


def with_record(
    asked: tuple[JsonObject, JsonObject],
    sent: tuple[JsonObject, JsonObject],
    runtime: str,
    *,
    in_annotation: bool,
) -> JsonObject:
    """Return a host configuration with what inspect needs to show the request as it was.

    `asked` and `sent` are body and host configuration, before and after the gateway's changes.
    """
    try:
        before = read_settings(*asked).without_record()
        after = read_settings(*sent).without_record()
    except ValueError:
        return sent[1]  # the daemon words this best
    record = record_of(before, after, runtime)
    if record is None:
        return sent[1]
    text = record.encode(after.carried_spec(runtime) or "")
    if in_annotation:
        return with_texts(sent[1], "Annotations", after.annotations | {REQUESTED: text})
    return with_texts(sent[1], "Tmpfs", after.tmpfs | {f"{RECORD_MOUNT}{text}": ""})


def without_additions(
    body: JsonObject, configs: list[JsonObject], runtime: str
) -> tuple[JsonObject, list[JsonObject]]:
    """Return a body made from what dockerd itself shows of a container of the gateway's.

    It becomes the request that the container was made from, whatever the version of the API.
    """
    if len(configs) != 1 or len(body.find("HostConfig")) != 1:
        return body, configs
    try:
        settings = read_settings(body, configs[0])
        spec = settings.carried_spec(runtime)
        if spec is None or recorded(settings, spec) is None:
            return body, configs
        found = requested(settings, runtime)
        if found is None:
            return body, configs
        body, config = write_settings(body, configs[0], settings, found)
    except ValueError:
        return body, configs
    return body.with_member("HostConfig", str(config)), [config]
