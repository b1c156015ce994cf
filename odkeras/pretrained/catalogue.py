"""The pretrained weights that have a name, with their published figures.

Sources: the model zoo's page (tf2_detection_zoo.md in tensorflow/models), keras.io/api/applications, and the MD5 sums
in tf_keras.applications. Archive sizes are those that downloads have reported.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from odkeras.errors import ConfigError

ZOO_ADDRESS = "http://download.tensorflow.org/models/object_detection/tf2"
KERAS_ADDRESS = "https://storage.googleapis.com"

_TRAINING_HARDWARE = re.compile(r"_coco17_[tg]pu-\d+$")
_KEYPOINTS = "boxes, keypoints"


@dataclass(frozen=True)
class ZooModel:
    """A detector trained on COCO.

    Args:
        archive_name: file name of the archive without ".tar.gz".
        date: folder of the archive below the zoo's address.
        input_size: height x width of the images in pixels.
        coco_map: COCO mAP in percent as published: of boxes, and after a slash of masks or keypoints. "" if unknown.
        speed_ms: published milliseconds per image, on the zoo's own GPU; None if unknown.
        outputs: what the published model predicts. `odkeras init` leaves out keypoints, because the labels that
            it is given do not name them.
        archive_bytes: size of the archive; None if unknown.
    """

    archive_name: str
    date: str
    input_size: str
    coco_map: str
    speed_ms: int | None
    outputs: str = "boxes"
    archive_bytes: int | None = None

    @property
    def name(self) -> str:
        """The archive's name without data set and hardware of the training: ssd_mobilenet_v2_fpnlite_320x320."""
        return _TRAINING_HARDWARE.sub("", self.archive_name).removesuffix("_coco17")

    @property
    def file_name(self) -> str:
        return f"{self.archive_name}.tar.gz"

    @property
    def fits_cpu(self) -> bool:
        """Whether a round of 100 steps takes a minute or two on two CPU cores.

        Measured with the training of `odkeras init`: SSD with MobileNetV2 takes less than a second a step at both
        sizes, CenterNet with MobileNetV2 three times as long, and MobileNetV1 with its wide pyramid ten times.
        """
        return self.archive_name.startswith("ssd_mobilenet_v2")


@dataclass(frozen=True)
class Backbone:
    """A network trained to classify ImageNet, without its classification layer.

    Args:
        name: its name here.
        application: the function of tf_keras.applications that builds it.
        path: path of the weights file below Keras' address.
        md5: published checksum of the file; "" if none is published.
        top1: ImageNet top-1 accuracy in percent.
        template: the template of configs/ that it goes into by default.
        feature_extractors: the API's feature extractors that contain it. The first of the template's meta-architecture
            replaces the template's own.
    """

    name: str
    application: str
    path: str
    md5: str
    top1: float
    template: str
    feature_extractors: tuple[str, ...]

    @property
    def file_name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def fits_cpu(self) -> bool:
        return self.application == "MobileNetV2"


