from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from google.protobuf import text_format
from pictures import draw_pixels, encode

from odkeras.annotation import Annotation
from odkeras.data import records
from odkeras.errors import CheckpointError
from odkeras.export import publish
from odkeras.export.info import write_export_info
from odkeras.export.publish import (
    EXPORT_INFO_PATH,
    Publisher,
    apply_retention,
    graph_fingerprint,
    read_export_info,
)
from odkeras.images import encode_image
from odkeras.model.inference import InferenceModel
from odkeras.pipeline import PipelineConfig, save_pipeline
from odkeras.version_dirs import list_versions
from tests.fixtures_training import LABEL_MAP, give_boxes_an_area
from tests.integration.conftest import kept_as_is

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Outputs = dict[str, npt.NDArray[np.float32]]

# Two sizes, none of them square, one upright: the bytes of a PNG say the same to every decoder.
PIXELS = [draw_pixels((48, 64), seed=1), draw_pixels((80, 60), seed=9)]
PICTURES = [encode(pixels, "PNG") for pixels in PIXELS]


def in_process(inference: InferenceModel, pictures: list[npt.NDArray[np.uint8]]) -> Outputs:
    """Each picture alone through the model, without any of the exported functions."""
    found = []
    for pixels in pictures:
        image, true_shape = inference.preprocess(tf.constant(pixels))
        found.append(inference.detect(image[tf.newaxis], true_shape[tf.newaxis]))
    return {name: np.concatenate([each[name].numpy() for each in found]) for name in found[0]}


def served(model: Any, inputs: Any, signature_name: str = "serving_default") -> Outputs:
    return {name: value.numpy() for name, value in model.signatures[signature_name](tf.constant(inputs)).items()}


