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
    from common.comparison.functions import diff as diff
    from common.comparison.comparing import (
        EquivalenceError as EquivalenceError,
    )
    from common.comparison.comparing import (
        assert_equivalent as assert_equivalent,
    )
    from common.comparison.comparing import compare as compare
    from common.comparison.report import Report as Report
    from common.comparison.steps import diff_steps as diff_steps
    from common.divergence import Diff as Diff
    from common.models import specs as specs
    from common.registry import backends as backends
    from common.state import State as State
    from common.training.building import build as build
    from common.training.trainer import Trainer as Trainer

_HOMES = {
    "Diff": "common.divergence",
    "EquivalenceError": "common.comparison.comparing",
    "Report": "common.comparison.report",
    "State": "common.state",
    "Trainer": "common.training.trainer",
    "assert_equivalent": "common.comparison.comparing",
    "backends": "common.registry",
    "build": "common.training.building",
    "compare": "common.comparison.comparing",
    "diff": "common.comparison.functions",
    "diff_steps": "common.comparison.steps",
    "specs": "common.models",
}
__all__ = [
    "Diff",
    "EquivalenceError",
    "Report",
    "State",
    "Trainer",
    "assert_equivalent",
    "backends",
    "build",
    "compare",
    "diff",
    "diff_steps",
    "specs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'common' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
