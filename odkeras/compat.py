"""Make the Object Detection API, frozen at the end of 2022, run on today's TensorFlow, NumPy, protobuf and Pillow.

Call `prepare()` before the first `object_detection` import (and best before the first TensorFlow import):

    from odkeras import compat
    compat.prepare()
    from object_detection.builders import model_builder

Everything is patched in memory; no file is changed. Each shim replaces one thing that is missing, and its docstring
says why, usually with the release that removed it. A shim does nothing if the original is there. Works both for
`tf-object-detection-api` from PyPI and for a checkout of the API's repository on the Python path.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odkeras.errors import SetupError
from odkeras.logs import TENSORFLOW_REQUIREMENT
from odkeras.odapi import ODAPI_INSTALL_COMMAND

INSTALL_COMMAND = ODAPI_INSTALL_COMMAND

# The __init__ of these tf-models-official packages imports gin-config and most of the model garden, but the API needs
# only one optimizer and one backbone. Without gin-config they are registered as bare packages, which skips their
# __init__ while their submodules stay importable.
_BARE_OFFICIAL_PACKAGES = ("official.modeling", "official.modeling.optimization", "official.modeling.hyperparams")


def prepare() -> None:
    """Apply all shims that the Object Detection API needs. Idempotent.

    Sets TF_USE_LEGACY_KERAS=1 unless the environment already sets it.

    Raises:
        SetupError: TensorFlow is already running with Keras 3, or TensorFlow, tf-keras or the Object Detection API
            is not installed.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    _require("tensorflow", f"pip install '{TENSORFLOW_REQUIREMENT}'")
    _require("tf_keras", "pip install 'tf-keras>=2.21,<2.22'")
    _require("object_detection", INSTALL_COMMAND)
    _check_legacy_keras()
    _restore_numpy_aliases()
    _restore_estimator_modes()
    _restore_control_flow_ops()
    _restore_pillow_getsize()
    _provide_tensorflow_io()
    _provide_lvis_vis()
    _provide_official()
    _restore_resnet_builder()
    _convert_repeated_fields()


def _require(package: str, command: str) -> None:
    if package in sys.modules:
        return
    if importlib.util.find_spec(package) is None:
        raise SetupError(f"the Python package {package!r} is not installed; run: {command}")


def _check_legacy_keras() -> None:
    """Check that tf.keras is Keras 2, for which the API is written.

    TensorFlow 2.16 and later use Keras 3 unless TF_USE_LEGACY_KERAS selects tf-keras before the first use of Keras.
    """
    import tensorflow as tf

    if not tf.keras.Model.__module__.startswith("tf_keras"):
        import keras

        raise SetupError(
            f"TensorFlow is already running with Keras {keras.__version__}, but the Object Detection API needs Keras 2 "
            "(tf-keras); set TF_USE_LEGACY_KERAS=1 in the environment, or import odkeras.compat and call prepare() "
            "before anything uses tf.keras"
        )


def _put_back(owner: Any, name: str, value: Any) -> None:
    if not hasattr(owner, name):
        setattr(owner, name, value)


def _restore_numpy_aliases() -> None:
    """NumPy 1.24 removed `np.float` and 2.0 `np.NAN`; the Pascal, OpenImages and LVIS evaluators use them."""
    import numpy as np

    _put_back(np, "float", float)
    _put_back(np, "NAN", np.nan)


def _restore_estimator_modes() -> None:
    """TensorFlow 2.16 removed `tf.compat.v1.estimator`; the API's `inputs` and `model_lib` use its `ModeKeys` and
    classes in type annotations."""
    import tensorflow as tf

    if hasattr(tf.compat.v1, "estimator"):
        return

    class ModeKeys:
        TRAIN = "train"
        EVAL = "eval"
        PREDICT = "infer"

    def any_class(name: str) -> type:
        if name.startswith("__"):  # the import system probes __file__, __path__ and more, which must stay missing
            raise AttributeError(name)
        return type(name, (), {})

    module = _module("tensorflow.compat.v1.estimator", ModeKeys=ModeKeys, __getattr__=any_class)
    tf.compat.v1.estimator = module


def _restore_control_flow_ops() -> None:
    """`control_flow_ops.case` and `.cond` moved in about TensorFlow 2.14; tf-slim's record decoder uses them."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_ops

    _put_back(control_flow_ops, "case", tf.compat.v1.case)
    _put_back(control_flow_ops, "cond", tf.compat.v1.cond)


def _restore_pillow_getsize() -> None:
    """Pillow 10 removed `FreeTypeFont.getsize`; the API's box drawing uses it to place labels."""
    from PIL import ImageFont

    def getsize(self: ImageFont.FreeTypeFont, text: str) -> tuple[int, int]:
        _, _, right, bottom = self.getbbox(text)
        return int(right), int(bottom)

    for font in (ImageFont.FreeTypeFont, ImageFont.ImageFont):
        _put_back(font, "getsize", getsize)


