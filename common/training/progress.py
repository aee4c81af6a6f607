"""The progress bar of `fit`."""

from collections.abc import Mapping

import numpy as np

from common.rendering.progress import ProgressBar


class Progress:
    """A progress bar on the terminal's error stream."""

    def __init__(self, steps: int, *, enabled: bool):
        self._bar = ProgressBar(steps, "epoch 0", enabled=enabled)

    def advance(self, epoch: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Advances by a chunk of steps and shows the mean of its metrics."""
        means = [f"{name} {np.mean(x):.4g}" for name, x in metrics.items()]
        self._bar.describe(f"epoch {epoch}", " ".join(means))
        self._bar.advance(len(metrics["loss"]))

    def __enter__(self) -> "Progress":
        self._bar.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._bar.__exit__(*error)