def served_by_session(version_dir: Path, inputs: Any) -> Outputs:
    """Through the TensorFlow 1 loader, whose restore operation TensorFlow Serving runs."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version_dir))
        signature = meta_graph.signature_def["serving_default"]
        fetches = {name: tensor.name for name, tensor in signature.outputs.items()}
        found: Outputs = session.run(fetches, {signature.inputs["image_bytes"].name: inputs})
    return found


def assert_alike(found: Outputs, expected: Outputs, *, exactly: bool = False) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=0 if exactly else 2e-4, err_msg=name)


def change_weights(inference: InferenceModel, factor: float) -> None:
    """Fresh weights are so large that every score is 1; times 0.8 they are not."""
    for variable in inference.variables:
        variable.assign(variable * factor)


def publisher(inference: InferenceModel, export_dir: Path, **options: Any) -> Publisher:
    return Publisher(inference, export_dir, LABEL_MAP, **options)


@dataclass(frozen=True)
class Published:
    """Three versions of one model, the first one saved in full, and what it said in process each time."""

    directories: list[Path]
    expected: list[Outputs]
    graph: str


@pytest.fixture(scope="module")
def published(session_inference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    export_dir = tmp_path_factory.mktemp("published") / "export"  # made by the publisher
    versions, expected = [], []
    with kept_as_is(session_inference.variables):
        give_boxes_an_area(session_inference)
        made = publisher(session_inference, export_dir)
        for step, factor in ((10, 0.8), (20, 1.02), (30, 0.97)):
            change_weights(session_inference, factor)
            versions.append(made.publish(step))
            expected.append(in_process(session_inference, PIXELS))
    directories = [export_dir / str(version) for version in versions]
    yield Published(directories, expected, graph_fingerprint(session_inference.model_config))


@pytest.fixture(scope="module")
def model(published: Published) -> Any:
    return tf.saved_model.load(str(published.directories[0]))


def test_weights_that_are_not_finite_are_not_published(inference: InferenceModel, tmp_path: Path) -> None:
    made = publisher(inference, tmp_path / "export")
    variable = inference.variables[-1]
    variable.assign(tf.fill(variable.shape, tf.constant(np.inf, variable.dtype)))
    with pytest.raises(CheckpointError, match="not published: 1 of the model's weights are not finite"):
        made.publish(10)
    assert not (tmp_path / "export").exists()


class TestSignatures:
    def test_image_bytes_of_two_sizes_in_one_batch(self, model: Any, published: Published) -> None:
        found = served(model, PICTURES)
        assert {name: value.shape for name, value in found.items()} == {
            "detection_boxes": (2, 20, 4),
            "detection_scores": (2, 20),
            "detection_classes": (2, 20),
            "num_detections": (2,),
        }
        assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
        assert_alike(found, published.expected[0])
        assert np.abs(found["detection_scores"][0] - found["detection_scores"][1]).max() > 0.01  # two pictures
        assert np.abs(found["detection_scores"] - published.expected[1]["detection_scores"]).max() > 1e-3

    def test_pixels(self, model: Any, published: Published) -> None:
        for number, pixels in enumerate(PIXELS):
            found = served(model, pixels[np.newaxis], "image_tensor")
            assert_alike(found, {name: value[number : number + 1] for name, value in published.expected[0].items()})
        pair = np.stack([PIXELS[0], PIXELS[0][::-1]])
        assert_alike(
            {name: value[:1] for name, value in served(model, pair, "image_tensor").items()},
            {name: value[:1] for name, value in published.expected[0].items()},
        )

    def test_examples(self, model: Any, published: Published, annotations: dict[str, Annotation]) -> None:
        examples = []
        for data in PICTURES:
            image = encode_image(data, source="picture.png")
            truth = annotations["one"].groundtruth
            annotation = Annotation(image, truth, image.image_id, "picture.png")
            examples.append(records.example_from_annotation(annotation, LABEL_MAP).SerializeToString())
        assert_alike(served(model, examples, "tf_example"), published.expected[0])

    def test_jpeg_and_greyscale(self, model: Any) -> None:
        grey = draw_pixels()[..., 0]
        colour = np.repeat(grey[..., np.newaxis], 3, axis=-1)
        found = served(model, [encode(grey, "PNG"), encode(colour, "PNG"), encode(colour, "JPEG", quality=100)])
        np.testing.assert_allclose(found["detection_scores"][0], found["detection_scores"][1], atol=2e-4)
        np.testing.assert_allclose(found["detection_scores"][0], found["detection_scores"][2], atol=5e-2)


class TestFastPath:
    def test_versions_share_everything_but_the_weights(self, published: Published) -> None:
        graphs = {(directory / "saved_model.pb").read_bytes() for directory in published.directories}
        assert len(graphs) == 1
        trees = [
            sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
            for directory in published.directories
        ]
        assert trees[1] == trees[2] == [name for name in trees[0] if name != "fingerprint.pb"]
        assert trees[1] == [
            "assets.extra/odkeras.json",
            "assets.extra/tf_serving_warmup_requests",
            "saved_model.pb",
            "variables/variables.data-00000-of-00001",
            "variables/variables.index",
        ]

    @pytest.mark.parametrize("number", [0, 2])
    def test_both_loaders_read_the_weights_of_their_version(self, published: Published, number: int) -> None:
        directory = published.directories[number]
        found = served(tf.saved_model.load(str(directory)), PICTURES)
        assert_alike(found, published.expected[number])
        assert_alike(served_by_session(directory, PICTURES), found, exactly=True)

    def test_another_process_reuses_the_graph(
        self, config: PipelineConfig, published: Published, tmp_path: Path
    ) -> None:
        (tmp_path / "7").symlink_to(published.directories[0])
        save_pipeline(config, tmp_path / "pipeline.config")
        for number, data in enumerate(PICTURES):
            (tmp_path / f"{number}.png").write_bytes(data)
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, tmp_path], cwd=ROOT, check=True, timeout=120)
        _, version = list_versions(tmp_path)
        directory = tmp_path / str(version)
        assert (directory / "saved_model.pb").read_bytes() == (tmp_path / "7/saved_model.pb").read_bytes()
        info = read_export_info(directory)
        assert info is not None and info.step == 77
        expected = dict(np.load(tmp_path / "expected.npz"))
        assert_alike(served(tf.saved_model.load(str(directory)), PICTURES), expected)
        assert_alike(served_by_session(directory, PICTURES), expected)

    def test_another_configuration_saves_its_own_graph(
        self, config: PipelineConfig, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "7").symlink_to(published.directories[0])
        config.model.center_net.object_center_params.max_box_predictions = 5
        other = InferenceModel(config.model)
        change_weights(other, 0.8)
        directory = tmp_path / str(publisher(other, tmp_path).publish(0))
        assert (directory / "saved_model.pb").read_bytes() != (tmp_path / "7/saved_model.pb").read_bytes()
        found = served(tf.saved_model.load(str(directory)), PICTURES)
        assert found["detection_boxes"].shape == (2, 5, 4)
        assert_alike(found, in_process(other, PIXELS))

    def test_another_tensorflow_saves_its_own_graph(
        self, config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = graph_fingerprint(config.model)
        monkeypatch.setattr(tf, "__version__", "2.22.0")
        assert graph_fingerprint(config.model) != before

    @pytest.mark.parametrize("missing", ["saved_model.pb", str(EXPORT_INFO_PATH)])
    def test_an_incomplete_version_is_not_reused(
        self, inference: Any, published: Published, tmp_path: Path, missing: str
    ) -> None:
        """A newer version of something else does not hide an older one with the right graph."""
        saved = published.directories[1]
        (tmp_path / "5").symlink_to(saved)
        (tmp_path / "7/assets.extra").mkdir(parents=True)
        for name in {"saved_model.pb", str(EXPORT_INFO_PATH)} - {missing}:
            (tmp_path / "7" / name).write_bytes((saved / name).read_bytes())
        directory = tmp_path / str(publisher(inference, tmp_path).publish(0))
        assert (directory / "saved_model.pb").read_bytes() == (saved / "saved_model.pb").read_bytes()

    @pytest.mark.parametrize("remembers", [True, False])
    def test_a_damaged_graph_is_not_copied(
        self, inference: Any, published: Published, tmp_path: Path, remembers: bool
    ) -> None:
        """It was copied into every later version, which no server could load. Old versions know no hash of it."""
        saved = published.directories[1]
        whole = (saved / "saved_model.pb").read_bytes()
        (tmp_path / "5").symlink_to(saved)
        (tmp_path / "7/assets.extra").mkdir(parents=True)
        info = read_export_info(saved)
        assert info is not None and info.graph_sha256
        write_export_info(tmp_path / "7", info if remembers else replace(info, graph_sha256=""))
        (tmp_path / "7/saved_model.pb").write_bytes(whole[: len(whole) // 2])
        directory = tmp_path / str(publisher(inference, tmp_path).publish(0))
        assert (directory / "saved_model.pb").read_bytes() == whole


OTHER_PROCESS = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
from odkeras import compat
compat.prepare()
import numpy as np
import tensorflow as tf
from PIL import Image
from odkeras.export.publish import Publisher
from odkeras.model.inference import InferenceModel
from odkeras.pipeline import load_pipeline
from tests.fixtures_training import LABEL_MAP

tf.saved_model.save = None  # must not be needed
for _ in range(2):  # the counters in the names of the variables differ from the other process
    inference = InferenceModel(load_pipeline(folder / "pipeline.config").model)
for variable in inference.variables:
    variable.assign(variable * 0.82)
pictures = [np.asarray(Image.open(folder / f"{number}.png")) for number in range(2)]
found = []
for pixels in pictures:
    image, true_shape = inference.preprocess(tf.constant(pixels))
    found.append(inference.detect(image[tf.newaxis], true_shape[tf.newaxis]))
np.savez(folder / "expected.npz", **{name: np.concatenate([each[name] for each in found]) for name in found[0]})
Publisher(inference, folder, LABEL_MAP).publish(77)
"""


