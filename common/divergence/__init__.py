"""Finds the two source lines where two JAX programs part."""

from common.divergence.difference import Diff as Diff
from common.divergence.difference import diff as diff
from common.divergence.steps import diff_steps as diff_steps
