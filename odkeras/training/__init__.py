"""Training: the step, the rounds of the loop, evaluation, summaries."""

from odkeras import compat

compat.prepare()
