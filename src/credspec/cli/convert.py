"""``credspec convert``: a credential spec for other tools, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from credspec.cli.completion import complete_spec
from credspec.cli.help_text import examples

if TYPE_CHECKING:
    from credspec.config.host import Config

_FORMS = ("json", "raw", "docker-run", "compose", "kubernetes", "ecs", "ecs-document", "oci")
_REFERRING_FORMS = ("docker-run", "compose", "oci")
_NAMED_FORMS = ("compose", "kubernetes")


@click.command(
    epilog=examples(
        "credspec convert www.json --to kubernetes --role --pod webhook | kubectl apply -f -",
        "credspec convert www.json --to compose --name web --reference file://www.json",
        "credspec convert www.json --to docker-run --tickets-of HTTP/www.contoso.com",
        "credspec convert www.json --to raw",
        "credspec convert www.json --to oci",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("spec", type=click.Path(allow_dash=True), shell_complete=complete_spec)
@click.option("--to", "form", type=click.Choice(_FORMS), required=True, help="The output form.")
@click.option("--name", help="Of the Kubernetes object or Compose service.  [default: the file's]")
@click.option("--service", help="The service of a Compose file to take the spec from.")
@click.option("--object", "object_", help="The object of a Kubernetes manifest to take.")
@click.option("--reference", help="Instead of the document itself, e.g. file://www.json.")
@click.option("--location", help="ARN of the S3 object or SSM parameter with the spec, for ecs.")
@click.option(
    "--tickets-of",
    multiple=True,
    metavar="SPN",
    help="Ask for tickets of this service only, not a TGT; may be repeated.",
)
@click.option("--role", is_flag=True, help="For kubernetes: add who may use it, a Role.")
@click.option(
    "--pod",
    type=click.Choice(["webhook", "csi"]),
    help="For kubernetes: add an example pod, with an annotation or with a volume.",
)
@click.option("--namespace", default="default", show_default=True, help="Of Role and pod.")
@click.option("--service-account", default="default", show_default=True, help="Of binding and pod.")
@click.option("--path", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
def convert(
    *,
    spec: str,
    form: str,
    name: str | None,
    service: str | None,
    object_: str | None,
    role: bool,
    pod: str | None,
    namespace: str,
    service_account: str,
    reference: str | None,
    location: str | None,
    tickets_of: tuple[str, ...],
    path: Path | None,
) -> None:
    """Convert a credential spec to and from the forms that other tools take.

    SPEC is a path, file://NAME, raw://DOCUMENT, a name in the spec directory, or - for standard
    input. Its kind is recognised by its contents: a spec in any encoding, a Kubernetes
    GMSACredentialSpec in YAML or JSON (also among other objects), a Compose file, an OCI
    config.json, or --security-opt.
    """
    if (role or pod) and form != "kubernetes":
        raise click.UsageError("--role and --pod are for --to kubernetes")
    if tickets_of and form not in _REFERRING_FORMS and not pod:
        forms = ", ".join(_REFERRING_FORMS)
        raise click.UsageError(f"--tickets-of is for --to {forms}, and kubernetes with --pod")
    from credspec.cli.spec_argument import spec_source
    from credspec.config.host import load_config
    from credspec.spec import conversions
    from credspec.spec.document import CredentialSpec
    from credspec.spec.spec_directory import SpecDirectory
    from credspec.spec.ticket_labels import ticket_labels, with_labels

    labels = ticket_labels(tickets_of)
    data = spec_source(spec, load_config().spec_directory)()
    is_yaml = spec.lower().endswith((".yaml", ".yml"))
    document = conversions.read_any_form(data, service=service, name=object_, is_yaml=is_yaml)
    found = CredentialSpec.from_json(document)
    used = name or (_default_name(spec, found.default_account) if form in _NAMED_FORMS else "")
    converted = conversions.convert(
        found,
        conversions.Form(form),
        name=used,
        reference=reference,
        location=location,
    )
    for problem in converted.warnings:
        click.echo(f"credspec: warning: {problem.text()} [{problem.code}]", err=True)
    if form in _REFERRING_FORMS and reference is None and not _allows_documents(load_config()):
        click.echo(
            "credspec: warning: the policy of hosts refuses raw:// unless it allows that; name the "
            'file with --reference file://NAME, or add "raw" to spec_sources under [policy] '
            "[policy-spec-source]",
            err=True,
        )
    text = converted.text
    if form in _REFERRING_FORMS:
        text = with_labels(text, conversions.Form(form), labels)
    text += _further_objects(used, namespace, service_account, pod, role=role, labels=labels)
    if path is None:
        click.echo(text, nl=False)
        return
    SpecDirectory(path.absolute().parent).write(path.name, text)


def _further_objects(
    spec: str,
    namespace: str,
    service_account: str,
    pod: str | None,
    *,
    role: bool,
    labels: dict[str, str],
) -> str:
    from credspec.kubernetes.objects import examples
    from credspec.spec.kubernetes import object_yaml, valid_object_name

    objects = []
    if role:
        objects = [
            examples.role(spec, namespace),
            examples.role_binding(spec, namespace, service_account),
        ]
    if pod:
        objects.append(
            examples.pod(
                spec, namespace, service_account, with_webhook=pod == "webhook", options=labels
            )
        )
    for name in (namespace, service_account) if objects else ():
        valid_object_name(name)
    return "".join(f"---\n{object_yaml(each)}" for each in objects)


def _allows_documents(config: Config) -> bool:
    return "raw" in config.policy.spec_sources


def _default_name(spec: str, account: str) -> str:
    from credspec.spec.kubernetes import object_name

    is_file = "://" not in spec and spec != "-"
    return object_name(Path(spec).stem if is_file else account)
