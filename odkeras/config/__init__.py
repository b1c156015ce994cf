"""Every option, declared once: `settings` declares, `option` checks, `sources` reads environment and project file."""

from odkeras.config.settings import AnnotateSettings, SessionSettings, TrainingSettings, declared_options

__all__ = ["AnnotateSettings", "SessionSettings", "TrainingSettings", "declared_options"]