class TestNumbers:
    def test_seconds_since_the_epoch_and_always_larger(
        self, inference: Any, published: Published, tmp_path: Path
    ) -> None:
        (tmp_path / "5").symlink_to(published.directories[0])
        times = iter([1000.9, 1000.95, 10.0, 999.0, 2000.0])
        made = publisher(inference, tmp_path, clock=lambda: next(times))
        assert [made.publish(0) for _ in range(5)] == [1000, 1001, 1002, 1003, 2000]
        assert list_versions(tmp_path) == [5, 1000, 1001, 1002, 1003, 2000]


class TestFailures:
    @pytest.mark.parametrize(
        ("owner", "name", "error"),
        [
            (publish, "write_export_info", KeyboardInterrupt()),
            (Path, "rename", OSError(28, "No space left on device")),
            (tf.train.Checkpoint, "write", tf.errors.ResourceExhaustedError(None, None, "No space left on device")),
        ],
        ids=["Ctrl-C", "rename", "variables"],
    )
    def test_a_failed_fast_publish_leaves_nothing(
        self,
        inference: Any,
        published: Published,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        owner: Any,
        name: str,
        error: BaseException,
    ) -> None:
        (tmp_path / "7").symlink_to(published.directories[0])
        made = publisher(inference, tmp_path)

        def fail(*_: Any, **__: Any) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            with pytest.raises(type(error)):
                made.publish(1)
        assert [path.name for path in tmp_path.iterdir()] == ["7"]
        made.publish(1)
        assert len(list_versions(tmp_path)) == 2

    def test_a_failed_full_publish_leaves_nothing(
        self, inference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = publisher(inference, tmp_path)
        saved = []

        def fail(module: Any, directory: str, **_: Any) -> None:
            Path(directory, "variables").mkdir(parents=True)
            Path(directory, "saved_model.pb").write_bytes(b"half of it")
            saved.append(directory)
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(tf.saved_model, "save", fail)
            with pytest.raises(OSError, match="No space left"):
                made.publish(1)
        assert saved and list(tmp_path.iterdir()) == []


class TestExportInfo:
    @pytest.mark.parametrize(
        "content",
        [None, "{", "[]", '{"step": 1, "graph": "x"}', '{"step": 1, "graph": "x", "labels": [[1]]}', b"\xff\xfe"],
    )
    def test_a_version_without_our_info_file_has_no_info(self, tmp_path: Path, content: str | bytes | None) -> None:
        (tmp_path / "assets.extra").mkdir()
        if content is not None:
            data = content if isinstance(content, bytes) else content.encode()
            (tmp_path / EXPORT_INFO_PATH).write_bytes(data)
        assert read_export_info(tmp_path) is None
        assert read_export_info(tmp_path / "missing") is None


class TestRetention:
    @pytest.fixture
    def export_dir(self, tmp_path: Path) -> Path:
        for name in ("9", "10", "11", "100", "notes", ".tmp-101-1", "0012"):
            (tmp_path / name / "variables").mkdir(parents=True)
            (tmp_path / name / "saved_model.pb").touch()
        return tmp_path

    @pytest.mark.parametrize(
        ("keep", "live", "deleted"),
        [
            (1, None, [9, 10, 11]),
            (3, None, [9]),
            (0, None, []),
            (1, 9, [10, 11]),  # the server has not got beyond the oldest one
            (2, 100, [9, 10]),
            (1, 12345, [9, 10, 11]),
        ],
    )
    def test_the_newest_and_the_live_one_stay(
        self, export_dir: Path, keep: int, live: int | None, deleted: list[int]
    ) -> None:
        assert apply_retention(export_dir, keep, live) == deleted
        assert list_versions(export_dir) == [version for version in (9, 10, 11, 12, 100) if version not in deleted]
        left = {path.name for path in export_dir.iterdir()}
        assert left - {"9", "10", "11", "100"} == {"notes", ".tmp-101-1", "0012"}

    def test_a_version_is_deleted_by_a_rename_first(self, export_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that looks at the directory meanwhile never sees half of one."""
        seen = []

        def look(path: Path, ignore_errors: bool) -> None:
            seen.append((path.name.startswith(".tmp-"), list_versions(export_dir)))

        monkeypatch.setattr(publish.shutil, "rmtree", look)
        apply_retention(export_dir, 2)
        assert seen == [(True, [10, 11, 12, 100]), (True, [11, 12, 100])]


class TestProportionsThatAreKept:
    """Images of different proportions have different sizes after resizing, too: they cannot be stacked."""

    def test_a_batch_of_two_sizes(self, config: PipelineConfig, tmp_path: Path) -> None:
        config.model.center_net.image_resizer.Clear()
        resizer = "keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 160 }"
        text_format.Parse(resizer, config.model.center_net.image_resizer)
        dynamic = InferenceModel(config.model)
        assert dynamic.static_size is None
        pixels = [draw_pixels((48, 64), seed=1), draw_pixels((80, 48), seed=9)]  # hourglasses need multiples of 8
        made = publisher(dynamic, tmp_path)
        for factor in (0.8, 1.02):
            change_weights(dynamic, factor)
            directory = tmp_path / str(made.publish(0))
            expected = in_process(dynamic, pixels)
            pictures = [encode(each, "PNG") for each in pixels]
            model = tf.saved_model.load(str(directory))
            assert_alike(served(model, pictures), expected)
            assert_alike(served_by_session(directory, pictures), expected)
            for number, each in enumerate(pixels):
                found = served(model, each[np.newaxis], "image_tensor")
                assert_alike(found, {name: value[number : number + 1] for name, value in expected.items()})
