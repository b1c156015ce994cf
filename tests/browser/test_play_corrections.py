"""scripts/play_corrections.py: corrections by two corners leave the boxes that were meant, and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from desk import draw_picture, truth
from playwright.sync_api import Browser

SCRIPT = Path(__file__).parents[2] / "scripts" / "play_corrections.py"


@pytest.mark.parametrize("options", [(), ("--touch",)], ids=["mouse", "touch"])
def test_no_unintended_box_is_stored(tmp_path: Path, browser: Browser, options: tuple[str, ...]) -> None:
    """On drawn pictures; a third of the suggested boxes end at the image's border, a third beyond it."""
    rows = ["path,xmin,ymin,xmax,ymax,label"]
    for number in range(6):
        draw_picture(number).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{','.join(map(str, truth(number)))},thing")
    (tmp_path / "boxes.csv").write_text("\n".join(rows))
    where = ["--images", str(tmp_path), "--csv", str(tmp_path / "boxes.csv"), "--number", "6"]
    done = subprocess.run([sys.executable, str(SCRIPT), *where, *options], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 boxes in 6 images corrected" in done.stdout
    assert "0 boxes left that nobody meant" in done.stdout
