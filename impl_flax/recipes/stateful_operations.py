"""The NNX twin of Equinox's example of stateful operations.

The cells are those of the notebook `docs/stateful_operations.md`. The names
differ from those of the Equinox half, because both run in one notebook.
"""

# The bias of a layer may be `None`.
# pyright: reportOptionalSubscript=false

# %%
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from flax import nnx


# %%
class NNXModel(nnx.Module):
    """A mix of stateful and stateless layers, for demonstration only."""

    def __init__(self, rngs):
        self.norm1 = EMABatchNorm(3)
        self.spectral_linear = SpectralLinear(3, 32, rngs=rngs)
        self.norm2 = EMABatchNorm(32)
        self.linear1 = nnx.Linear(32, 32, rngs=rngs)
        self.linear2 = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x):
        x = self.norm1(x)
        x = self.spectral_linear(x)
        x = nnx.relu(x)
        x = self.norm2(x)
        x = self.linear1(x)
        x = nnx.relu(x)
        x = self.linear2(x)
        return x


# %%
class EMABatchNorm(nnx.Module):
    """Batch norm that normalizes by its running statistics in training too."""

    def __init__(self, size, *, momentum=0.99, epsilon=1e-5):
        self.scale = nnx.Param(jnp.ones(size))
        self.bias = nnx.Param(jnp.zeros(size))
        self.mean = nnx.BatchStat(jnp.zeros(size))
        self.var = nnx.BatchStat(jnp.zeros(size))
        self.first_time = nnx.BatchStat(jnp.array(True))
        self.momentum = momentum
        self.epsilon = epsilon
        self.use_running_average = False

    def __call__(self, x):
        mean, var = self.mean[...], self.var[...]
        if not self.use_running_average:
            mean = self._average(mean, jnp.mean(x, 0))
            var = self._average(var, jnp.var(x, 0))
            self.mean[...], self.var[...] = mean, var
            self.first_time[...] = jnp.array(False)
        x = (x - mean) / jnp.sqrt(var + self.epsilon)
        return x * self.scale[...] + self.bias[...]

    def _average(self, old, new):
        average = (1 - self.momentum) * new + self.momentum * old
        return jnp.where(self.first_time[...], new, average)

    def set_view(self, use_running_average=None):
        """Class method used by `nnx.view`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


class SpectralLinear(nnx.Module):
    """A linear layer that divides its kernel by its largest singular value."""

    def __init__(self, in_size, out_size, *, rngs):
        self.linear = nnx.Linear(in_size, out_size, rngs=rngs)
        self.u = nnx.BatchStat(jnp.zeros(out_size))
        self.v = nnx.BatchStat(rngs.params.normal((in_size,)))
        self.use_running_average = False
        for _ in range(15):
            self._iterate()

    def __call__(self, x):
        if not self.use_running_average:
            self._iterate()
        kernel = self.linear.kernel[...]
        sigma = self.v[...] @ kernel @ self.u[...]
        return x @ (kernel / sigma) + self.linear.bias[...]

    def _iterate(self):
        kernel = jax.lax.stop_gradient(self.linear.kernel[...])
        u = self.v[...] @ kernel
        self.u[...] = u / jnp.maximum(jnp.linalg.norm(u), 1e-12)
        v = kernel @ self.u[...]
        self.v[...] = v / jnp.maximum(jnp.linalg.norm(v), 1e-12)

    def set_view(self, use_running_average=None):
        """Class method used by `nnx.view`."""
        if use_running_average is not None:
            self.use_running_average = use_running_average


# %%
dataset_size = 10
test_dataset_size = 5
learning_rate = 3e-4
steps = 5
seed = 5678

key = jr.PRNGKey(seed)
mkey, xkey, xkey2 = jr.split(key, 3)
xs = jr.normal(xkey, (dataset_size, 3))
ys = jnp.sin(xs) + 1
test_xs = jr.normal(xkey2, (test_dataset_size, 3))

# %%
nnx_model = NNXModel(nnx.Rngs(mkey))

print(nnx_model.norm1.mean[...])


# %%
def nnx_compute_loss(model, xs, ys):
    """Returns the loss, and updates the statistics in place."""
    pred_ys = model(xs)
    return jnp.mean((pred_ys - ys) ** 2)


# %%
nnx_copy = nnx.clone(nnx_model)
nnx_grads = nnx.grad(nnx_compute_loss)(nnx_copy, xs, ys)

print(nnx_grads["linear2"]["bias"][...])
print(nnx_model.norm1.mean[...])
print(nnx_copy.norm1.mean[...])


# %%
@nnx.jit
def nnx_make_step(model, optimizer, xs, ys):
    """Takes a training step in place, and returns the loss."""
    loss, grads = nnx.value_and_grad(nnx_compute_loss)(model, xs, ys)
    optimizer.update(model, grads)
    return loss


# %%
nnx_optimizer = nnx.Optimizer(
    nnx_model, optax.adam(learning_rate), wrt=nnx.Param
)

for _ in range(steps):
    loss = nnx_make_step(nnx_model, nnx_optimizer, xs, ys)
    print(f"{loss:.5f}")

# %%
nnx_inference_model = nnx.view(nnx_model, use_running_average=True)


# %%
@nnx.jit
def nnx_evaluate(model, xs):
    """Returns predictions; there is no state to discard."""
    return model(xs)


nnx_pred_test_ys = nnx_evaluate(nnx_inference_model, test_xs)
print(nnx_pred_test_ys)