ZOO = (
    ZooModel("ssd_mobilenet_v2_320x320_coco17_tpu-8", "20200711", "320x320", "20.2", 19),
    ZooModel("ssd_mobilenet_v2_fpnlite_320x320_coco17_tpu-8", "20200711", "320x320", "22.2", 22),
    ZooModel("ssd_mobilenet_v2_fpnlite_640x640_coco17_tpu-8", "20200711", "640x640", "28.2", 39),
    ZooModel("ssd_mobilenet_v1_fpn_640x640_coco17_tpu-8", "20200711", "640x640", "29.1", 48),
    ZooModel("ssd_resnet50_v1_fpn_640x640_coco17_tpu-8", "20200711", "640x640", "34.3", 46),
    ZooModel("ssd_resnet50_v1_fpn_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "38.3", 87),
    ZooModel("ssd_resnet101_v1_fpn_640x640_coco17_tpu-8", "20200711", "640x640", "35.6", 57),
    ZooModel("ssd_resnet101_v1_fpn_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "39.5", 104),
    ZooModel("ssd_resnet152_v1_fpn_640x640_coco17_tpu-8", "20200711", "640x640", "35.4", 80),
    ZooModel("ssd_resnet152_v1_fpn_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "39.6", 111),
    ZooModel("efficientdet_d0_coco17_tpu-32", "20200711", "512x512", "33.6", 39),
    ZooModel("efficientdet_d1_coco17_tpu-32", "20200711", "640x640", "38.4", 54),
    ZooModel("efficientdet_d2_coco17_tpu-32", "20200711", "768x768", "41.8", 67),
    ZooModel("efficientdet_d3_coco17_tpu-32", "20200711", "896x896", "45.4", 95, archive_bytes=92_858_658),
    ZooModel("efficientdet_d4_coco17_tpu-32", "20200711", "1024x1024", "48.5", 133),
    ZooModel("efficientdet_d5_coco17_tpu-32", "20200711", "1280x1280", "49.7", 222),
    ZooModel("efficientdet_d6_coco17_tpu-32", "20200711", "1280x1280", "50.5", 268),
    ZooModel("efficientdet_d7_coco17_tpu-32", "20200711", "1536x1536", "51.2", 325),
    ZooModel("centernet_mobilenetv2fpn_512x512_coco17_od", "20210210", "512x512", "23.4", 6),
    # The published 41.7 stands alone. Since the same network has 23.4 for boxes, it is that of the keypoints.
    ZooModel("centernet_mobilenetv2fpn_512x512_coco17_kpts", "20210210", "512x512", "-/41.7", 6, _KEYPOINTS),
    ZooModel("centernet_resnet50_v1_fpn_512x512_coco17_tpu-8", "20200711", "512x512", "31.2", 27),
    ZooModel("centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8", "20200711", "512x512", "29.3/50.7", 30, _KEYPOINTS),
    ZooModel("centernet_resnet101_v1_fpn_512x512_coco17_tpu-8", "20200711", "512x512", "34.2", 34),
    ZooModel("centernet_resnet50_v2_512x512_coco17_tpu-8", "20200711", "512x512", "29.5", 27),
    ZooModel("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8", "20200711", "512x512", "27.6/48.2", 30, _KEYPOINTS),
    ZooModel("centernet_hg104_512x512_coco17_tpu-8", "20200713", "512x512", "41.9", 70),
    ZooModel("centernet_hg104_512x512_kpts_coco17_tpu-32", "20200711", "512x512", "40.0/61.4", 76, _KEYPOINTS),
    ZooModel("centernet_hg104_1024x1024_coco17_tpu-32", "20200713", "1024x1024", "44.5", 197),
    ZooModel("centernet_hg104_1024x1024_kpts_coco17_tpu-32", "20200711", "1024x1024", "42.8/64.5", 211, _KEYPOINTS),
    ZooModel(
        "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8", "20200711", "640x640", "29.3", 53, archive_bytes=211_996_178
    ),
    ZooModel("faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8", "20200711", "800x1333", "31.6", 65),
    ZooModel("faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "31.0", 65),
    ZooModel("faster_rcnn_resnet101_v1_640x640_coco17_tpu-8", "20200711", "640x640", "31.8", 55),
    ZooModel("faster_rcnn_resnet101_v1_800x1333_coco17_gpu-8", "20200711", "800x1333", "36.6", 77),
    ZooModel("faster_rcnn_resnet101_v1_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "37.1", 72),
    ZooModel("faster_rcnn_resnet152_v1_640x640_coco17_tpu-8", "20200711", "640x640", "32.4", 64),
    ZooModel("faster_rcnn_resnet152_v1_800x1333_coco17_gpu-8", "20200711", "800x1333", "37.4", 101),
    ZooModel("faster_rcnn_resnet152_v1_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "37.6", 85),
    ZooModel("faster_rcnn_inception_resnet_v2_640x640_coco17_tpu-8", "20200711", "640x640", "37.7", 206),
    ZooModel("faster_rcnn_inception_resnet_v2_1024x1024_coco17_tpu-8", "20200711", "1024x1024", "38.7", 236),
    ZooModel(
        "mask_rcnn_inception_resnet_v2_1024x1024_coco17_gpu-8",
        "20200711",
        "1024x1024",
        "39.0/34.6",
        301,
        "boxes, masks",
    ),
    ZooModel("extremenet", "20210507", "", "", None),
)


def _resnet(depth: int, md5: str, top1: float, centernet: tuple[str, ...]) -> Backbone:
    return Backbone(
        f"resnet{depth}_imagenet",
        f"ResNet{depth}",
        f"tensorflow/keras-applications/resnet/resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5,
        top1,
        "faster_rcnn_resnet50_640",
        (f"faster_rcnn_resnet{depth}_keras", f"ssd_resnet{depth}_v1_fpn_keras", *centernet),
    )


def _resnet_v2(depth: int, md5: str, top1: float) -> Backbone:
    return Backbone(
        f"resnet{depth}_v2_imagenet",
        f"ResNet{depth}V2",
        f"tensorflow/keras-applications/resnet/resnet{depth}v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5,
        top1,
        "centernet_resnet50_512",
        (f"resnet_v2_{depth}",),
    )


def _efficientnet(size: int, md5: str, top1: float) -> Backbone:
    return Backbone(
        f"efficientnet_b{size}_imagenet",
        f"EfficientNetB{size}",
        f"keras-applications/efficientnetb{size}_notop.h5",
        md5,
        top1,
        "efficientdet_d0_512",
        (f"ssd_efficientnet-b{size}_bifpn_keras",),
    )


BACKBONES = (
    Backbone(
        "mobilenet_v2_imagenet",
        "MobileNetV2",
        "tensorflow/keras-applications/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        "",
        71.3,
        "ssd_mobilenet_v2_fpnlite_320",
        ("ssd_mobilenet_v2_fpn_keras", "ssd_mobilenet_v2_keras"),
    ),
    _resnet(50, "4d473c1dd8becc155b73f8504c6f6626", 74.9, ("resnet_v1_50_fpn",)),
    _resnet(101, "88cf7a10940856eca736dc7b7e228a21", 76.4, ("resnet_v1_101_fpn",)),
    _resnet(152, "ee4c566cf9a93f14d82f913c2dc6dd0c", 76.6, ()),
    _resnet_v2(50, "fac2f116257151a9d068a22e544a4917", 76.0),
    _resnet_v2(101, "c0ed64b8031c3730f411d2eb4eea35b5", 77.2),
    _efficientnet(0, "50bc09e76180e00e4465e1a485ddc09d", 77.1),
    _efficientnet(1, "74c4e6b3e1f6a1eea24c589628592432", 79.1),
    _efficientnet(2, "111f8e2ac8aa800a7a99e3239f7bfb39", 80.1),
    _efficientnet(3, "af6d107764bb5b1abb91932881670226", 81.6),
    _efficientnet(4, "ebc24e6d6c33eaebbd558eafbeedf1ba", 82.9),
    _efficientnet(5, "38879255a25d3c92d5e44e04ae6cec6f", 83.6),
    _efficientnet(6, "9ecce42647a20130c1f39a5d4cb75743", 84.0),
    _efficientnet(7, "cbcfe4450ddf6f3ad90b1b398090fe4a", 84.3),
)


def find_weights(name: str) -> ZooModel | Backbone:
    """The weights of that name; of a detector also by the full name of its archive.

    Raises:
        ConfigError: no such name; the message suggests similar ones.
    """
    by_name: dict[str, ZooModel | Backbone] = {each.name: each for each in (*ZOO, *BACKBONES)}
    by_name |= {model.archive_name: model for model in ZOO}
    key = name.strip().lower().removesuffix(".tar.gz")
    if key in by_name:
        return by_name[key]
    matches = list(dict.fromkeys(by_name[near].name for near in difflib.get_close_matches(key, by_name, n=6)))[:3]
    hint = f"did you mean {' or '.join(matches)}? " if matches else ""
    raise ConfigError(
        f"no weights are named {name!r}, and no such file exists; {hint}`odkeras weights list` shows all names"
    )
