"""Going back to an earlier version: a copy of it under a new number, whole or not at all, and without TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from odkeras.cli import app
from odkeras.errors import ConfigError, SetupError
from odkeras.export import rollback
from odkeras.export.info import EXPORT_INFO_PATH, ExportInfo, read_export_info
from odkeras.export.rollback import RollbackPlan, plan_rollback, roll_back
from odkeras.version_dirs import list_versions


@pytest.fixture
def export_dir(tmp_path: Path) -> Path:
    return tmp_path / "export"


def publish(export_dir: Path, version: int, step: int | None) -> Path:
    """A version; `step` is None for one of another tool."""
    folder = export_dir / str(version)
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_text(f"weights of step {step}")
    if step is not None:
        (folder / EXPORT_INFO_PATH).parent.mkdir()
        (folder / EXPORT_INFO_PATH).write_text(json.dumps({"step": step, "graph": "g", "labels": [[1, "car"]]}))
    return folder


def go_back(export_dir: Path, to: int | None = None, now_s: float = 100.0) -> int:
    return roll_back(export_dir, plan_rollback(export_dir, to), clock=lambda: now_s)


def weights(export_dir: Path, version: int) -> str:
    return (export_dir / str(version) / "variables" / "variables.index").read_text()


def info(export_dir: Path, version: int) -> ExportInfo:
    found = read_export_info(export_dir / str(version))
    assert found is not None
    return found


class TestWhichVersion:
    def test_the_one_before_the_newest(self, export_dir: Path) -> None:
        for version in (3, 7, 9):
            publish(export_dir, version, version)
        assert plan_rollback(export_dir) == RollbackPlan(7, 9)
        assert plan_rollback(export_dir, 3) == RollbackPlan(3, 9)

    def test_twice_goes_back_two_versions(self, export_dir: Path) -> None:
        """The one before the newest is then the one that was just put out of service."""
        for version in (3, 7, 9):
            publish(export_dir, version, version)
        first, second = go_back(export_dir), go_back(export_dir)
        assert [weights(export_dir, version) for version in (first, second)] == [
            "weights of step 7",
            "weights of step 3",
        ]
        with pytest.raises(
            ConfigError, match=rf"no version before {second} \(a copy of 3\) to go back to; .*: 3, 7, 9, "
        ):
            plan_rollback(export_dir)

    @pytest.mark.parametrize(
        ("versions", "to", "message"),
        [
            ((), None, "has no version to go back to; is it the export directory"),
            ((5,), None, "there is no version before 5 to go back to; in .*export there are: 5"),
            ((5, 6), 4, "there is no version 4; in .*export there are: 5, 6"),
            ((5, 6), 6, "version 6 is the newest already; earlier ones in .*: 5, 6"),
        ],
    )
    def test_refusals(self, export_dir: Path, versions: tuple[int, ...], to: int | None, message: str) -> None:
        for version in versions:
            publish(export_dir, version, version)
        with pytest.raises(ConfigError, match=message):
            plan_rollback(export_dir, to)
        assert list_versions(export_dir) == list(versions)


class TestTheCopy:
    def test_the_copy_is_complete_and_the_newest(self, export_dir: Path) -> None:
        for version in (3, 7):
            publish(export_dir, version, 10 * version)
        version = go_back(export_dir, now_s=100.0)
        assert version == 100
        assert list_versions(export_dir) == [3, 7, 100]
        assert weights(export_dir, 100) == "weights of step 30"
        assert (export_dir / "100" / "saved_model.pb").read_bytes() == b"graph"
        assert info(export_dir, 100) == ExportInfo(30, "g", ((1, "car"),), copy_of=3, replaced_step=70)
        assert info(export_dir, 3) == ExportInfo(30, "g", ((1, "car"),))
        assert not [path for path in export_dir.iterdir() if path.name.startswith(".tmp-")]

    def test_it_knows_the_most_steps_that_were_ever_replaced(self, export_dir: Path) -> None:
        """Else the trainer would publish its checkpoint, of 90 steps, at its next start."""
        for version, step in ((3, 30), (7, 70), (9, 90)):
            publish(export_dir, version, step)
        go_back(export_dir)
        version = go_back(export_dir)
        assert (info(export_dir, version).copy_of, info(export_dir, version).replaced_step) == (3, 90)

    def test_the_trainer_publishes_at_the_same_moment(self, export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for version in (3, 7):
            publish(export_dir, version, version)
        real = rollback._copy

        def copy(folder: Path, plan: RollbackPlan, partial: Path) -> None:
            real(folder, plan, partial)
            if not (folder / "100").exists():
                publish(folder, 100, 100)

        monkeypatch.setattr(rollback, "_copy", copy)
        assert go_back(export_dir, now_s=100.0) == 101
        assert weights(export_dir, 101) == "weights of step 3"

    def test_a_failed_copy_leaves_nothing(self, export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for version in (3, 7):
            publish(export_dir, version, version)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(rollback.project, "sync_to_disk", full)
        with pytest.raises(SetupError, match=r"version 3 cannot be copied in .*: No space left on device"):
            go_back(export_dir)
        assert sorted(path.name for path in export_dir.iterdir()) == ["3", "7"]

    def test_a_version_deleted_meanwhile_is_an_error(self, export_dir: Path) -> None:
        publish(export_dir, 7, 7)
        with pytest.raises(SetupError, match="version 3 cannot be copied"):
            roll_back(export_dir, RollbackPlan(3, 7))
        assert [path.name for path in export_dir.iterdir()] == ["7"]


class TestCommand:
    def test_it_says_what_it_did(self, export_dir: Path) -> None:
        for version in (3, 7):
            publish(export_dir, version, version)
        result = CliRunner().invoke(app, ["rollback", "--export-dir", str(export_dir), "--to", "3"])
        version = list_versions(export_dir)[-1]
        assert (result.exit_code, result.output) == (
            0,
            f"{export_dir}: version {version}, a copy of 3, replaces 7\n",
        )


def test_no_tensorflow_is_loaded() -> None:
    code = "import sys, odkeras.export.rollback; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
