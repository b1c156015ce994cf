"""Every option, declared once. Classes of settings declare, `option` checks, `commands` lists those of each command,
and `sources` reads environment and project file."""

from odkeras.config.annotate import AnnotateSettings
from odkeras.config.commands import declared_options
from odkeras.config.settings import SessionSettings, TrainingSettings
from odkeras.config.simulation import SimulationSettings

__all__ = ["AnnotateSettings", "SessionSettings", "SimulationSettings", "TrainingSettings", "declared_options"]
