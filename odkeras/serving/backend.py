"""Loads and runs SavedModels. Importing this module imports TensorFlow, which takes seconds: do it in a thread.

If the `saved_model.pb` of a new version is identical to that of the loaded one, the graph is the same. Then only the
variables are read (`SavedModelServable.prepare_update`), which takes 0.1 s instead of several seconds.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2, trackable_object_graph_pb2

from odkeras.errors import RequestError
from odkeras.serving.json_tensors import Array
from odkeras.serving.protocol import DEFAULT_SIGNATURE, Signature, TensorSpec, canonical_error, request_error
from odkeras.serving.warmup import WarmupRequest, read_warmup_requests

log = logging.getLogger(__name__)

_OBJECT_GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLE_ATTRIBUTE = "VARIABLE_VALUE"
# A PNG of one white pixel: the warm-up request for a model that takes encoded images and has no warm-up file.
_PIXEL_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415478da63f8ffff3f0005fe02fe331295140000000049454e44ae426082"
)


class TensorFlowBackend:
    """Loads versions on the CPU, or on the GPUs if `gpu` is set. GPU memory is allocated on demand, not all at once."""

    def __init__(self, *, gpu: bool = False) -> None:
        if not gpu:
            tf.config.set_visible_devices([], "GPU")
        for device in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)

    def load(self, directory: Path) -> SavedModelServable:
        """Load a version and run its warm-up requests.

        Raises:
            FileNotFoundError: there is no saved_model.pb.
            Exception: any of TensorFlow's errors about a broken SavedModel.
        """
        servable = SavedModelServable(directory)
        servable.warm_up(directory)
        return servable


class SavedModelServable:
    """One loaded SavedModel.

    Attributes:
        signatures: its signatures, by name.

    Raises:
        FileNotFoundError: there is no saved_model.pb.
        Exception: any of TensorFlow's errors about a broken SavedModel.
    """

    def __init__(self, directory: Path) -> None:
        serialized = _read_graph(directory)
        self._digest = hashlib.sha256(serialized).digest()
        self.signatures = _signatures(serialized, directory)
        self._model = tf.saved_model.load(str(directory))
        self._variables = _restorable(self._model, directory)

    def run(self, signature_name: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run a signature. `inputs` must have the signature's dtypes and shapes.

        Raises:
            RequestError: TensorFlow refuses the inputs, for example an image that cannot be decoded.
        """
        tensors = {name: _as_tensor(array) for name, array in inputs.items()}
        try:
            outputs = self._model.signatures[signature_name](**tensors)
            return {name: tensor.numpy() for name, tensor in outputs.items()}
        except tf.errors.OpError as error:
            code, message = canonical_error(error)
            raise request_error(code, _first_sentence(message)) from error
        except UnicodeDecodeError as error:  # TensorFlow cannot decode its own message if that quotes a binary input
            message = error.object.decode("utf-8", errors="replace")
            raise request_error("INVALID_ARGUMENT", _first_sentence(message)) from None

    def prepare_update(self, directory: Path) -> Callable[[], None] | None:
        """Read the variables of another version of the same graph.

        Returns:
            A function that assigns them to the loaded model; None if the graph differs, so that a full load is needed.

        Raises:
            FileNotFoundError: there is no saved_model.pb.
            Exception: any of TensorFlow's errors about broken variable files.
        """
        if hashlib.sha256(_read_graph(directory)).digest() != self._digest or _has_assets(directory):
            return None
        if not self._variables:
            return None
        reader = tf.train.load_checkpoint(_checkpoint(directory))
        variables = _variables_by_key(self._model, reader)
        # Compared by id, because variables are not hashable and == compares their values.
        if variables is None or set(map(id, variables.values())) != set(map(id, self._variables)):
            return None
        values = [(variable, reader.get_tensor(key)) for key, variable in variables.items()]
        if any(variable.shape != value.shape or variable.dtype != value.dtype for variable, value in values):
            return None

        def assign() -> None:
            for variable, value in values:
                variable.assign(value, read_value=False)

        return assign

    def warm_up(self, directory: Path) -> None:
        """Run the version's warm-up requests, or a one-pixel image if it has none.

        TensorFlow optimises the graph in the first call, which takes seconds.

        Raises:
            ValueError: the warm-up file is broken.
            RequestError: the model fails on one of its own warm-up requests.
        """
        requests = read_warmup_requests(directory)
        for request in requests:
            self._replay(request)
        if not requests:
            self._warm_up_on_pixel()

    def _replay(self, request: WarmupRequest) -> None:
        inputs = {}
        for name, serialized in request.inputs.items():
            proto = tf.make_tensor_proto(0)
            proto.ParseFromString(serialized)
            inputs[name] = tf.make_ndarray(proto)
        self.run(request.signature_name or DEFAULT_SIGNATURE, inputs)

    def _warm_up_on_pixel(self) -> None:
        signature = self.signatures.get(DEFAULT_SIGNATURE)
        specs = list(signature.inputs.items()) if signature else []
        if len(specs) != 1 or specs[0][1].dtype != "DT_STRING" or specs[0][1].shape != (-1,):
            return
        try:
            self.run(DEFAULT_SIGNATURE, {specs[0][0]: np.array([_PIXEL_PNG], object)})
        except RequestError as error:  # the model's input strings are not images
            log.debug("no warm-up: %s", error)


