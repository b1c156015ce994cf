"""`odkeras annotate` with the trainer and the model server of tests/unit/fake_processes.py; arguments as on its command
line."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from fake_processes import use_fakes

from odkeras.cli import main

use_fakes()
main()
