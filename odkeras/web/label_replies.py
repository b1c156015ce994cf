"""The labels as the page gets them: their colours and keypoints."""

from __future__ import annotations

from odkeras.colours import colour_of
from odkeras.errors import OdkerasError
from odkeras.pipeline import load_pipeline
from odkeras.pipeline.class_history import read_class_history
from odkeras.session.setup import SessionSetup
from odkeras.web import replies


def label_replies(setup: SessionSetup) -> list[replies.Label]:
    """The labels that the annotator can choose from. The config's `eval_config.keypoint_edge` joins their keypoints."""
    edges, history = _edges(setup), read_class_history(setup.project)
    colours = history.colours if history is not None else {}
    labels = []
    for number, name in enumerate(setup.labels):
        named = sorted(setup.label_map.keypoints_of(setup.label_map.id_of(name)))
        places = {id: place for place, (id, _) in enumerate(named)}
        own = [(places[a], places[b]) for a, b in edges if a in places and b in places]
        colour = colours.get(setup.label_map.name_of(setup.label_map.id_of(name)), colour_of(number))
        labels.append(replies.Label(name, colour, [keypoint for _, keypoint in named], own))
    return labels


def _edges(setup: SessionSetup) -> list[tuple[int, int]]:
    """Pairs of ids of keypoints; none if the config cannot be read, which the trainer reports."""
    try:
        config = load_pipeline(setup.options.config)
    except OdkerasError:
        return []
    return [(int(edge.start), int(edge.end)) for edge in config.eval_config.keypoint_edge]
