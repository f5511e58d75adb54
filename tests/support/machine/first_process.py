"""A command as the first process of a PID namespace, whose mounts are those of this test run.

`credspec run` makes its lease in the mount namespace of the host's first process, and the agent
must see it there; the tests' own mounts are in neither.
"""

from __future__ import annotations

AS_FIRST_PROCESS = (
    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged"),
    *("sh", "-c", '"$@"; exit $?', "sh"),
)
