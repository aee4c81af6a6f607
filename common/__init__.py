"""The same model in Equinox and in Flax NNX, behind one training API.

    from common import build, compare

    trainer = build(backend="flax")
    report = compare(build(backend="equinox"), trainer, xs, ys)

Names are imported on first use, so `import common` is fast and loads neither
library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.alignment import Alignment as Alignment
    from common.alignment import AlignmentError as AlignmentError
    from common.alignment import align as align
    from common.comparison.comparing import (
        EquivalenceError as EquivalenceError,
    )
    from common.comparison.comparing import (
        assert_equivalent as assert_equivalent,
    )
    from common.comparison.comparing import compare as compare
    from common.comparison.functions import diff as diff
    from common.comparison.report import Report as Report
    from common.comparison.steps import diff_steps as diff_steps
    from common.divergence import Diff as Diff
    from common.models import specs as specs
    from common.porting import Plan as Plan
    from common.porting import plan_port as plan_port
    from common.porting import port as port
    from common.porting import register_layer as register_layer
    from common.porting import register_stack as register_stack
    from common.registry import backends as backends
    from common.state import State as State
    from common.training.building import build as build
    from common.training.loading import load as load
    from common.training.trainer import Trainer as Trainer
    from common.views import as_equinox as as_equinox
    from common.views import as_nnx as as_nnx

_HOMES = {
    "Alignment": "common.alignment",
    "AlignmentError": "common.alignment",
    "Diff": "common.divergence",
    "EquivalenceError": "common.comparison.comparing",
    "Plan": "common.porting",
    "Report": "common.comparison.report",
    "State": "common.state",
    "Trainer": "common.training.trainer",
    "align": "common.alignment",
    "as_equinox": "common.views",
    "as_nnx": "common.views",
    "assert_equivalent": "common.comparison.comparing",
    "backends": "common.registry",
    "build": "common.training.building",
    "compare": "common.comparison.comparing",
    "diff": "common.comparison.functions",
    "diff_steps": "common.comparison.steps",
    "load": "common.training.loading",
    "plan_port": "common.porting",
    "port": "common.porting",
    "register_layer": "common.porting",
    "register_stack": "common.porting",
    "specs": "common.models",
}
__all__ = [
    "Alignment",
    "AlignmentError",
    "Diff",
    "EquivalenceError",
    "Plan",
    "Report",
    "State",
    "Trainer",
    "align",
    "as_equinox",
    "as_nnx",
    "assert_equivalent",
    "backends",
    "build",
    "compare",
    "diff",
    "diff_steps",
    "load",
    "plan_port",
    "port",
    "register_layer",
    "register_stack",
    "specs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'common' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