def _read_graph(directory: Path) -> bytes:
    try:
        return (directory / "saved_model.pb").read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no saved_model.pb in {directory}") from None


def _checkpoint(directory: Path) -> str:
    return str(directory / "variables" / "variables")


def _has_assets(directory: Path) -> bool:
    assets = directory / "assets"
    return assets.is_dir() and any(assets.iterdir())


def _as_tensor(array: Array) -> Any:
    return tf.constant(array, tf.string if array.dtype == object else None)


def _signatures(serialized: bytes, directory: Path) -> dict[str, Signature]:
    try:
        saved_model = saved_model_pb2.SavedModel.FromString(serialized)
    except Exception as error:
        raise ValueError(f"saved_model.pb in {directory} is truncated or broken ({error})") from None
    for meta_graph in saved_model.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return {name: _signature(proto) for name, proto in meta_graph.signature_def.items()}
    raise ValueError(f"the SavedModel in {directory} has no graph tagged 'serve'")


def _signature(proto: meta_graph_pb2.SignatureDef) -> Signature:
    return Signature(
        inputs={name: _tensor_spec(info) for name, info in sorted(proto.inputs.items())},
        outputs={name: _tensor_spec(info) for name, info in sorted(proto.outputs.items())},
        method_name=proto.method_name,
    )


def _tensor_spec(info: meta_graph_pb2.TensorInfo) -> TensorSpec:
    shape = None if info.tensor_shape.unknown_rank else tuple(dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(types_pb2.DataType.Name(info.dtype), shape, info.name)


def _restorable(model: Any, directory: Path) -> list[tf.Variable]:
    """The variables that a checkpoint of the model restores.

    [] if a checkpoint would restore more than variables, or if TensorFlow 1 saved the model: such a model needs a full
    load for every version.
    """
    if not (directory / "variables" / "variables.index").exists():
        return []
    variables = _variables_by_key(model, tf.train.load_checkpoint(_checkpoint(directory)))
    return list(variables.values()) if variables else []


def _variables_by_key(model: Any, reader: Any) -> dict[str, tf.Variable] | None:
    """The variable of the loaded `model` for each key of a checkpoint; None if a key has no variable.

    A checkpoint contains the graph of the objects that were saved. Its edges are attribute names, and the loaded model
    has the same ones.
    """
    if not reader.has_tensor(_OBJECT_GRAPH_KEY):
        return None
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH_KEY))
    objects = _match_objects(model, graph)
    variables: dict[str, tf.Variable] = {}
    for node_id, node in enumerate(graph.nodes):
        for attribute in node.attributes:
            variable = objects.get(node_id)
            if attribute.name != _VARIABLE_ATTRIBUTE or not isinstance(variable, tf.Variable):
                return None
            variables[attribute.checkpoint_key] = variable
    return variables


def _match_objects(model: Any, graph: trackable_object_graph_pb2.TrackableObjectGraph) -> dict[int, Any]:
    """The objects of the loaded `model`, by the number of their node in the checkpoint's graph."""
    objects = {0: model}
    queue = deque([0])
    while queue:
        node_id = queue.popleft()
        children = objects[node_id]._trackable_children()
        for child in graph.nodes[node_id].children:
            if child.node_id not in objects and child.local_name in children:
                objects[child.node_id] = children[child.local_name]
                queue.append(child.node_id)
    return objects


def _first_sentence(message: str) -> str:
    """TensorFlow's message without the stack trace, the wrapping function and the name of the outermost op."""
    sentence = message.rpartition("<stack traces unavailable>\n")[2].partition(" [Op:")[0]
    return re.sub(r"^\{\{function_node [^}]*\}\} ", "", sentence.strip())
