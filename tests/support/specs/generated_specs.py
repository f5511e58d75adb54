"""Valid credential specs, generated: every key in any order, and unknown ones beside them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.from_regex(r"\A[A-Za-zé0-9_-]{1,20}\$?\Z")
NETBIOS_NAMES = st.from_regex(r"\A[A-Za-zé0-9_-]{1,15}\Z")
DNS_NAMES = st.from_regex(r"\A[a-zA-Z0-9]{1,9}(\.[a-zA-Z0-9]{1,9}){0,3}\Z")
PLUGIN_GUIDS = st.uuids().map(lambda guid: f"{{{guid}}}") | st.uuids().map(str)
PLUGIN_INPUTS = st.text(
    alphabet=st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
) | st.dictionaries(st.text(alphabet="aé\n{", max_size=5), st.integers(), max_size=2)
NUMBERS = st.integers(0, 2**32 - 1)


@st.composite
def objects(draw: st.DrawFn, required: dict[str, Any], optional: dict[str, Any]) -> Any:
    known = draw(st.fixed_dictionaries(required, optional=optional))
    unknown = draw(st.dictionaries(TEXT, JSON, max_size=2))
    merged = {**{k: v for k, v in unknown.items() if k not in {*required, *optional}}, **known}
    return {key: merged[key] for key in draw(st.permutations(list(merged)))}


def _with_an_own_default_account(document: dict[str, Any]) -> dict[str, Any]:
    domain = document["DomainJoinConfig"]
    entries = document["ActiveDirectoryConfig"]["GroupManagedServiceAccounts"]
    default = domain.get("MachineAccountName", entries[0]["Name"]).rstrip("$").casefold()
    for entry in entries:
        if entry["Name"].rstrip("$").casefold() == default:
            entry["Scope"] = domain["DnsName"]
    return document


SPECS = objects(
    {
        "CmsPlugins": st.lists(TEXT, max_size=2).map(lambda names: [*names, "ActiveDirectory"]),
        "DomainJoinConfig": objects(
            {"DnsName": DNS_NAMES},
            {
                "Sid": st.lists(NUMBERS, min_size=3, max_size=4).map(
                    lambda parts: "-".join(["S-1-5-21", *map(str, parts)])
                ),
                "Guid": st.uuids().map(str),
                "MachineAccountName": NAMES,
                "DnsTreeName": DNS_NAMES,
                "NetBiosName": NETBIOS_NAMES,
            },
        ),
        "ActiveDirectoryConfig": objects(
            {
                "GroupManagedServiceAccounts": st.lists(
                    objects({"Name": NAMES, "Scope": DNS_NAMES}, {}), min_size=1, max_size=3
                )
            },
            {
                "HostAccountConfig": objects(
                    {},
                    {
                        "PortableCcgVersion": TEXT,
                    },
                )
                | objects(
                    {"PluginGUID": PLUGIN_GUIDS, "PluginInput": PLUGIN_INPUTS},
                    {"PortableCcgVersion": TEXT},
                )
            },
        ),
    },
    {},
).map(_with_an_own_default_account)
