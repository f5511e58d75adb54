"""The tables ``[domains."DNS-NAME"]`` of the configuration: which domain controllers to prefer."""

from __future__ import annotations

from credspec.config_table import keys_of, read_keys, shown_value, wrong_value
from credspec.directory.locator import ControllerPreference, dns_name
from credspec.errors import Problem


def domain_preferences(
    table: object, source: str
) -> tuple[dict[str, ControllerPreference], list[Problem]]:
    """Return what a ``domains`` table says by domain, in lower case, and all that is wrong in it.

    The codes are `config-wrong-value` and `config-unknown-key`.
    """
    if not isinstance(table, dict):
        return {}, [wrong_value(f"{source}: domains", shown_value(table), "a table")]
    found: dict[str, ControllerPreference] = {}
    problems: list[Problem] = []
    for name, content in table.items():
        where = f'{source}: domains."{name}"'
        domain = dns_name(name)
        expected = ""
        if domain is None:
            expected = "a DNS name such as contoso.com"
        elif domain in found:
            expected = "each domain once, in any case"
        elif not isinstance(content, dict):
            problems.append(wrong_value(where, shown_value(content), "a table"))
        else:
            values, wrong = read_keys(keys_of(ControllerPreference), content, f"{where}.")
            problems += wrong
            found[domain] = ControllerPreference(**values)
        if expected:
            problems.append(wrong_value(f"{source}: domains", shown_value(name), expected))
    return found, problems
