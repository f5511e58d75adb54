"""Credential specs as Kubernetes objects: ``GMSACredentialSpec`` of ``windows.k8s.io/v1``.

The YAML that is read is that of JSON documents: no anchors and aliases, no tags, no merged or
repeated keys, one document in a file.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from credspec.errors import InvalidSpecError, Problem, UsageError
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import check_text
from credspec.spec.file_kind import KUBERNETES_KIND, MAX_OBJECT_NAME, is_object_name
from credspec.spec.strict_json import MAX_DEPTH, pointer_to
from credspec.spec.validation import described_keys
from credspec.spec.yaml_anchors import MERGE_KEY, Anchors, merge

if TYPE_CHECKING:
    import yaml

API_VERSION: Final = "windows.k8s.io/v1"

_MAX_DOCUMENTS: Final = 100

# The scalars of JSON; what else YAML reads as numbers, dates or booleans stays text.
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,300})")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_SPELLINGS: Final = {"~": None, "": None} | {
    spelling: value
    for word, value in _CONSTANTS.items()
    for spelling in (word, word.title(), word.upper())
}
# What any reader of YAML may take for a number, such as 0o17, 01e3 and 1_000.
_LIKE_A_NUMBER: Final = re.compile(r"[-+]?(?i:0[box][0-9a-f_]+|[0-9._]+(?:e[-+]?[0-9]+)?)")


class YamlFeatureError(InvalidSpecError):
    """Well-formed YAML with what documents in JSON do not have, such as an anchor or a tag."""


class Conversion(NamedTuple):
    """A converted document, and what could not be taken over."""

    text: str
    warnings: tuple[Problem, ...] = ()


def object_name(text: str) -> str:
    """Return a name for the object made from another one, such as ``contoso-webapp01``.

    Raises:
        UsageError: `kubernetes-name-invalid` if nothing of it is left.
    """
    labels = [re.sub(r"[^a-z0-9-]+", "-", label).strip("-") for label in text.lower().split(".")]
    name = ".".join(filter(None, labels))[:MAX_OBJECT_NAME].rstrip("-.")
    if not name:
        raise UsageError.of(
            "kubernetes-name-invalid",
            f"{text[:80]!r} holds nothing that the name of an object may hold",
            where="name",
            remedy="give one with --name",
        )
    return valid_object_name(name)


def valid_object_name(name: str) -> str:
    """Return the name of an object (a DNS subdomain, RFC 1123).

    Raises:
        UsageError: `kubernetes-name-invalid`.
    """
    if not is_object_name(name):
        raise UsageError.of(
            "kubernetes-name-invalid",
            f"{name[:80]!r} is not the name of an object",
            where="name",
            expected="lower-case letters, digits, - and ., such as contoso-webapp01",
        )
    return name


def to_kubernetes_yaml(spec: CredentialSpec, name: str) -> Conversion:
    """Return the object in YAML.

    Unknown keys, which Kubernetes would drop, are left out; a `PluginInput` that is an object
    becomes a string that holds it as JSON, since every leaf of the resource is a string. The
    warnings tell both.

    Raises:
        UsageError: `kubernetes-name-invalid`.
    """
    warnings: list[Problem] = []
    content = _pruned(spec.to_json(), "", "", warnings)
    host = content["ActiveDirectoryConfig"].get("HostAccountConfig", {})
    if isinstance(host.get("PluginInput"), dict):
        host["PluginInput"] = json.dumps(host["PluginInput"], ensure_ascii=False)
        warnings.append(
            Problem(
                code="convert-plugin-input",
                where="/ActiveDirectoryConfig/HostAccountConfig/PluginInput",
                found="an object, written as a string with JSON in it",
                remedy="check that the plug-in takes it so",
            )
        )
    document = {
        "apiVersion": API_VERSION,
        "kind": KUBERNETES_KIND,
        "metadata": {"name": valid_object_name(name)},
        "credspec": content,
    }
    return Conversion(object_yaml(document), tuple(warnings))


def from_kubernetes_yaml(text: str, *, expand: bool = False) -> Any:
    """Return what a YAML text holds; `CredentialSpec.from_json` reads it, object and all.

    With `expand`, as for Compose files, the values of aliases and merge keys are put in, up to
    `credspec.spec.yaml_anchors.MAX_EXPANDED` of them, and tags are passed over.

    Raises:
        InvalidSpecError: `spec-not-yaml`, `spec-yaml-feature`, `spec-duplicate-key`,
            `spec-too-deep`, and those of `check_text`; with line and column.
    """
    return _read(text, Anchors() if expand else None, most=1)[0]


def kubernetes_documents(text: str) -> list[Any]:
    """Return what each document of a YAML stream holds, as ``kubectl apply`` reads one.

    Raises:
        InvalidSpecError: as `from_kubernetes_yaml`; ``spec-yaml-feature`` for more than 100.
    """
    return _read(text, None, most=_MAX_DOCUMENTS)


def object_yaml(*documents: Any) -> str:
    """Return objects as a YAML stream."""
    import yaml

    return yaml.dump_all(
        documents, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=10_000
    )


def _pruned(table: dict[str, Any], place: str, pointer: str, warnings: list[Problem]) -> Any:
    """Return a copy with only the keys of the schema; the inside of a leaf stays unchanged."""
    known = described_keys(place)
    kept: dict[str, Any] = {}
    for key, value in table.items():
        where = pointer_to(pointer, key)
        if key not in known:
            warnings.append(
                Problem(code="convert-key-dropped", where=where, found="an unknown key, left out")
            )
        elif isinstance(value, dict) and described_keys(key):
            kept[key] = _pruned(value, key, where, warnings)
        elif isinstance(value, list) and described_keys(key):
            kept[key] = [
                _pruned(item, key, pointer_to(where, index), warnings)
                for index, item in enumerate(value)
            ]
        else:
            kept[key] = value
    return kept


def _dumper() -> type[yaml.SafeDumper]:
    """Return a dumper that quotes what readers of other YAML versions may not take as text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    def represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        is_doubtful = text.lower() in {*_SPELLINGS, "y", "n"} or _LIKE_A_NUMBER.fullmatch(text)
        # Only double quotes keep every line end as it is.
        style = '"' if is_doubtful or not text.isprintable() else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return Dumper