def _provide_tensorflow_io() -> None:
    """Replace the one function of tensorflow-io that DeepMAC imports, `rgb_to_lab`. No tensorflow-io release supports
    TensorFlow later than 2.16.

    Source: IEC 61966-2-1 (sRGB) and CIE 15 (L*a*b*) with the D65 white point.
    """
    if importlib.util.find_spec("tensorflow_io") is not None:
        return
    color = types.SimpleNamespace(rgb_to_lab=_rgb_to_lab)
    _module("tensorflow_io", experimental=types.SimpleNamespace(color=color))


def _rgb_to_lab(image: Any) -> Any:
    """Convert sRGB in 0..1, shape (..., 3), to CIE L*a*b* (D65, 2 degree observer): same shape, float32."""
    import tensorflow as tf

    rgb = tf.cast(image, tf.float32)
    linear = tf.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = tf.constant(
        [[0.412453, 0.212671, 0.019334], [0.357580, 0.715160, 0.119193], [0.180423, 0.072169, 0.950227]], tf.float32
    )
    white = tf.constant([0.95047, 1.0, 1.08883], tf.float32)
    xyz = tf.tensordot(linear, to_xyz, axes=1) / white
    f = tf.where(xyz > 0.008856, tf.maximum(xyz, 1e-12) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = tf.unstack(f, axis=-1)
    return tf.stack([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)], axis=-1)


def _provide_lvis_vis() -> None:
    """Stub `lvis.vis`, a drawing module that imports OpenCV and that evaluation never uses."""
    if importlib.util.find_spec("lvis") is None:
        return  # the API's eval_util imports it unconditionally; its ImportError then names lvis
    if "lvis" not in sys.modules:
        _module("lvis.vis", LVISVis=type("LVISVis", (), {}))


def _provide_official() -> None:
    """Make every model that needs neither EfficientNet nor the moving-average optimizer buildable without the model
    garden (tf-models-official), which supplies these two."""
    spec = importlib.util.find_spec("official")
    if spec is None or spec.submodule_search_locations is None:
        _stub_official()
    elif spec.submodule_search_locations and importlib.util.find_spec("gin") is None:  # empty for our own stub
        root = Path(next(iter(spec.submodule_search_locations)))
        for name in _BARE_OFFICIAL_PACKAGES:
            if name not in sys.modules:
                _module(name, __path__=[str(root.joinpath(*name.split(".")[1:]))])


def _stub_official() -> None:
    def missing(*_args: Any, **_kwargs: Any) -> Any:
        raise SetupError(
            "this pipeline.config uses EfficientNet or a moving average, which come from the Python package "
            f"tf-models-official; run: {INSTALL_COMMAND}"
        )

    for name in (
        "official",
        *_BARE_OFFICIAL_PACKAGES[:2],
        "official.legacy",
        "official.legacy.image_classification",
        "official.legacy.image_classification.efficientnet",
    ):
        _module(name, __path__=[])
    _module("official.modeling.optimization.ema_optimizer", ExponentialMovingAverage=missing)
    model = types.SimpleNamespace(from_name=missing)
    _module("official.legacy.image_classification.efficientnet.efficientnet_model", EfficientNet=model)


def _restore_resnet_builder() -> None:
    """Keras 2.13 moved the private `ResNet` builder; CenterNet builds ResNet-18 and ResNet-34 with it."""
    from object_detection.models.keras_models import resnet_v1
    from tf_keras.src.applications import resnet

    if not hasattr(resnet_v1.resnet, "ResNet"):
        resnet_v1.resnet = resnet


def _convert_repeated_fields() -> None:
    """TensorFlow does not take a repeated field of today's protobuf for a list: `subtract_channel_mean` failed."""
    from object_detection.builders import preprocessor_builder

    original = preprocessor_builder._get_dict_from_proto
    if hasattr(original, "converts_repeated_fields"):
        return

    def with_lists(config: Any) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
            for name, value in original(config).items()
        }

    with_lists.converts_repeated_fields = True  # type: ignore[attr-defined]
    preprocessor_builder._get_dict_from_proto = with_lists


def _module(name: str, **attributes: Any) -> types.ModuleType:
    """Create a module with these attributes and register it in `sys.modules` and in its parent."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    module.__spec__ = importlib.util.spec_from_loader(name, loader=None, is_package="__path__" in attributes)
    if "__path__" in attributes:
        module.__path__ = attributes["__path__"]
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], child, module)
    return module
