"""Which variables a container with a lease gets, next to those that it has already.

One rule for what the runtime starts and for what ``docker exec`` starts: a variable that the image
or the user sets stays. Standard library only: it runs on the path of every container with a spec.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Iterable, Mapping


def with_lease_variables(
    present: Iterable[str], variables: Mapping[str, str], elsewhere: Iterable[str] = ()
) -> list[str]:
    """Return an environment, as ``NAME=VALUE``, with those of `variables` that are not set.

    `elsewhere` is what is set before `present`, such as an image's environment; it is not returned.
    A name without a value, by which Docker's API takes a variable away, sets none.
    """
    kept = [entry for entry in present if "=" in entry or entry not in variables]
    named = {entry.partition("=")[0] for entry in (*kept, *elsewhere) if "=" in entry}
    return kept + [f"{name}={value}" for name, value in variables.items() if name not in named]
