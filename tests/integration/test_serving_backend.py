"""Tiny real SavedModels: loading, updating weights, warm-up, broken files, memory."""

from __future__ import annotations

import gc
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odkeras.errors import RequestError
from odkeras.serving.json_tensors import PredictRequest, encode_outputs
from odkeras.serving.protocol import ApiRequest, TensorSpec
from odkeras.serving.versions import ServedModel

tf = pytest.importorskip("tensorflow")

from odkeras.serving.backend import SavedModelServable, TensorFlowBackend  # noqa: E402
from tests.fixtures_saved_models import Publisher, png, write_warmup  # noqa: E402

pytestmark = pytest.mark.integration
ANY = ApiRequest("predict", "tiny")
STATM = Path("/proc/self/statm")


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    export_dir = tmp_path / "export"
    export_dir.mkdir()
    return Publisher(export_dir)


@pytest.fixture
def model(publisher: Publisher) -> ServedModel:
    return ServedModel("tiny", publisher.export_dir, TensorFlowBackend)


def value_of(servable: SavedModelServable | Any) -> float:
    """What the model's weights are; fails if they are of two versions."""
    outputs = servable.run("serving_default", {"image_bytes": np.array([png()], object)})
    (value,) = set(outputs["detection_classes"].ravel().tolist())
    np.testing.assert_allclose(outputs["detection_scores"], value / 1000, rtol=1e-6)
    return float(value)


def look(model: ServedModel) -> dict[int, tuple[str, str]]:
    model.poll_once()
    return {row.version: (row.state, row.error_code) for row in model.statuses(ApiRequest("status", "tiny"))}


def served(model: ServedModel) -> tuple[int, float, Any]:
    with model.lease(ANY) as lease:
        return lease.version, value_of(lease.servable), lease.servable


def test_signatures_are_those_of_the_saved_model(publisher: Publisher) -> None:
    servable = TensorFlowBackend().load(publisher.publish(1, 7))
    default = servable.signatures["serving_default"]
    assert default.inputs == {"image_bytes": TensorSpec("DT_STRING", (-1,), "serving_default_image_bytes:0")}
    assert default.outputs["detection_boxes"].dtype == "DT_FLOAT"
    assert default.outputs["detection_boxes"].shape == (-1, 3, 4)
    assert servable.signatures["image_tensor"].inputs["image"].shape == (-1, -1, -1, 3)
    assert servable.signatures["image_tensor"].inputs["image"].dtype == "DT_UINT8"


def test_rest_and_in_process_agree(publisher: Publisher) -> None:
    """To the last bit, through JSON."""
    servable = TensorFlowBackend().load(publisher.publish(1, 333))
    outputs = servable.run("serving_default", {"image_bytes": np.array([png(33)], object)})
    (row,) = json.loads(encode_outputs(outputs, row_format=True))["predictions"]
    for name, array in outputs.items():
        np.testing.assert_array_equal(np.array(row[name], np.float32), array[0])


def test_tensorflow_s_errors_are_passed_on_as_400(publisher: Publisher) -> None:
    servable = TensorFlowBackend().load(publisher.publish(1, 7))
    with pytest.raises(RequestError, match=r"^Unknown image file format") as refused:
        servable.run("serving_default", {"image_bytes": np.array([b"GIF? no."], object)})
    assert refused.value.status == 400
    assert "stack traces" not in refused.value.message


def test_the_same_graph_with_an_asset_is_loaded_in_full(publisher: Publisher) -> None:
    """An asset (a vocabulary, say) is read when the model is loaded."""
    servable = TensorFlowBackend().load(publisher.publish(1, 7))
    directory = publisher.publish(2, 8)
    (directory / "assets" / "vocabulary.txt").write_text("fox\n")
    assert servable.prepare_update(directory) is None


def test_variables_of_another_shape_are_not_put_in(publisher: Publisher, tmp_path: Path) -> None:
    servable = TensorFlowBackend().load(publisher.publish(1, 7))
    directory = publisher.publish(2, 8)

    class Other(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = tf.Variable([1.0, 2.0]), tf.Variable(8.0)

    tf.train.Checkpoint(Other()).write(str(directory / "variables" / "variables"))
    assert servable.prepare_update(directory) is None


def test_a_model_saved_the_old_way_is_served(tmp_path: Path) -> None:
    """TensorFlow 1 SavedModels have no graph of objects: always loaded in full."""
    for version, value in ((1, 7.0), (2, 8.0)):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            x = tf.compat.v1.placeholder(tf.float32, [None], "x")
            weight = tf.compat.v1.get_variable("weight", initializer=value)
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.saved_model.simple_save(session, str(tmp_path / str(version)), {"x": x}, {"y": x + weight})
    servable = TensorFlowBackend().load(tmp_path / "1")
    outputs = servable.run("serving_default", {"x": np.array([1.0], np.float32)})
    np.testing.assert_array_equal(outputs["y"], [8.0])
    assert servable.prepare_update(tmp_path / "2") is None


def _without_variables(directory: Path) -> None:
    shutil.rmtree(directory / "variables")


def _cut_variables(directory: Path) -> None:
    data = directory / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])


