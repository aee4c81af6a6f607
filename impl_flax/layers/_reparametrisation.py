"""A SpectralNorm and a WeightNorm that leave the weight they wrap alone.

The first keeps its estimates in `nnx.BatchStat` and answers to `train()`,
`eval()` and `nnx.view`; the second trains its lengths, as an `nnx.Param`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class SpectralNorm(nnx.Module):
    """Calls a layer with its kernel divided by its largest singular value.

    The wrapped Param is never written to: the layer is called through a copy
    that holds the divided kernel. `nnx.SpectralNorm` overwrites the Param at
    every call, also in evaluation (flax #5576).

    Reference: Miyato et al., "Spectral Normalization for Generative
        Adversarial Networks", 2018, arXiv:1802.05957.
    """

    def __init__(
        self,
        layer: Any,
        *,
        n_steps: int = 1,
        epsilon: float = 1e-12,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
    ):
        """Wraps a layer that has a `kernel`.

        Args:
            layer: such as `nnx.Linear`, `nnx.Conv` or `nnx.ConvTranspose`;
                the axes of its kernel are (*kernel, in, out).
            n_steps: power iterations at each call in training.
            epsilon: smallest norm to divide by.
            use_running_average: whether to leave the estimates as they are.
            rngs: draws the first estimates.
        """
        _require_kernel("SpectralNorm", layer)
        matrix = self._matrix(layer.kernel[...])
        outputs, inputs = matrix.shape
        u = jax.random.normal(rngs.params(), (outputs,), matrix.dtype)
        v = jax.random.normal(rngs.params(), (inputs,), matrix.dtype)
        for _ in range(15):
            u, v = self._iterate(matrix, u, v, epsilon)
        self.layer = layer
        self.u = nnx.BatchStat(u)
        self.v = nnx.BatchStat(v)
        self.n_steps = n_steps
        self.epsilon = epsilon
        self.use_running_average = use_running_average

    def __call__(
        self,
        x: Float[Array, "B *S I"],
        use_running_average: bool | None = None,
    ) -> Float[Array, "B *S2 O"]:
        """Calls the layer; in training, improves the estimates first."""
        if use_running_average is None:
            use_running_average = self.use_running_average
        kernel = self.layer.kernel[...]
        matrix = self._matrix(kernel)
        u, v = self.u[...], self.v[...]
        if not use_running_average:
            stopped = lax.stop_gradient(matrix)
            for _ in range(self.n_steps):
                u, v = self._iterate(stopped, u, v, self.epsilon)
            self.u[...], self.v[...] = u, v
        return _with_kernel(self.layer, kernel / (u @ matrix @ v))(x)

    @staticmethod
    def _matrix(kernel: Array) -> Array:
        # (*kernel, in, out) -> (out, in * kernel), in PyTorch's order.
        *axes, i, o = range(kernel.ndim)
        kernel = jnp.transpose(kernel, (o, i, *axes))
        return kernel.reshape(kernel.shape[0], -1)

    @staticmethod
    def _iterate(matrix, u, v, epsilon):
        def normalize(t):
            return t / jnp.maximum(epsilon, jnp.linalg.norm(t))

        u = normalize(matrix @ v)
        return u, normalize(matrix.T @ u)

    def set_view(self, use_running_average: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
            use_running_average: whether to leave the estimates as they are.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


class WeightNorm(nnx.Module):
    """Calls a layer with `scale * kernel / |kernel|` as its kernel.

    The scale starts at the norm, so wrapping a layer does not change what it
    computes. `nnx.WeightNorm` overwrites the Param at every call, does not
    train its scales, and starts them at 1 (flax #5577).

    Reference: Salimans and Kingma, "Weight Normalization", 2016,
        arXiv:1602.07868.
    """

    def __init__(self, layer: Any, *, feature_axes: int | None = -1):
        """Wraps a layer that has a `kernel`.

        Args:
            layer: such as `nnx.Linear` or `nnx.Conv`.
            feature_axes: the kernel's axis along which there are many
                norms; -1 is the output's. One norm of all if `None`.
        """
        _require_kernel("WeightNorm", layer)
        self.layer = layer
        self.feature_axes = feature_axes
        self.scale = nnx.Param(self._norm(layer.kernel[...]))

    def __call__(self, x: Float[Array, "B *S I"]) -> Float[Array, "B *S2 O"]:
        """Calls the layer."""
        kernel = self.layer.kernel[...]
        kernel = self.scale[...] * kernel / self._norm(kernel)
        return _with_kernel(self.layer, kernel)(x)

    def _norm(self, kernel: Array) -> Array:
        axes = set(range(kernel.ndim))
        if self.feature_axes is not None:
            axes.remove(self.feature_axes % kernel.ndim)
        squares = jnp.square(kernel)
        return jnp.sqrt(jnp.sum(squares, tuple(axes), keepdims=True))


def _require_kernel(wrapper: str, layer: Any) -> None:
    kernel = getattr(layer, "kernel", None)
    if kernel is None or kernel.ndim < 2:
        raise ValueError(
            f"{wrapper} layer: got {type(layer).__name__}, expected one with "
            "a `kernel` of 2 axes or more. Wrap the layer in it that has one."
        )


def _with_kernel(layer: Any, kernel: Array) -> Any:
    """Returns a copy that shares all Variables but the kernel."""
    layer = nnx.clone(layer, variables=False)
    layer.kernel = nnx.Param(kernel)
    return layer
