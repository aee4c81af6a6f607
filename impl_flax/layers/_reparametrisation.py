"""A SpectralNorm that leaves the weight it wraps alone.

It keeps its estimates in `nnx.BatchStat` and answers to `train()`, `eval()`
and `nnx.view` like any stock layer.
"""

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
        layer: nnx.Linear,
        *,
        epsilon: float = 1e-12,
        use_running_average: bool = False,
        rngs: nnx.Rngs,
    ):
        """Wraps a layer that has a `kernel`.

        Args:
            layer: the layer; its kernel's last axis is the output.
            epsilon: smallest norm to divide by.
            use_running_average: whether to leave the estimates as they are.
            rngs: draws the first estimates.
        """
        kernel = layer.kernel[...]
        outputs, dtype = kernel.shape[-1], kernel.dtype
        u = jax.random.normal(rngs.params(), (outputs,), dtype)
        v = jax.random.normal(rngs.params(), (kernel.size // outputs,), dtype)
        for _ in range(15):
            u, v = self._iterate(self._matrix(kernel), u, v, epsilon)
        self.layer = layer
        self.u = nnx.BatchStat(u)
        self.v = nnx.BatchStat(v)
        self.epsilon = epsilon
        self.use_running_average = use_running_average

    def __call__(
        self,
        x: Float[Array, "*B I"],
        use_running_average: bool | None = None,
    ) -> Float[Array, "*B O"]:
        """Calls the layer; in training, improves the estimates first."""
        if use_running_average is None:
            use_running_average = self.use_running_average
        kernel = self.layer.kernel[...]
        matrix = self._matrix(kernel)
        u, v = self.u[...], self.v[...]
        if not use_running_average:
            u, v = self._iterate(lax.stop_gradient(matrix), u, v, self.epsilon)
            self.u[...], self.v[...] = u, v
        sigma = u @ matrix @ v
        # The copy shares all Variables but the kernel.
        layer = nnx.clone(self.layer, variables=False)
        layer.kernel = nnx.Param(kernel / sigma)
        return layer(x)

    @staticmethod
    def _matrix(kernel: Array) -> Array:
        # (..., out) -> (out, ...)
        return jnp.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)

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