def _read(text: str, anchors: Anchors | None, *, most: int) -> list[Any]:
    import yaml

    check_text(text)
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        mark = yaml.Mark("", 0, before.count("\n"), len(before) - before.rfind("\n") - 1, None, 0)
        raise _syntax_error(error, mark) from None
    try:
        return _documents(loader, anchors, most)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, error.problem_mark) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # PyYAML does not check the numbers of %YAML and of \U escapes.
        raise _syntax_error(error, loader.get_mark()) from None


def _documents(loader: yaml.SafeLoader, anchors: Anchors | None, most: int) -> list[Any]:
    """Read events, not nodes: PyYAML's composer calls itself for each level of nesting."""
    import yaml

    result: list[Any] = []
    # Each open collection with, for a mapping, the key that waits for its value.
    levels: list[tuple[Any, list[str]]] = []
    documents = 0
    while loader.check_event():
        event: Any = loader.get_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > most:
                found = "a second document" if most == 1 else f"more than {most} documents"
                raise _unwanted(event, found, "one document in a file")
        if isinstance(event, yaml.NodeEvent):
            if anchors is None:
                _check_plain(event)
            _take(event, levels, result, anchors)
        elif isinstance(event, yaml.CollectionEndEvent):
            ended, _ = levels.pop()
            if anchors is not None:
                merge(ended)
    if not result:
        raise InvalidSpecError.of("spec-empty", "nothing", expected="a GMSACredentialSpec")
    return result


def _take(
    event: Any, levels: list[tuple[Any, list[str]]], result: list[Any], anchors: Anchors | None
) -> None:
    """Put the value of an event where it belongs, and open it if it is a collection."""
    import yaml

    value: Any
    if isinstance(event, yaml.ScalarEvent):
        value = _scalar(event)
    elif isinstance(event, yaml.CollectionStartEvent):
        value = {} if isinstance(event, yaml.MappingStartEvent) else []
    else:
        opened = [collection for collection, _ in levels]
        found = None if anchors is None else anchors.value(event, opened)
        if found is None:
            raise _unwanted(event, "an alias that cannot be put in", "a small value before it")
        value = found[0]
    _put(levels, result, value, event, may_merge=anchors is not None)
    if anchors is not None and not isinstance(event, yaml.AliasEvent):
        anchors.add(event, value)
    if isinstance(event, yaml.CollectionStartEvent):
        levels.append((value, []))
        if len(levels) > MAX_DEPTH:
            raise _refused(event, "nested too deep", f"at most {MAX_DEPTH} levels", "spec-too-deep")


def _put(
    levels: list[tuple[Any, list[str]]],
    result: list[Any],
    value: Any,
    event: yaml.Event,
    *,
    may_merge: bool,
) -> None:
    if not levels:
        result.append(value)
        return
    collection, waiting = levels[-1]
    if isinstance(collection, list):
        collection.append(value)
    elif waiting:
        collection[waiting.pop()] = value
    elif not isinstance(value, str):
        raise _unwanted(event, "a key that is no text", "text as key")
    elif not may_merge and _is_merge_key(value, event):
        raise _unwanted(event, "a merge key", "plain YAML: write the keys out")
    elif value in collection:
        raise _refused(
            event, f"the key {value[:60]!r} again", "each key once", "spec-duplicate-key"
        )
    else:
        waiting.append(value)


def _is_merge_key(value: str, event: yaml.Event) -> bool:
    return value == MERGE_KEY and getattr(event, "style", "") is None


def _check_plain(event: yaml.NodeEvent) -> None:
    import yaml

    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise _unwanted(event, "an anchor or alias", "plain YAML: write the value out")
    if getattr(event, "tag", None) not in {None, "!"}:
        raise _unwanted(event, "a tag", "plain YAML without tags")


def _scalar(event: yaml.ScalarEvent) -> Any:
    text = str(event.value)
    if event.style is not None or event.tag == "!":
        return text
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _unwanted(event: yaml.Event, found: str, expected: str) -> YamlFeatureError:
    where = _place(event.start_mark)
    return YamlFeatureError.of("spec-yaml-feature", found, where=where, expected=expected)


def _refused(event: yaml.Event, found: str, expected: str, code: str) -> InvalidSpecError:
    return InvalidSpecError.of(code, found, where=_place(event.start_mark), expected=expected)


def _syntax_error(error: Exception, mark: Any) -> InvalidSpecError:
    text = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
    return InvalidSpecError.of(
        "spec-not-yaml",
        f"not YAML: {text}",
        where=_place(mark),
        expected="a GMSACredentialSpec in YAML",
    )


def _place(mark: Any) -> str:
    return f"line {mark.line + 1} column {mark.column + 1}" if mark else ""
