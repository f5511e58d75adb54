"""Writes docs/api.md from the agent's OpenAPI description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from credspec.agent.openapi import openapi_document
from docs_reference.markdown import escaped, wrapped

_HEAD = Path(__file__).parent / "heads/api.md"
_METHODS = ("get", "put", "post", "delete")
_MOST_CHOICES = 6
_FIRST_ERROR = 400


def api_page() -> str:
    """Return the page."""
    document = openapi_document()
    parts = [_HEAD.read_text("utf-8").rstrip("\n") + "\n", "## Paths\n"]
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                parts += _operation(f"{method.upper()} {path}", item, item[method])
    parts.append("## Objects\n")
    for name, schema in document["components"]["schemas"].items():
        parts += [f"### {name}\n", *_fields(schema), ""]
    return "\n".join(parts)


def _operation(title: str, item: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"### `{title}`\n"
    yield wrapped(f"{escaped(operation['summary'])}.") + "\n"
    for parameter in (*item.get("parameters", ()), *operation.get("parameters", ())):
        text = escaped(parameter.get("description", ""))
        yield wrapped(f"- `{parameter['name']}` (in the {parameter['in']}): {text}", "  ")
    body = operation.get("requestBody")
    if body is not None:
        yield f"- Body: {_content(body)}"
    errors = []
    for status, answer in operation["responses"].items():
        if status.isdigit() and int(status) >= _FIRST_ERROR:
            errors.append(status)
            continue
        content = _content(answer)
        yield wrapped(
            f"- {status}: {escaped(answer['description'])}{content and f' ({content})'}", "  "
        )
    if errors:
        yield wrapped(f"- {', '.join(errors)}: [Problem](#problem)", "  ")
    yield ""


def _content(message: Mapping[str, Any]) -> str:
    return ", ".join(
        f"`{kind}`, {_type(content['schema'])}"
        for kind, content in message.get("content", {}).items()
    )


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        text = f"- `{name}`: {_type(field)}{_limits(field)}"
        if name not in required:
            text += ", optional"
        if "default" in field:
            text += f", default `{field['default']!r}`".replace("'", '"')
        if "description" in field:
            text += f". {escaped(field['description'][:1].upper() + field['description'][1:])}"
        yield wrapped(text, "  ")


def _type(schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "allOf" in schema:
        return " with ".join(map(_type, schema["allOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema['items'])}"
    if kind == "object" and "properties" in schema:
        members = (f"`{name}`: {_type(each)}" for name, each in schema["properties"].items())
        return f"object of {', '.join(members)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _limits(schema: Mapping[str, Any]) -> str:
    text = f" ({schema['format']})" if "format" in schema else ""
    if "minimum" in schema:
        text += f" from {schema['minimum']} to {schema.get('maximum', 'any')}"
    if "maxLength" in schema:
        text += f" of at most {schema['maxLength']} characters"
    if len(schema.get("enum", ())) in range(1, _MOST_CHOICES):
        text += ", one of " + ", ".join(f"`{each}`" for each in schema["enum"])
    return text
