from __future__ import annotations

import os

# What only newer engines have; see the Makefile's test-runtimes.
NEWER = ["test_quadlet.py", "test_checkpoints.py"]
collect_ignore = [] if "CREDSPEC_TEST_RELEASE" in os.environ else NEWER
