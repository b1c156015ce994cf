from __future__ import annotations

import pytest

from odkeras.doctor import probe_tensorflow

pytestmark = pytest.mark.integration


def test_the_installed_tensorflow_answers() -> None:
    """tf.keras has no __version__ when it is tf-keras: a probe that asked for it called all installations broken."""
    probe = probe_tensorflow()
    assert probe.error == ""
    assert (probe.tensorflow[:5], probe.keras) == ("2.21.", "tf_keras")
