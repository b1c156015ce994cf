"""Predicts with an exported version in this process, without a model server. `LocalModel` imports TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from odkeras.boxes import Detections
from odkeras.errors import CheckpointError, RequestError
from odkeras.images import EncodedImage, decode_rgb
from odkeras.logs import quiet_import
from odkeras.serving.client import parse_detections
from odkeras.serving.protocol import DEFAULT_SIGNATURE
from odkeras.serving.server import prepare_tensorflow
from odkeras.version_dirs import version_dirs


def newest_version_dir(place: Path) -> Path:
    """The directory of the newest version.

    Args:
        place: an export directory, or the directory of one version, which is returned as it is.

    Raises:
        CheckpointError: there is no such directory, or it has no version.
    """
    if (place / "saved_model.pb").is_file():
        return place
    if not place.is_dir():
        raise CheckpointError(f"{place}: no such directory; give an export directory, or one of its versions")
    versions = list(version_dirs(place).values())
    if not versions:
        raise CheckpointError(f"{place} has no version; `odkeras export` or the trainer writes one")
    return versions[-1]


class LocalModel:
    """A version loaded into this process.

    Args:
        directory: the directory of the version.
        gpu: run it on the GPU; by default, that is left to the trainer.

    Raises:
        CheckpointError: the version cannot be loaded, or is not a detection model.
        SetupError: TensorFlow is not installed.
    """

    def __init__(self, directory: Path, *, gpu: bool = False) -> None:
        prepare_tensorflow(gpu=gpu)
        quiet_import("tensorflow")
        from odkeras.serving.backend import TensorFlowBackend

        try:
            self._servable = TensorFlowBackend(gpu=gpu).load(directory)
        except Exception as error:  # TensorFlow has no common class for errors about a broken SavedModel
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise CheckpointError(f"{directory} cannot be loaded as a SavedModel: {reason}") from error
        signature = self._servable.signatures.get(DEFAULT_SIGNATURE)
        inputs = list(signature.inputs.items()) if signature else []
        if len(inputs) != 1:
            raise CheckpointError(
                f"{directory} has no signature {DEFAULT_SIGNATURE} with one input: it is no detection model"
            )
        ((self._input, self._spec),) = inputs

    def __call__(self, images: Sequence[EncodedImage]) -> list[Detections]:
        """Predict the detections of each image.

        Raises:
            RequestError: the model refuses an image, or its outputs are not those of a detection model.
        """
        if self._spec.dtype == "DT_STRING":
            batches = [np.array([image.data for image in images], object)]
        elif self._spec.dtype in ("DT_UINT8", "DT_FLOAT"):  # pixels: the images may have different sizes
            dtype = np.uint8 if self._spec.dtype == "DT_UINT8" else np.float32
            batches = [decode_rgb(image)[None].astype(dtype) for image in images]
        else:
            raise RequestError(400, f"its input {self._input} is {self._spec.dtype}, neither bytes nor pixels")
        detections = []
        for batch in batches:
            outputs = self._servable.run(DEFAULT_SIGNATURE, {self._input: batch})
            rows = ({name: values[row] for name, values in outputs.items()} for row in range(len(batch)))
            detections += [parse_detections(row) for row in rows]
        return detections
