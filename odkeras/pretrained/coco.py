"""The classes of COCO 2017, which the detectors of the model zoo are trained on. Ten of the ids up to 90 are unused."""

from __future__ import annotations

from odkeras.labels import Label, LabelMap

_NAMES = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, -,
    -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, dining table, -, -, toilet, -,
    tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, -, book, clock,
    vase, scissors, teddy bear, hair drier, toothbrush
"""

COCO_LABEL_MAP = LabelMap(
    tuple(Label(id, name) for id, name in enumerate(" ".join(_NAMES.split()).split(", "), start=1) if name != "-")
)
