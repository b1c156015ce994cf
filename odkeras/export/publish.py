"""Publish versions atomically, with increasing numbers, and delete old ones."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from odkeras import __version__, project
from odkeras.errors import CheckpointError
from odkeras.export.info import EXPORT_INFO_PATH, ExportInfo, read_export_info, write_export_info
from odkeras.export.signatures import ServingModule
from odkeras.export.warmup import write_warmup_requests
from odkeras.keypoints import Skeleton
from odkeras.labels import LabelMap
from odkeras.model.inference import GRAPH_REVISION, InferenceModel
from odkeras.model.weights import named_variables
from odkeras.version_dirs import reveal_version, version_dir, version_dirs

__all__ = [
    "EXPORT_INFO_PATH",
    "ExportInfo",
    "Publisher",
    "apply_retention",
    "graph_fingerprint",
    "read_export_info",
]


class Publisher:
    """Publishes versions of one model to one directory.

    The first version is a full `tf.saved_model.save`, which takes seconds. If a version with the same graph exists,
    `saved_model.pb` is copied from it and only the variables are written, in a fraction of a second. The copy is
    bit-exact when loaded, because the checkpoint keys of the variables depend only on the graph.

    Args:
        inference: the model; `publish` writes its current weights.
        export_dir: parent of the version directories; created if missing.
        label_map: its ids and names are stored in the metadata of each version.
        skeleton: stored there, too: the keypoints that the model predicts; None if it predicts none.
        clock: returns seconds since the epoch, for the version numbers.
    """

    def __init__(
        self,
        inference: InferenceModel,
        export_dir: Path,
        label_map: LabelMap,
        skeleton: Skeleton | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inference = inference
        self._export_dir = export_dir
        self._labels = tuple((label.id, label.name) for label in label_map.labels)
        self._skeleton = skeleton
        self._clock = clock
        self._graph = graph_fingerprint(inference.model_config)
        self._module = ServingModule(inference)
        self._checkpoint = tf.train.Checkpoint(self._module)

    def publish(self, step: int, *, learned: bool = True) -> int:
        """Publish the current weights as the next version, and return its number.

        The version is written to a temporary directory, synced to disk and then renamed. Version numbers are strictly
        increasing, even if the clock goes back.

        Args:
            step: global step of the weights.
            learned: see `ExportInfo`.

        Raises:
            CheckpointError: a weight is not finite; such a model cannot detect anything.
        """
        # The outputs cannot be checked instead: `InferenceModel.detect` turns invalid detections into padding.
        broken = [
            path
            for path, variable in named_variables(self._inference.model).items()
            if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable)))
        ]
        if broken:
            raise CheckpointError(
                f"not published: {len(broken)} of the model's weights are not finite, the first: {broken[0]}. A lower "
                "learning rate, or gradient_clipping_by_norm in train_config, prevents that"
            )
        self._export_dir.mkdir(parents=True, exist_ok=True)
        partial = self._export_dir / project.temporary_name()
        try:
            info = ExportInfo(step, self._graph, self._labels, learned=learned, skeleton=self._skeleton)
            self._write(partial, info)
            version = reveal_version(partial, self._export_dir, self._clock())
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        project.sync_to_disk(self._export_dir)
        return version

    def has_graph_of(self, info: ExportInfo | None) -> bool:
        """Whether a version with this metadata has the same graph as this model, so that `load` can read its weights.

        False for None.
        """
        return info is not None and info.graph == self._graph

    def load(self, version: int) -> None:
        """Load the weights of a version with the same graph into the model.

        Raises:
            CheckpointError: they cannot be read.
        """
        path = version_dir(self._export_dir, version) / "variables" / "variables"
        try:
            self._checkpoint.read(str(path)).expect_partial().assert_existing_objects_matched()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            raise CheckpointError(f"the weights of version {version} cannot be read: {error}") from error

    def _write(self, directory: Path, info: ExportInfo) -> None:
        template = self._find_template()
        if template is None:
            tf.saved_model.save(self._module, str(directory), signatures=self._module.signatures)
        else:
            (directory / "variables").mkdir(parents=True)
            shutil.copyfile(template / "saved_model.pb", directory / "saved_model.pb")
            self._checkpoint.write(str(directory / "variables" / "variables"))
        write_warmup_requests(directory, self._inference.static_size or (320, 320))
        write_export_info(directory, replace(info, graph_sha256=_sha256(directory / "saved_model.pb")))
        for path in [*directory.rglob("*"), directory]:
            project.sync_to_disk(path)

    def _find_template(self) -> Path | None:
        """The newest version with the same graph, whose file is whole; None if there is none."""
        for directory in reversed(version_dirs(self._export_dir).values()):
            info = read_export_info(directory)
            if info is not None and info.graph == self._graph and _is_whole(directory / "saved_model.pb", info):
                return directory
        return None


def _is_whole(path: Path, info: ExportInfo) -> bool:
    """Whether `saved_model.pb` can be copied: it is as it was written, or at least can be parsed."""
    try:
        if info.graph_sha256:
            return _sha256(path) == info.graph_sha256
        saved_model_pb2.SavedModel.FromString(path.read_bytes())
    except (OSError, DecodeError):
        return False
    return True


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def graph_fingerprint(model_config: Any) -> str:
    """A hash of everything that determines the exported graph: the model's configuration, the versions of TensorFlow
    and odkeras, and `GRAPH_REVISION`."""
    text = "\n".join([str(model_config), tf.__version__, __version__, str(GRAPH_REVISION)])
    return hashlib.sha256(text.encode()).hexdigest()


def apply_retention(export_dir: Path, keep: int, live: int | None = None) -> list[int]:
    """Delete all but the newest `keep` versions and the version being served.

    A directory name with leading zeros was not written by odkeras: such a version is neither counted nor deleted. A
    version is renamed before it is deleted, so that no server loads a partial one.

    Args:
        keep: number of versions to keep; <= 0 keeps all.
        live: the version being served; None if unknown.

    Returns:
        The deleted versions.
    """
    ours = {number: path for number, path in version_dirs(export_dir).items() if path.name == str(number)}
    deleted = project.plan_retention(list(ours), keep, () if live is None else (live,))
    for version in deleted:
        temporary = export_dir / f".tmp-deleted-{version}-{os.getpid()}"
        try:
            ours[version].rename(temporary)
        except FileNotFoundError:
            continue
        shutil.rmtree(temporary, ignore_errors=True)
    return list(deleted)
