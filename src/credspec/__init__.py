"""Group Managed Service Accounts for Linux containers, by credential spec.

What a program needs to read, check, change and write credential specs is here; it works on any
platform and needs no agent, no Kerberos and no LDAP:

    from credspec import CredentialSpec

    spec = CredentialSpec.from_bytes(Path("www.json").read_bytes())

Names are loaded when they are first used, so that commands and the runtime shim start fast.
"""

TYPE_CHECKING = False  # a type checker takes it for True; importing typing would cost a shim start
if TYPE_CHECKING:
    from credspec.errors import CredspecError as CredspecError
    from credspec.errors import InvalidSpecError as InvalidSpecError
    from credspec.errors import Problem as Problem
    from credspec.spec.document import ActiveDirectoryConfig as ActiveDirectoryConfig
    from credspec.spec.document import CredentialSpec as CredentialSpec
    from credspec.spec.document import DomainJoinConfig as DomainJoinConfig
    from credspec.spec.document import GroupManagedServiceAccount as GroupManagedServiceAccount
    from credspec.spec.document import HostAccountConfig as HostAccountConfig
    from credspec.spec.fixes import fixed as fixed
    from credspec.spec.kubernetes import from_kubernetes_yaml as from_kubernetes_yaml
    from credspec.spec.kubernetes import to_kubernetes_yaml as to_kubernetes_yaml
    from credspec.spec.lint import Finding as Finding
    from credspec.spec.lint import Severity as Severity
    from credspec.spec.lint import lint_bytes as lint_bytes
    from credspec.spec.lint import lint_document as lint_document
    from credspec.spec.validation import schema_text as schema_text

__version__ = "0.1.0.dev0"

_HOMES = {
    "credspec.errors": ("CredspecError", "InvalidSpecError", "Problem"),
    "credspec.spec.document": (
        "ActiveDirectoryConfig",
        "CredentialSpec",
        "DomainJoinConfig",
        "GroupManagedServiceAccount",
        "HostAccountConfig",
    ),
    "credspec.spec.fixes": ("fixed",),
    "credspec.spec.kubernetes": ("from_kubernetes_yaml", "to_kubernetes_yaml"),
    "credspec.spec.lint": ("Finding", "Severity", "lint_bytes", "lint_document"),
    "credspec.spec.validation": ("schema_text",),
}

__all__ = (  # noqa: PLE0604 - the names above, each once
    "__version__",
    *sorted(name for names in _HOMES.values() for name in names),
)


def __getattr__(name: str) -> object:
    """Load a public name from its home when it is first asked for."""
    for home, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            value: object = getattr(import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'credspec' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
