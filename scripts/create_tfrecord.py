"""Make a TFRecord from a CSV of known boxes: `odkeras records from-csv` under the script name of the 2019 recipe.

Example:
    python scripts/create_tfrecord.py train.csv train.record --label-map label_map.pbtxt --images images/
"""

from __future__ import annotations

import sys

from odkeras.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["records", "from-csv"]
    main()