def _cut_graph(directory: Path) -> None:
    graph = directory / "saved_model.pb"
    graph.write_bytes(graph.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [_without_variables, _cut_variables, _cut_graph])
@pytest.mark.parametrize("same_graph", [True, False])
def test_a_broken_version_leaves_the_old_one_in_place(
    publisher: Publisher, model: ServedModel, tmp_path: Path, damage: Any, same_graph: bool
) -> None:
    publisher.publish(1, 7)
    look(model)
    directory = publisher.publish(2, 8, same_graph=same_graph)
    whole = shutil.copytree(directory, tmp_path / "whole")
    damage(directory)
    states = look(model)
    assert states[1] == ("AVAILABLE", "OK")
    assert states[2][0] == "END"
    assert states[2][1] != "OK"
    (row,) = model.statuses(ApiRequest("status", "tiny", 2))
    assert row.error_message
    assert served(model)[:2] == (1, 7.0)
    shutil.copytree(whole, directory, dirs_exist_ok=True)  # as a slow copy does that was looked at too early
    assert look(model)[2] == ("AVAILABLE", "OK")
    assert served(model)[:2] == (2, 8.0)


def test_warm_up_requests_are_replayed(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = publisher.publish(1, 7, warm=True)
    asked: list[tuple[str, list[Any]]] = []
    run = SavedModelServable.run

    def spy(self: SavedModelServable, signature_name: str, inputs: Any) -> Any:
        asked.append((signature_name, inputs["image_bytes"].tolist()))
        return run(self, signature_name, inputs)

    monkeypatch.setattr(SavedModelServable, "run", spy)
    TensorFlowBackend().load(directory)
    assert asked == [("serving_default", [png()])]


def test_a_version_that_fails_its_own_warm_up_is_not_served(publisher: Publisher, model: ServedModel) -> None:
    directory = publisher.publish(1, 7)
    write_warmup(directory, "serving_default", {"image_bytes": np.array([b"no image"], object)})
    assert look(model)[1][0] == "END"
    (row,) = model.statuses(ApiRequest("status", "tiny"))
    assert "Unknown image file format" in row.error_message


def test_a_model_of_other_strings_may_reject_the_warm_up_image(tmp_path: Path) -> None:
    module = tf.Module()
    module.number = tf.function(
        lambda text: {"number": tf.strings.to_number(text)}, input_signature=[tf.TensorSpec([None], tf.string, "text")]
    )
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"serving_default": module.number})
    servable = TensorFlowBackend().load(tmp_path / "1")
    body = b'{"instances": ["2.5", "-1"]}'
    inputs = PredictRequest.parse(body).decode(servable.signatures["serving_default"].inputs)
    np.testing.assert_array_equal(servable.run("serving_default", inputs)["number"], [2.5, -1])
    for text in (b"fox", b"\x89PNG"):  # the second: TensorFlow fails to say what is wrong, since it is not UTF-8
        with pytest.raises(RequestError, match=r"^StringToNumberOp could not correctly convert string: ") as refused:
            servable.run("serving_default", {"text": np.array([text], object)})
        assert refused.value.status == 400


@pytest.mark.skipif(not STATM.exists(), reason="memory is looked up in /proc")
def test_memory_stays_flat_over_many_updates_of_the_weights(publisher: Publisher, model: ServedModel) -> None:
    """130 KB of weights each, and a graph: some 20 MB if they were kept."""
    swap(publisher, model, range(1, 11))
    before = resident_bytes()
    swap(publisher, model, range(11, 41))
    assert resident_bytes() - before < 6e6


def test_one_version_stays_in_memory_over_several_full_loads(publisher: Publisher, model: ServedModel) -> None:
    others = servables()  # of tests before this one
    swap(publisher, model, range(1, 6), same_graph=False)
    gc.collect()
    assert len([servable for servable in servables() if all(servable is not other for other in others)]) == 1


def servables() -> list[SavedModelServable]:
    return [thing for thing in gc.get_objects() if isinstance(thing, SavedModelServable)]


def swap(publisher: Publisher, model: ServedModel, versions: range, same_graph: bool = True) -> None:
    for version in versions:
        publisher.publish(version, version, same_graph=same_graph)
        assert look(model)[version] == ("AVAILABLE", "OK")
        assert served(model)[0] == version


def resident_bytes() -> int:
    pages = int(STATM.read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
