from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

sys.path.insert(0, str(SCRIPTS))
try:
    import check_zoo
finally:
    sys.path.remove(str(SCRIPTS))


def test_configs_are_files_or_below_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "model_1").mkdir(parents=True)
    inside = [tmp_path / "a" / "model_1" / "pipeline.config", tmp_path / "a" / "other.config"]
    for path in [*inside, tmp_path / "a" / "notes.txt"]:
        path.touch()
    alone = tmp_path / "alone.pbtxt"
    assert check_zoo.configs_in([tmp_path / "a", alone]) == [*inside, alone]
    assert [check_zoo.name_of(path) for path in [*inside, alone]] == ["model_1", "other", "alone"]


def test_what_was_found_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"config": "known", **dict.fromkeys(check_zoo.PARTS, "yes"), "step_s": 0.5, "memory_gb": 1.2}
    (tmp_path / "models.jsonl").write_text(json.dumps(known) + "\n")
    broken = tmp_path / "broken.config"
    configs = [str(tmp_path / "known.config"), str(broken)]
    monkeypatch.setattr(sys, "argv", ["check_zoo.py", *configs, "--out", str(tmp_path / "models.md")])
    monkeypatch.setattr(check_zoo, "in_own_process", lambda path, *_: {"train": "no", "problem": "train: a | b"})
    check_zoo.main()
    heading, _, first, second = capsys.readouterr().out.strip().splitlines()
    assert heading.startswith("| config | train | evaluate | export | predict | loop |")
    assert first == "| known | yes | yes | yes | yes | yes | 0.5 | 1.2 |  |"
    assert second == "| broken | no |  |  |  |  |  |  | train: a / b |"
    assert (tmp_path / "models.md").read_text().splitlines()[2] == first
    assert len((tmp_path / "models.jsonl").read_text().splitlines()) == 2
