"""The cage is built of seccomp and Landlock, which Linux alone has."""

from __future__ import annotations

import sys

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*.py"]
