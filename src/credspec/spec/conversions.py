"""Credential specs in the forms that other tools take them in, and back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from typing import Any, Final

from credspec.errors import InvalidSpecError, Problem, UsageError
from credspec.spec.document import CredentialSpec
from credspec.spec.encoding import decode_spec
from credspec.spec.file_kind import KUBERNETES_KIND, FileKind, kind_of, parse_text
from credspec.spec.kubernetes import (
    Conversion,
    YamlFeatureError,
    kubernetes_documents,
    to_kubernetes_yaml,
)
from credspec.spec.reference import SpecReference, parse_reference, parse_security_options
from credspec.spec.spec_directory import components_of
from credspec.spec.strict_json import parse_json, pointer_to

ANNOTATION: Final = "credspec.dev/spec"
"""The annotation of an OCI bundle that the runtime shim reads."""

_MAX_LISTED: Final = 10
_SERVICE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
# What YAML refuses or takes for a line end, although JSON strings hold it as it is.
_NOT_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_SECRET_ARN: Final = re.compile(r"arn:aws[a-z-]*:(?:secretsmanager|ssm):[^\s\"]{1,1000}")
_LOCATION: Final = re.compile(r"arn:aws[a-z-]*:(?:s3|ssm):[^\s\"]{1,1000}")


class Form(StrEnum):
    """The forms that a spec is converted to."""

    JSON = "json"
    RAW = "raw"
    DOCKER_RUN = "docker-run"
    COMPOSE = "compose"
    KUBERNETES = "kubernetes"
    ECS = "ecs"
    ECS_DOCUMENT = "ecs-document"
    OCI = "oci"


def convert(
    spec: CredentialSpec,
    form: Form,
    *,
    name: str,
    reference: str | None = None,
    location: str | None = None,
) -> Conversion:
    """Return a spec in another form.

    `name` is that of the Kubernetes object or of the Compose service. `reference`, such as
    ``file://www.json``, takes the place of the document for docker-run, compose and oci.
    `location` is the ARN of the S3 object or SSM parameter that holds the spec, for ecs.

    Raises:
        UsageError: `convert-service-name`, `convert-location`, `kubernetes-name-invalid`.
        InvalidSpecError: `spec-reference-invalid`, `spec-path-absolute`, `spec-path-outside`,
            `convert-plugin-input`.
    """
    used = _reference(spec, reference)
    if form is Form.COMPOSE:
        return _to_compose(str(used), name)
    if form is Form.KUBERNETES:
        return to_kubernetes_yaml(spec, name)
    if form is Form.ECS:
        return _to_ecs(spec, location)
    if form is Form.ECS_DOCUMENT:
        return Conversion(_for_ecs(spec).to_text())
    option = shlex.quote(f"credentialspec={used}")
    texts: dict[Form, Callable[[], str]] = {
        Form.JSON: spec.to_text,
        Form.RAW: lambda: f"{used}\n",
        Form.DOCKER_RUN: lambda: f"--security-opt {option}\n",
        Form.OCI: lambda: _oci_text(spec, used),
    }
    return Conversion(texts[form]())


def read_any_form(
    data: bytes,
    *,
    service: str | None = None,
    name: str | None = None,
    is_yaml: bool = False,
) -> Any:
    """Return the parsed document that a file of any of the forms holds.

    `service` chooses among the services of a Compose file, `name` among the objects of a Kubernetes
    manifest. With `is_yaml` text that could be JSON is read as YAML.

    Raises:
        InvalidSpecError: of the form, or `convert-reference` where the file only says where the
            spec is; `convert-services` where services have different ones; `convert-objects` where
            a manifest has none or several; `convert-variable` where Compose would put a value in;
            `convert-no-spec` where there is none.
    """
    text = decode_spec(data).strip()
    if text[:6].lower() == "raw://":
        return parse_json(text[6:])
    if text.startswith("--security-opt"):
        return _from_docker_run(text)
    try:
        document = parse_text(text, is_yaml=is_yaml)
    except YamlFeatureError:
        # Of manifests only: a second document is an error in any other file.
        documents = kubernetes_documents(text)
        if not any(kind_of(each) is FileKind.KUBERNETES for each in documents):
            raise
        document = {"kind": "List", "items": documents}
    document = _only_object(document, name)
    read = _READERS.get(kind_of(document))
    return document if read is None else read(document, service)


def _only_object(document: Any, name: str | None) -> Any:
    """Return the object of a manifest with several; any other document as it is."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or "CmsPlugins" in document:
        return _named(document, name) if kind == KUBERNETES_KIND else document
    items = document.get("items")
    found = [
        item
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict) and item.get("kind") == KUBERNETES_KIND
    ]
    chosen = found if name is None else [each for each in found if _name_of(each) == name]
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(_name_of(each)[:80] for each in found[:_MAX_LISTED])
    raise InvalidSpecError.of(
        "convert-objects",
        f"{len(found)} objects of the kind {KUBERNETES_KIND}{f': {names}' if names else ''}",
        expected="one" if name is None else f"one with the name {name[:80]!r}",
        remedy="choose one with --object" if found else "",
    )


