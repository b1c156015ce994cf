"""Publishing: a version directory appears whole, under the next larger number, or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from odkeras import __version__, project
from odkeras.errors import CheckpointError
from odkeras.export.info import EXPORT_INFO_PATH, ExportInfo, read_export_info, write_export_info
from odkeras.export.signatures import ServingModule
from odkeras.export.warmup import write_warmup_requests
from odkeras.labels import LabelMap
from odkeras.model.inference import GRAPH_REVISION, InferenceModel
from odkeras.model.weights import named_variables

__all__ = [
    "EXPORT_INFO_PATH",
    "ExportInfo",
    "Publisher",
    "apply_retention",
    "graph_fingerprint",
    "read_export_info",
]


class Publisher:
    """Writes versions of one model below one directory.

    The first one is a full `tf.saved_model.save` (seconds), unless a version of the same graph is there already;
    every later one copies `saved_model.pb` and writes the variables alone (a fraction of a second). A copy loads
    bit-exact, because the keys of the variables in the checkpoint depend on the graph only.

    Args:
        inference: the model; its weights at the time of `publish` are what is written.
        export_dir: parent of the version directories; created when missing.
        label_map: written beside each version.
        clock: seconds since the epoch; version numbers come from it.
    """

    def __init__(
        self,
        inference: InferenceModel,
        export_dir: Path,
        label_map: LabelMap,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inference = inference
        self._export_dir = export_dir
        self._labels = tuple((label.id, label.name) for label in label_map.labels)
        self._clock = clock
        self._graph = graph_fingerprint(inference.model_config)
        self._module = ServingModule(inference)
        self._checkpoint = tf.train.Checkpoint(self._module)

    def publish(self, step: int, *, learned: bool = True) -> int:
        """Write the current weights as the next version and return its number; see `ExportInfo` for the arguments.

        The version appears by a rename when it is complete and on disk. Versions are strictly increasing, also when
        the clock goes back.

        Raises:
            CheckpointError: weights are not finite, so that the version could not detect anything.
        """
        _check_finite(self._inference)
        self._export_dir.mkdir(parents=True, exist_ok=True)
        partial = self._export_dir / f"{project.TEMPORARY_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            self._write(partial, ExportInfo(step, self._graph, self._labels, learned=learned))
            version = project.reveal_version(partial, self._export_dir, self._clock())
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        project.sync_to_disk(self._export_dir)
        return version

    def takes(self, info: ExportInfo | None) -> bool:
        """Whether a version that says this of itself is of the same graph, so that `load` can read its weights."""
        return info is not None and info.graph == self._graph

    def load(self, version: int) -> None:
        """Give the model the weights of a version of the same graph.

        Raises:
            CheckpointError: they cannot be read.
        """
        path = project.version_dir(self._export_dir, version) / "variables" / "variables"
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
        write_export_info(directory, info)
        _sync_tree(directory)

    def _find_template(self) -> Path | None:
        """The newest version of the same graph."""
        for directory in reversed(project.version_dirs(self._export_dir).values()):
            info = read_export_info(directory)
            if info is not None and info.graph == self._graph and (directory / "saved_model.pb").is_file():
                return directory
        return None


def _check_finite(inference: InferenceModel) -> None:
    """The outputs need no check of their own: `InferenceModel.detect` gives none that is not finite."""
    broken = [
        path
        for path, variable in named_variables(inference.model).items()
        if variable.dtype.is_floating and not bool(tf.reduce_all(tf.math.is_finite(variable)))
    ]
    if broken:
        raise CheckpointError(
            f"not published: {len(broken)} of the model's weights are not finite, the first: {broken[0]}. A lower "
            "learning rate, or gradient_clipping_by_norm in train_config, prevents that"
        )


def graph_fingerprint(model_config: Any) -> str:
    """Hash of what decides the exported graph: the model's configuration, TensorFlow's version and ours."""
    text = "\n".join([str(model_config), tf.__version__, __version__, str(GRAPH_REVISION)])
    return hashlib.sha256(text.encode()).hexdigest()


def apply_retention(export_dir: Path, keep: int, live: int | None = None) -> list[int]:
    """Delete all but the newest `keep` versions; the version being served (`live`) stays. Returns the deleted ones.

    A directory whose name has leading zeros is not counted and stays: odkeras did not write it. A version disappears by
    a rename first, so that no server ever loads half of one.
    """
    ours = {number: path for number, path in project.version_dirs(export_dir).items() if path.name == str(number)}
    doomed = project.plan_retention(list(ours), keep, () if live is None else (live,))
    for version in doomed:
        grave = export_dir / f".tmp-deleted-{version}-{os.getpid()}"
        try:
            ours[version].rename(grave)
        except FileNotFoundError:
            continue
        shutil.rmtree(grave, ignore_errors=True)
    return list(doomed)


def _sync_tree(directory: Path) -> None:
    for path in [*directory.rglob("*"), directory]:
        project.sync_to_disk(path)
