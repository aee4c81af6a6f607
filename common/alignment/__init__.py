"""Finds which array of one model is which of another, by running both.

Both models are filled with values that do not depend on the order of axes, so
that they hold "the same weights" before any mapping is known. Gradients then
tell the arrays and their orientations apart, and random weights carried
through the mapping prove the result.
"""

from common.alignment.functions import align as align
from common.alignment.functions import (
    symmetric_arguments as symmetric_arguments,
)
from common.alignment.result import Alignment as Alignment
from common.alignment.result import AlignmentError as AlignmentError