def _named(document: dict[str, Any], name: str | None) -> dict[str, Any]:
    if name is None or _name_of(document) == name:
        return document
    raise InvalidSpecError.of(
        "convert-objects",
        f"the {KUBERNETES_KIND} {_name_of(document)[:80]!r} only",
        expected=f"one with the name {name[:80]!r}",
    )


def _name_of(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def _reference(spec: CredentialSpec, reference: str | None) -> SpecReference:
    if reference is not None:
        parsed = parse_reference(reference)
        if parsed.scheme == "file":
            components_of(parsed.value, "the spec directory")
        return parsed
    return SpecReference("raw", spec.to_text(compact=True))


def _to_compose(reference: str, service: str) -> Conversion:
    if not _SERVICE.fullmatch(service):
        raise UsageError.of(
            "convert-service-name",
            f"{service[:80]!r} is not the name of a Compose service",
            where="name",
            expected="letters, digits, -, _ and .",
        )
    # Compose replaces $NAME in every value; two of them are one.
    option = json.dumps(f"credentialspec={reference}".replace("$", "$$"), ensure_ascii=False)
    option = _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", option)
    return Conversion(f"services:\n  {service}:\n    security_opt:\n      - {option}\n")


def _to_ecs(spec: CredentialSpec, location: str | None) -> Conversion:
    if location is None or not _LOCATION.fullmatch(location):
        raise UsageError.of(
            "convert-location",
            "no ARN was given" if location is None else f"{location[:120]!r} is not one",
            where="location",
            expected="the ARN of the S3 object or SSM parameter that holds the spec",
            remedy="put the spec there as JSON (credspec convert --to json) and give --location",
        )
    host = spec.active_directory_config.host_account_config
    scheme = "credentialspec" if host is None else "credentialspecdomainless"
    fragment = {"credentialSpecs": [f"{scheme}:{location}"]}
    warnings = []
    if _for_ecs(spec) != spec:
        warnings.append(
            Problem(
                code="convert-plugin-input",
                where="/ActiveDirectoryConfig/HostAccountConfig/PluginInput",
                found="not in the form that ECS on Linux reads",
                expected='an object {"CredentialArn": "arn:..."}',
                remedy="put what `credspec convert --to ecs-document` prints at the ARN",
            )
        )
    return Conversion(json.dumps(fragment, indent=2) + "\n", tuple(warnings))


def _for_ecs(spec: CredentialSpec) -> CredentialSpec:
    """Return a spec as the ECS agent on Linux reads it: `PluginInput` is an object with the ARN.

    Raises:
        InvalidSpecError: `convert-plugin-input` if its input holds no ARN.
    """
    host = spec.active_directory_config.host_account_config
    if host is None:
        return spec
    given = host.plugin_input
    if isinstance(given, str):
        try:
            given = parse_json(given)
        except InvalidSpecError:
            given = {"CredentialArn": given}  # ECS on Windows also takes the bare ARN
    table = given if isinstance(given, dict) else {}
    arns = [value for key, value in table.items() if key.lower() == "credentialarn"]
    if len(arns) != 1 or not isinstance(arns[0], str) or not _SECRET_ARN.fullmatch(arns[0]):
        raise InvalidSpecError.of(
            "convert-plugin-input",
            "no ARN of a secret",
            where="/ActiveDirectoryConfig/HostAccountConfig/PluginInput",
            expected='{"CredentialArn": "arn:aws:secretsmanager:..."}, as the AWS plug-in takes it',
        )
    config = replace(host, plugin_input={"CredentialArn": arns[0]})
    directory = replace(spec.active_directory_config, host_account_config=config)
    return replace(spec, active_directory_config=directory)


def _oci_text(spec: CredentialSpec, reference: SpecReference) -> str:
    fragment = {
        "annotations": {ANNOTATION: str(reference)},
        # A string, as moby, containerd and hcsshim write it, although the schema says object.
        "windows": {"credentialSpec": spec.to_text(compact=True)},
    }
    return json.dumps(fragment, indent=2, ensure_ascii=False) + "\n"


def _from_oci(document: dict[str, Any], _: str | None) -> Any:
    annotations = document.get("annotations")
    carried = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
    if isinstance(carried, str):
        return _document_of(parse_reference(carried), pointer_to("/annotations", ANNOTATION))
    windows = document.get("windows")
    carried = windows.get("credentialSpec") if isinstance(windows, dict) else None
    if carried is None:
        raise InvalidSpecError.of(
            "convert-no-spec",
            "no credential spec",
            expected=f"{pointer_to('/annotations', ANNOTATION)} or /windows/credentialSpec",
        )
    return parse_json(carried) if isinstance(carried, str) else carried


def _from_compose(document: dict[str, Any], service: str | None) -> Any:
    services = document["services"]
    found: dict[str, SpecReference] = {}
    for name, content in services.items() if isinstance(services, dict) else ():
        options = content.get("security_opt") if isinstance(content, dict) else None
        if service not in {None, name} or not isinstance(options, list):
            continue
        reference, _ = parse_security_options([text for text in options if isinstance(text, str)])
        if reference is not None:
            found[name] = _interpolated(reference, pointer_to("/services", name))
    if not found:
        raise InvalidSpecError.of(
            "convert-services",
            "no service with credentialspec= in security_opt"
            if service is None
            else f"the service {service[:80]!r} has no credentialspec= in security_opt",
            where="/services",
        )
    if len(set(found.values())) > 1:
        raise InvalidSpecError.of(
            "convert-services",
            f"the services {', '.join(sorted(found))} have different specs",
            where="/services",
            remedy="choose one with --service",
        )
    name, reference = next(iter(found.items()))
    return _document_of(reference, f"{pointer_to('/services', name)}/security_opt")


def _interpolated(reference: SpecReference, where: str) -> SpecReference:
    """Return a reference as Compose gives it to Docker; variables have no values here."""
    if "$" in reference.value.replace("$$", ""):
        raise InvalidSpecError.of(
            "convert-variable",
            "a variable, whose value only Compose knows",
            where=f"{where}/security_opt",
            remedy="put its value in, or write a dollar sign as $$",
        )
    return SpecReference(reference.scheme, reference.value.replace("$$", "$"))


def _from_docker_run(text: str) -> Any:
    try:
        words = shlex.split(text.removeprefix("--security-opt").removeprefix("="))
    except ValueError as error:
        raise InvalidSpecError.of(
            "convert-no-spec", f"not a shell word: {error}", where="--security-opt"
        ) from None
    reference, _ = parse_security_options(words)
    if reference is None:
        raise InvalidSpecError.of("convert-no-spec", "no credentialspec=", where="--security-opt")
    return _document_of(reference, "--security-opt")


def _from_ecs(document: dict[str, Any], _: str | None) -> Any:
    named = document.get("credentialSpecs", "see credentialSpecs of its containers")
    raise InvalidSpecError.of(
        "convert-reference",
        f"only says where the spec is: {str(named)[:120]}",
        where="/credentialSpecs",
        remedy="get the spec from there and convert that",
    )


def _document_of(reference: SpecReference, where: str) -> Any:
    if reference.scheme == "raw":
        return parse_json(reference.value)
    raise InvalidSpecError(
        Problem(
            code="convert-reference",
            where=where,
            found=f"only says where the spec is: {str(reference)[:120]}",
            remedy="convert that file",
        )
    )


_READERS: Final[dict[FileKind, Callable[[dict[str, Any], str | None], Any]]] = {
    FileKind.COMPOSE: _from_compose,
    FileKind.ECS: _from_ecs,
    FileKind.OCI: _from_oci,
}
