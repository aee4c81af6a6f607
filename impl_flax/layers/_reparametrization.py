"""Spectral and weight normalization that do not overwrite the wrapped weight.

`SpectralNorm` stores its estimates in `nnx.BatchStat`s, and respects
`train()`, `eval()` and `nnx.view`. `WeightNorm` trains its norms, which are an
`nnx.Param`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class SpectralNorm(nnx.Module):
    r"""Divides the kernel of a layer by an estimate of its spectral norm.

    .. math::
        \bar{W} = \frac{W}{u^\top W v}, \qquad
        u \leftarrow \frac{W v}{\|W v\|}, \qquad
        v \leftarrow \frac{W^\top u}{\|W^\top u\|}

    The vectors :math:`u` and :math:`v` converge to the singular vectors of
    the largest singular value, and are updated once for each power iteration.
    The wrapped `nnx.Param` is not modified: the layer is called through a
    copy with the normalized kernel. `nnx.SpectralNorm` overwrites the
    parameter in every call, including calls in evaluation mode (flax #5576).

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import SpectralNorm
        >>> rngs = nnx.Rngs(0)
        >>> linear = nnx.Linear(3, 4, rngs=rngs)
        >>> kernel = linear.kernel[...]
        >>> spectral_linear = SpectralNorm(linear, rngs=rngs)
        >>> spectral_linear(jnp.ones((5, 3))).shape
        (5, 4)
        >>> bool((linear.kernel[...] == kernel).all())
        True

    References:
        Miyato et al., "Spectral Normalization for Generative Adversarial
        Networks", 2018, arXiv:1802.05957. Counterpart:
        `equinox.nn.SpectralNorm`.
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
            layer: an `nnx.LinearGeneral` without `batch_axis`, an
                `nnx.ConvTranspose`, or a layer such as `nnx.Linear` and
                `nnx.Conv` whose kernel has the axes (*kernel, in, out). The
                rows of the matrix are the output features.
            n_steps: the number of power iterations of a training call.
            epsilon: the smallest norm to divide by.
            use_running_average: whether to use the stored estimates without
                updating them.
            rngs: the streams of the initial estimates.

        Raises:
            ValueError: if the layer has no `kernel` with two or more axes, or
                if its kernel is not a single matrix.
        """
        _require_kernel("SpectralNorm", layer)
        if isinstance(layer, nnx.Einsum) or getattr(layer, "batch_axis", None):
            raise ValueError(
                f"SpectralNorm layer: got {type(layer).__name__}, expected "
                "one whose kernel is a single matrix. Wrap an nnx.Linear, an "
                "nnx.LinearGeneral without `batch_axis`, or a convolution."
            )
        matrix = _matrix(layer, layer.kernel[...])
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
        """Calls the layer, and during training updates the estimates first.

        Args:
            x: the batch.
            use_running_average: overrides `self.use_running_average`.
        """
        if use_running_average is None:
            use_running_average = self.use_running_average
        kernel = self.layer.kernel[...]
        matrix = _matrix(self.layer, kernel)
        u, v = self.u[...], self.v[...]
        if not use_running_average:
            stopped = lax.stop_gradient(matrix)
            for _ in range(self.n_steps):
                u, v = self._iterate(stopped, u, v, self.epsilon)
            self.u[...], self.v[...] = u, v
        return _with_kernel(self.layer, kernel / (u @ matrix @ v))(x)

    @staticmethod
    def _iterate(matrix, u, v, epsilon):
        def normalize(t):
            return t / jnp.maximum(epsilon, jnp.linalg.norm(t))

        u = normalize(matrix @ v)
        return u, normalize(matrix.T @ u)

    def set_view(self, use_running_average: bool | None = None):
        """Class method used by `nnx.view`.

        Args:
            use_running_average: whether to use the stored estimates without
                updating them.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average


class WeightNorm(nnx.Module):
    r"""Separates the norm of a layer's kernel from its direction.

    .. math::
        \bar{W} = g \frac{W}{\|W\|}

    The scale :math:`g` is initialized to :math:`\|W\|`, so wrapping a layer
    does not change its outputs. `nnx.WeightNorm` overwrites the wrapped
    parameter in every call, does not train its scales, and initializes them
    to 1 (flax #5577).

    Example:

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from impl_flax.layers import WeightNorm
        >>> layer = WeightNorm(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
        >>> layer(jnp.ones((5, 3))).shape
        (5, 4)
        >>> layer.scale.shape  # one norm for each output feature
        (1, 4)

    References:
        Salimans and Kingma, "Weight Normalization", 2016, arXiv:1602.07868.
        Counterpart: `equinox.nn.WeightNorm`.
    """

    def __init__(self, layer: Any, *, feature_axes: int | None = -1):
        """Wraps a layer that has a `kernel`.

        Args:
            layer: a layer such as `nnx.Linear` or `nnx.Conv`.
            feature_axes: the axis of the kernel that has a norm for each
                index; -1 is the axis of the output features, which is -2 in
                an `nnx.ConvTranspose` with `transpose_kernel`. If `None`, the
                whole kernel has one norm.

        Raises:
            ValueError: if the layer has no `kernel` with two or more axes.
        """
        _require_kernel("WeightNorm", layer)
        self.layer = layer
        self.feature_axes = feature_axes
        self.scale = nnx.Param(self._norm(layer.kernel[...]))

    def __call__(self, x: Float[Array, "B *S I"]) -> Float[Array, "B *S2 O"]:
        """Calls the layer with the normalized kernel."""
        kernel = self.layer.kernel[...]
        kernel = self.scale[...] * kernel / self._norm(kernel)
        return _with_kernel(self.layer, kernel)(x)

    def _norm(self, kernel: Array) -> Array:
        axes = set(range(kernel.ndim))
        if self.feature_axes is not None:
            axes.remove(self.feature_axes % kernel.ndim)
        squares = jnp.square(kernel)
        return jnp.sqrt(jnp.sum(squares, tuple(axes), keepdims=True))


def _matrix(layer: Any, kernel: Array) -> Array:
    """Returns a kernel as a matrix (out, in * kernel), in PyTorch's order."""
    if isinstance(layer, nnx.LinearGeneral):  # (*in, *out)
        inputs = math.prod(layer.in_features)
        return kernel.reshape(inputs, -1).T
    *axes, i, o = range(kernel.ndim)
    if isinstance(layer, nnx.ConvTranspose) and layer.transpose_kernel:
        # The kernel of the convolution that is transposed, (*kernel, out,
        # in), is flipped.
        kernel, i, o = jnp.flip(kernel, axes), o, i
    kernel = jnp.transpose(kernel, (o, i, *axes))
    return kernel.reshape(kernel.shape[0], -1)


def _require_kernel(wrapper: str, layer: Any) -> None:
    kernel = getattr(layer, "kernel", None)
    if kernel is None or kernel.ndim < 2:
        raise ValueError(
            f"{wrapper} layer: got {type(layer).__name__}, expected one with "
            "a `kernel` of 2 axes or more. Wrap the submodule that has the "
            "kernel, such as an nnx.Linear."
        )


def _with_kernel(layer: Any, kernel: Array) -> Any:
    """Returns a copy that shares all Variables except the kernel."""
    layer = nnx.clone(layer, variables=False)
    layer.kernel = nnx.Param(kernel)
    return layer
