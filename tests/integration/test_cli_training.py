"""`odkeras trainer`, `train`, `eval` and `export`, as typed; with the session's models, in this process."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from odkeras.annotation import Annotation
from odkeras.cli import main
from odkeras.control import Control
from odkeras.errors import ConfigError, InUseError
from odkeras.labels import LabelMap
from odkeras.model.checkpoint import checkpoint_step, list_checkpoints
from odkeras.pipeline import load_pipeline, set_num_classes
from odkeras.project import read_jsonl
from odkeras.splits import is_held_out
from odkeras.training import checkpoints, process
from odkeras.training.checkpoints import lock_model_dir
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, TinyProject

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("shared_models")]


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str


Odkeras = Callable[..., Result]


@pytest.fixture
def odkeras(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Odkeras]:
    """Runs a command line; what a process would keep for itself (logging, signals) is undone afterwards."""
    monkeypatch.setattr("odkeras.logs.configure_logging", lambda *_, **__: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["odkeras", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return Result(status, out, err)

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def contents(folder: Path) -> set[tuple[str, int]]:
    """Every file of the model and of the versions, with its size; not what says how the trainer is."""
    files = [path for name in ("model", "export") for path in (folder / name).rglob("*") if path.is_file()]
    return {(str(path), path.stat().st_size) for path in files if path.name not in ("status.json", "trainer.lock")}


@pytest.fixture
def with_records(project: TinyProject, shape_records: dict[str, Path]) -> TinyProject:
    """A project whose config names records to train and to evaluate on."""
    return project.write(
        train_records=(str(shape_records["train"]),),
        eval_records=(str(shape_records["test"]),),
    )


class TestTrain:
    def test_it_trains_and_goes_on(self, odkeras: Odkeras, with_records: TinyProject) -> None:
        result = odkeras("train", with_records.config_path, "--steps", "2")
        assert result.status == 0, result.err
        model_dir = with_records.directories.model_dir
        assert result.out.startswith("2 steps in ") and result.out.endswith(f"; checkpoints in {model_dir}\n")
        assert ", loss " in result.out
        assert odkeras("train", with_records.config_path, "--steps", "3").out.startswith("1 steps in ")
        assert odkeras("train", with_records.config_path, "--steps", "3").out.startswith("0 steps in ")
        assert [checkpoint_step(path) for path in list_checkpoints(model_dir)] == [2, 3]

    def test_the_resolved_config_lies_beside_the_checkpoints(
        self, odkeras: Odkeras, with_records: TinyProject, tmp_path: Path
    ) -> None:
        odkeras("train", with_records.config_path, "--steps", "1", "--model-dir", tmp_path / "m", "--batch-size", "2")
        resolved = load_pipeline(tmp_path / "m" / "pipeline.config")
        assert resolved.train_config.batch_size == 2
        assert resolved.train_input_reader.label_map_path == str(with_records.label_map_path)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_in_order(
        self, odkeras: Odkeras, with_records: TinyProject, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
    ) -> None:
        from odkeras.training.tensorboard import TrainingSummaries

        def step(self: TrainingSummaries, report: Any) -> None:
            if report.step == 2:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(TrainingSummaries, "step", step)
        result = odkeras("train", with_records.config_path, "--steps", "50")
        assert (result.status, result.out[:11]) == (0, "2 steps in ")
        assert [checkpoint_step(path) for path in list_checkpoints(with_records.directories.model_dir)] == [2]

    def test_no_records(self, odkeras: Odkeras, project: TinyProject) -> None:
        result = odkeras("train", project.config_path, "--steps", "1")
        assert result.status == ConfigError.exit_code
        assert result.err.startswith(f"error: {project.config_path}: train_input_reader.tf_record_input_reader")
        assert len(result.err.splitlines()) == 1


class TestEval:
    @pytest.fixture
    def trained(self, odkeras: Odkeras, with_records: TinyProject) -> TinyProject:
        assert odkeras("train", with_records.config_path, "--steps", "1").status == 0
        return with_records

    def test_json(self, odkeras: Odkeras, trained: TinyProject) -> None:
        result = odkeras("eval", trained.config_path, "--json")
        assert result.status == 0, result.err
        metrics = json.loads(result.out)
        assert sorted(metrics) == [
            *(
                f"DetectionBoxes_PerformanceByCategory/{kind}/{name}"
                for kind in ("mAP", "mAP@.50IOU")
                for name in ("circle", "square", "triangle")
            ),
            "DetectionBoxes_Precision/mAP",
            "DetectionBoxes_Precision/mAP (large)",
            "DetectionBoxes_Precision/mAP (medium)",
            "DetectionBoxes_Precision/mAP (small)",
            "DetectionBoxes_Precision/mAP@.50IOU",
            "DetectionBoxes_Precision/mAP@.75IOU",
            "DetectionBoxes_Recall/AR@1",
            "DetectionBoxes_Recall/AR@10",
            "DetectionBoxes_Recall/AR@100",
            "DetectionBoxes_Recall/AR@100 (large)",
            "DetectionBoxes_Recall/AR@100 (medium)",
            "DetectionBoxes_Recall/AR@100 (small)",
        ]
        assert 0.0 <= metrics["DetectionBoxes_Precision/mAP"] < 0.2

    def test_a_table(self, odkeras: Odkeras, trained: TinyProject) -> None:
        lines = odkeras("eval", trained.config_path, "--eval-steps", "2").out.splitlines()
        value, name = lines[0].split(maxsplit=1)
        assert name == "DetectionBoxes_Precision/mAP" and len(value) == 6
        assert lines[12:15] == ["", "DetectionBoxes_PerformanceByCategory", "               mAP  mAP@.50IOU"]
        assert [line.split()[0] for line in lines[15:18]] == ["circle", "triangle", "square"]
        assert lines[18:] == ["", "known classes: circle, triangle, square"]

    def test_an_exported_version(self, odkeras: Odkeras, trained: TinyProject, tmp_path: Path) -> None:
        assert odkeras("export", trained.config_path, "--export-dir", tmp_path / "e").status == 0
        (version,) = list_versions(tmp_path / "e")
        of_version = odkeras(
            "eval", trained.config_path, "--version", version, "--export-dir", tmp_path / "e", "--json"
        )
        assert of_version.status == 0, of_version.err
        assert of_version.out == odkeras("eval", trained.config_path, "--json").out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--version", "3", "--checkpoint", "ckpt-1"), "--checkpoint and --version: give one of them"),
            (("--export-dir", "e"), "--export-dir: say with --version which version of it to judge"),
        ],
    )
    def test_what_does_not_go_together(
        self, odkeras: Odkeras, project: TinyProject, arguments: tuple[str, ...], message: str
    ) -> None:
        result = odkeras("eval", project.config_path, *arguments)
        assert (result.status, result.err) == (ConfigError.exit_code, f"error: {message}\n")

    def test_nan_is_no_json(self, odkeras: Odkeras, trained: TinyProject) -> None:
        """What PASCAL VOC says of a class without groundtruth."""
        config = trained.config()
        config.eval_config.metrics_set[:] = ["pascal_voc_detection_metrics"]
        trained.save(config)
        result = odkeras("eval", trained.config_path, "--eval-steps", "1", "--json")
        assert "NaN" not in result.out
        assert set(json.loads(result.out).values()) - {None}

    def test_an_unknown_metric(self, odkeras: Odkeras, trained: TinyProject) -> None:
        config = trained.config()
        config.eval_config.metrics_set[:] = ["map"]
        trained.save(config)
        result = odkeras("eval", trained.config_path)
        assert result.status == ConfigError.exit_code
        problem = "eval_config.metrics_set 'map': no such set of metrics; use one of coco_detection_metrics, coco_key"
        assert result.err.startswith(f"error: {trained.config_path}: {problem}")
        assert len(result.err.splitlines()) == 1

    def test_before_any_training(self, odkeras: Odkeras, with_records: TinyProject) -> None:
        result = odkeras("eval", with_records.config_path)
        assert (result.status, result.out) == (1, "")
        assert result.err == (
            f"error: there is no checkpoint in {with_records.directories.model_dir}; train first, or give --checkpoint "
            "or --model-dir\n"
        )


class TestExport:
    def test_freshly_built_weights(self, odkeras: Odkeras, project: TinyProject) -> None:
        result = odkeras("export", project.config_path)
        (version,) = list_versions(project.directories.export_dir)
        assert (result.status, result.out) == (
            0,
            f"{project.directories.export_dir / str(version)}: step 0, from freshly built weights\n",
        )

    def test_a_checkpoint(self, odkeras: Odkeras, with_records: TinyProject, tmp_path: Path) -> None:
        odkeras("train", with_records.config_path, "--steps", "1")
        result = odkeras("export", with_records.config_path, "--export-dir", tmp_path / "elsewhere")
        (version,) = list_versions(tmp_path / "elsewhere")
        checkpoint = with_records.directories.model_dir / "ckpt-1"
        assert result.out == f"{tmp_path / 'elsewhere' / str(version)}: step 1, from checkpoint {checkpoint}\n"

    def test_no_such_checkpoint(self, odkeras: Odkeras, project: TinyProject) -> None:
        result = odkeras("export", project.config_path, "--checkpoint", "ckpt-3")
        assert (result.status, result.out) == (1, "")
        assert result.err == f"error: no checkpoint 'ckpt-3'; in {project.directories.model_dir} there are: none\n"


class TestTrainer:
    def test_once(self, odkeras: Odkeras, project: TinyProject, shapes: list[Annotation]) -> None:
        name = project.put(shapes[:3])
        result = odkeras("trainer", project.config_path, "--steps-per-epoch", "2", "--once")
        assert (result.status, result.out, result.err) == (0, "", "")
        assert [(row["step"], row["batches"]) for row in project.metrics()] == [(2, [name])]
        assert len(list_versions(project.directories.export_dir)) == 2
        assert project.status()["state"] == "ended"
        assert load_pipeline(project.directories.config_path).train_config.batch_size == 2

    @pytest.mark.parametrize("action", ["pause", "stop"])
    def test_once_refuses_while_training_is_held(
        self, odkeras: Odkeras, project: TinyProject, shapes: list[Annotation], action: str
    ) -> None:
        """It ended with status 0 though answers waited."""
        project.put(shapes[:1])
        state = Control(project.directories.control_path).set(action)
        result = odkeras("trainer", project.config_path, "--once")
        assert result.status == ConfigError.exit_code
        folder = project.config_path.parent
        assert (
            f"training is {state}, and --once would end while answers wait: `odkeras training resume {folder}"
            in result.err
        )
        assert project.metrics() == []

    def test_the_other_options(
        self, odkeras: Odkeras, project: TinyProject, shapes: list[Annotation], tmp_path: Path
    ) -> None:
        """Three visits to the inbox, one picture each."""
        folders = {name: tmp_path / f"the {name}" for name in ("data", "model", "export")}
        arguments = [argument for name, path in folders.items() for argument in (f"--{name}-dir", path)]
        moved = TinyProject(tmp_path)
        for number in range(3):
            batch = project.put(shapes[number : number + 1])
            (folders["data"] / "inbox").mkdir(parents=True, exist_ok=True)
            (project.directories.inbox_dir / batch).rename(folders["data"] / "inbox" / batch)
            result = odkeras(
                *("trainer", project.config_path, *arguments, "--once", "--steps-per-epoch", "1", "--replay", "off"),
                *("--temp-files-num", "2", "--max-checkpoints-num", "1"),
            )
            assert result.status == 0, result.err
        rows = [row for row in read_jsonl(folders["model"] / "metrics.jsonl") if row["kind"] == "round"]
        assert [(row["examples"], row["steps"], row["step"]) for row in rows] == [(1, 1, 1), (1, 1, 2), (1, 1, 3)]
        assert len(list_versions(folders["export"])) == 2
        assert len(list_checkpoints(folders["model"])) == 1
        assert len(list(folders["data"].glob("*_train.record"))) == 2
        assert not moved.config_path.exists()

    def test_until_it_is_told_to_stop(
        self, odkeras: Odkeras, project: TinyProject, shapes: list[Annotation], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "_POLLS_PER_HEARTBEAT", 1)
        beats: list[float] = []

        def beat(self: Any) -> None:
            beats.append(1.0)
            if len(beats) == 1:
                project.put(shapes[:1])
            elif project.metrics():
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr("odkeras.training.rounds.Rounds.heartbeat", beat)
        assert odkeras("trainer", project.config_path, "--steps-per-epoch", "1").status == 0
        assert len(project.metrics()) == 1
        assert project.status()["state"] == "ended"

    def test_until_its_host_is_gone(
        self, odkeras: Odkeras, project: TinyProject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reading, writing = os.pipe()
        with os.fdopen(reading) as stdin, os.fdopen(writing, "w") as host:
            monkeypatch.setattr(sys, "stdin", stdin)
            monkeypatch.setattr(process, "_POLLS_PER_HEARTBEAT", 1)
            monkeypatch.setattr("odkeras.training.rounds.Rounds.heartbeat", lambda self: host.close())
            assert odkeras("trainer", project.config_path, "--stop-on-stdin-eof").status == 0
        assert project.status()["state"] == "ended"

    def test_a_config_that_does_not_work(self, odkeras: Odkeras, project: TinyProject) -> None:
        config = project.config()
        config.model.center_net.num_classes = 2
        project.save(config)
        result = odkeras("trainer", project.config_path, "--once")
        assert result.status == ConfigError.exit_code
        assert "model.center_net.num_classes '2': the label map has ids up to 3" in result.err
        status = project.status()
        assert status["state"] == "failed" and f"error: {status['reason']}\n" == result.err

    def test_evaluation_and_gate(self, odkeras: Odkeras, with_records: TinyProject, shapes: list[Annotation]) -> None:
        with_records.put(shapes)
        result = odkeras(
            *("trainer", with_records.config_path, "--once", "--steps-per-epoch", "2", "--eval-split", "0.5"),
            *("--publish-if-better", "--publish-tolerance", "1"),
        )
        assert result.status == 0, result.err
        (row,) = with_records.metrics()
        kept = sum(is_held_out(shape.image_id, 0.5) for shape in shapes)
        assert (row["outcome"], row["examples"], row["gate"]["tolerance"]) == ("published", 12 - kept, 1.0)
        assert len(with_records.metrics("evaluation")) == 1

    def test_checkpoints_of_another_model(self, odkeras: Odkeras, project: TinyProject) -> None:
        import tensorflow as tf

        state = tf.train.Checkpoint(model=tf.train.Checkpoint(w=tf.Variable(1.0)))
        tf.train.CheckpointManager(state, str(project.directories.model_dir), 1).save()
        result = odkeras("trainer", project.config_path, "--once")
        assert (result.status, len(result.err.splitlines())) == (1, 1)
        status = project.status()
        assert status["state"] == "failed" and status["reason"].startswith("none of the checkpoints fits this model")

    def test_other_classes_are_refused_before_anything_is_written(
        self, odkeras: Odkeras, with_records: TinyProject, shapes: list[Annotation]
    ) -> None:
        """Another order of the classes: every command says so and leaves all as it is; so do those that do not train
        for a fourth class in the label map and num_classes. The old label map goes on."""
        directories, config = with_records.directories, with_records.config_path
        with_records.put(shapes[:4])
        once = ("trainer", config, "--once", "--steps-per-epoch", "2")
        assert odkeras(*once).status == 0
        before = contents(with_records.folder)
        four, turned = [*LABEL_MAP.names, "star"], [*LABEL_MAP.names[::-1]]
        commands = [
            once,
            (*once, "--model-dir", with_records.folder / "other"),
            ("train", config, "--steps", "5"),
            ("eval", config),
            ("export", config),
            ("export", config, "--export-dir", with_records.folder / "final"),
        ]
        of_version = ("eval", config, "--version", str(list_versions(directories.export_dir)[-1]))
        # Training extends the model by a class, and a version finds fewer classes.
        for names, refused in ((four, commands[3:]), (turned, [*commands, of_version])):
            LabelMap.from_names(names).save(with_records.label_map_path)
            changed = with_records.config()
            set_num_classes(changed, len(names))
            with_records.save(changed)
            for command in refused:
                result = odkeras(*command)
                assert (result.status, len(result.err.splitlines())) == (ConfigError.exit_code, 1), command
                assert "was trained with another label map: id " in result.err, command
                assert ("it is extended when `odkeras annotate`" in result.err) == (names == four)
            if names == four:
                assert odkeras(*of_version).out.endswith("\nknown classes: circle, triangle, square; not star\n")
        LABEL_MAP.save(with_records.label_map_path)
        set_num_classes(changed, 3)
        with_records.save(changed)
        assert contents(with_records.folder) == before
        with_records.put(shapes[4:6])
        assert odkeras(*once).status == 0
        assert len(list_versions(directories.export_dir)) == 3

    def test_evaluation_without_records_is_refused_at_once(self, odkeras: Odkeras, project: TinyProject) -> None:
        """It trained a round first, and ended then."""
        result = odkeras("trainer", project.config_path, "--once", "--run-eval")
        assert result.status == ConfigError.exit_code
        assert (
            "with --run-eval: eval_input_reader.tf_record_input_reader.input_path: no records are given" in result.err
        )
        assert list_versions(project.directories.export_dir) == []

    def test_a_cluster_that_is_not_described(
        self, odkeras: Odkeras, project: TinyProject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
        result = odkeras("trainer", project.config_path, "--once", "--strategy", "multi-worker")
        assert result.status == ConfigError.exit_code
        assert result.err.startswith("error: --strategy multi-worker needs the environment variable TF_CONFIG")
        assert project.status()["state"] == "failed"

    def test_a_second_one_leaves_the_first_alone(
        self, odkeras: Odkeras, project: TinyProject, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It wrote "failed" into the status.json of the one at work, which a host took for the end of the training."""
        monkeypatch.setattr(checkpoints, "LOCK_WAIT_S", 0.0)
        odkeras("trainer", project.config_path, "--once")
        before = project.status()
        with lock_model_dir(project.directories.model_dir):
            result = odkeras("trainer", project.config_path, "--once")
            assert result.status == InUseError.exit_code
            assert result.err == (
                f"error: another training is using {project.directories.model_dir}; stop it, or name another "
                f"--model-dir (process {os.getpid()})\n"
            )
            odkeras("trainer", project.config_path, "--once", "--strategy", "multi-worker")
            assert project.status() == before

    def test_the_served_version_is_asked_for(self, odkeras: Odkeras, project: TinyProject, shapes: Any) -> None:
        """Nothing listens there: nobody knows, and nothing is in the way."""
        project.put(shapes[:1])
        result = odkeras(
            *("trainer", project.config_path, "--once", "--steps-per-epoch", "1", "--temp-files-num", "1"),
            *("--serving-url", "http://127.0.0.1:9", "--model-name", "shapes"),
        )
        assert result.status == 0
        assert len(list_versions(project.directories.export_dir)) == 1


@pytest.mark.parametrize("command", ["trainer", "train", "eval", "export"])
def test_the_rest_of_the_gpu_is_left_to_others(
    odkeras: Odkeras, with_records: TinyProject, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Only the trainer asked for it: `odkeras eval` beside it found no memory, or left it none."""

    class Asked(BaseException):
        pass

    def ask(device: str, enable: bool) -> None:
        assert (device, enable) == ("GPU:0", True)
        raise Asked

    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind=None: ["GPU:0"] * (kind == "GPU"))
    monkeypatch.setattr("tensorflow.config.experimental.set_memory_growth", ask)
    with pytest.raises(Asked):
        odkeras(command, with_records.config_path)
