"""Finds the two source lines where two JAX programs diverge."""

from common.divergence.result import Diff as Diff
from common.divergence.search import find_divergence as find_divergence
