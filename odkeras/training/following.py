"""A worker of a cluster that is not its chief: it trains with the others, and decides nothing.

It reads the answers' records at the chief's word, and writes nothing but temporary files. It needs no inbox and no
lock.
"""

from __future__ import annotations

import logging

import tensorflow as tf

from odkeras.config.settings import TrainingSettings
from odkeras.model.setup import Setup
from odkeras.pipeline.class_history import ClassHistory, read_class_history
from odkeras.training.batch_size import set_batch_size
from odkeras.training.checkpoints import CheckpointStore
from odkeras.training.cluster import Cluster
from odkeras.training.crew import build_crew
from odkeras.training.feed import ExampleFeed
from odkeras.training.inputs import example_completion
from odkeras.training.trainer import Trainer
from odkeras.training.unjudged import ExampleReader

_log = logging.getLogger(__name__)


def follow_chief(setup: Setup, settings: TrainingSettings, strategy: tf.distribute.Strategy, cluster: Cluster) -> None:
    """Train with the other workers until the chief ends.

    Raises:
        ClusterError: a worker was lost, or does not see the same directories.
    """
    directories, config = settings.project, setup.config
    _log.info("%s follows %s", cluster.spec.name_of(cluster.spec.index), cluster.spec.name_of(0))
    with cluster.watching():
        trainer = Trainer(config, strategy, precision=settings.precision)  # waits until the chief builds its own
        checkpoints = CheckpointStore(trainer, directories.model_dir, settings.max_checkpoints_num)
        history = read_class_history(directories) or ClassHistory()  # the chief has written it
        read = ExampleReader(example_completion(config, setup.label_map), setup.label_map, history)
        set_batch_size(config, settings, trainer, cluster)
        feed = ExampleFeed(read, directories, config.train_config.batch_size, cluster)
        crew = build_crew(config, trainer, checkpoints, feed, settings, strategy, cluster)
        crew.start()
        crew.follow()
