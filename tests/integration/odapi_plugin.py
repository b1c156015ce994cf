"""A pytest plugin for the Object Detection API's own unit tests: our shims, and what its test runner would do."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from odkeras import compat


def pytest_configure(config: Any) -> None:
    compat.prepare()
    import numpy as np
    from absl import flags
    from absl.testing import absltest  # noqa: F401 - declares the flag test_tmpdir

    flags.FLAGS(["pytest", f"--test_tmpdir={tempfile.mkdtemp()}"])
    for name, value in {"int": int, "object": object}.items():  # went in NumPy 1.24; the tests alone use them
        if name not in np.__dict__:
            setattr(np, name, value)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    counts = {kind: len(reports) for kind, reports in terminalreporter.stats.items()}
    Path(os.environ["ODAPI_REPORT"]).write_text(json.dumps(counts))
