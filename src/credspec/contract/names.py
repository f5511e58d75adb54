"""What engines, the shim, the gateway and the agent call the same things.

Standard library only, and no more than the shim's start needs: it is imported at each of them.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs milliseconds
    from collections.abc import Sequence

ANNOTATION = "credspec.dev/spec"
"""The annotation (or label, with Docker's classic builder) that names a container's spec."""
VARIABLE = "CREDSPEC"
"""The environment variable that does."""
RUNTIME = "credspec"
"""The name under which ``credspec setup`` registers the shim with an engine by default."""
REAL_RUNTIMES = ("runc", "crun")
"""The runtimes that the shim starts, the preferred one first."""
NEEDS_RUNTIME = "credspec.this-node-needs-credspec-as-its-default-runtime"
"""A sysctl of Swarm tasks with a spec that the shim takes out; any other runtime refuses it."""
MOUNT_POINT = "/run/credspec"
"""Where the lease's directory is mounted in the container: the tickets are in it."""

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def runtime_paths(runtimes: "Sequence[str]") -> list[str]:
    """Return where real runtimes may be, given their names or absolute paths, in this order."""
    return [
        path
        for name in runtimes
        for path in ([name] if name[0] == "/" else [f"{d}/{name}" for d in _SEARCH_PATH.split(":")])
    ]
