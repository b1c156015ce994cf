from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"

sys.path.insert(0, str(SCRIPTS))
try:
    import page_types
finally:
    sys.path.remove(str(SCRIPTS))


def test_the_types_of_the_page_are_those_of_the_server() -> None:
    text = page_types.TARGET.read_text(encoding="utf-8")
    assert text == page_types.generate(), "out of date: run python scripts/page_types.py"


def test_types_are_translated() -> None:
    """Also: optional fields, a base class, and names of the types that several messages share."""
    text = page_types.generate()
    assert 'export type TrainingState = "paused" | "running" | "stopped";\n' in text
    assert "export interface TrainingRequest extends Sender {\n" in text
    assert "  action: TrainingAction;\n" in text
    assert "  points?: Point[];\n" in text
    assert "  version: number | null;\n" in text
    assert "  names: Record<string, string>;\n" in text
    assert "  answers: SentAnswer[];\n" in text
