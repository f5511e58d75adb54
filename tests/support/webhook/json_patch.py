"""JSON patches (RFC 6902), applied as strictly as the API server does; `add` and `remove` only."""

from __future__ import annotations

import copy
from typing import Any


def applied(document: Any, operations: list[dict[str, Any]]) -> Any:
    """Return a copy with a patch applied; a path that does not exist raises."""
    result = copy.deepcopy(document)
    for operation in operations:
        *parents, last = [
            token.replace("~1", "/").replace("~0", "~")
            for token in operation["path"].split("/")[1:]
        ]
        target = result
        for token in parents:
            target = target[int(token)] if isinstance(target, list) else target[token]
        if operation["op"] == "remove":
            del target[int(last) if isinstance(target, list) else last]
        elif operation["op"] != "add":
            raise ValueError(operation["op"])
        elif isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), operation["value"])
        elif isinstance(target, dict):
            target[last] = copy.deepcopy(operation["value"])
        else:
            raise TypeError(operation["path"])
    return result
