"""The options of each command."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from odkeras.config.annotate import AnnotateSettings
from odkeras.config.bulk import BulkPredictSettings, BulkSettings
from odkeras.config.cost import CostModel
from odkeras.config.downloads import DownloadSettings
from odkeras.config.option import Declared, declared_in
from odkeras.config.run import RunConfig
from odkeras.config.serving import (
    PredictSettings,
    RollbackSettings,
    ServerSettings,
    ServingmodelSettings,
    UploadSettings,
)
from odkeras.config.settings import TrainingSettings
from odkeras.config.simulation import SimulationSettings

IN_A_PROJECT: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "annotate": (AnnotateSettings,),
    "recipe": (AnnotateSettings,),
    "simulate": (SimulationSettings,),
    "trainer": (RunConfig,),
    "train": (TrainingSettings,),
    "eval": (TrainingSettings,),
    "export": (TrainingSettings,),
    "training": (TrainingSettings,),
    "labels": (TrainingSettings,),
    "stats": (TrainingSettings, CostModel),
    "db": (AnnotateSettings,),
}
"""The commands that read the project file, and where their options are declared."""

WITHOUT_A_PROJECT: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "serve": (ServerSettings, TrainingSettings),
    "predict": (PredictSettings,),
    "rollback": (RollbackSettings,),
    "upload": (UploadSettings,),
    "servingmodel": (ServingmodelSettings,),
    "bulk-predict": (BulkPredictSettings,),
    "bulk-records": (BulkSettings,),
    "bulk-import": (BulkSettings, AnnotateSettings),
    "bulk-hash": (BulkSettings,),
    "init": (DownloadSettings,),
    "weights": (DownloadSettings,),
}


def declared_options(*commands: str) -> Iterator[Declared]:
    """The options of these commands, or of all when none is named: arguments first, then in the order of declaration.
    Of several with the same name, the first."""
    known = IN_A_PROJECT | WITHOUT_A_PROJECT
    options: dict[str, Declared] = {}
    for command in commands or known:
        declared = [each for settings in known[command] for each in declared_in(settings, command)]
        for each in sorted(declared, key=lambda each: each.option.argument_of.get(command, len(declared))):
            options.setdefault(each.name, each)
    yield from options.values()
