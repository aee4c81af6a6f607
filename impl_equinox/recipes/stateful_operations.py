"""Equinox's example of stateful operations, such as BatchNorm.

The cells are those of the notebook `docs/stateful_operations.md`.
"""

# The index of a batch norm's state may be `None`.
# pyright: reportArgumentType=false

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax


# %%
class Model(eqx.Module):
    """A mix of stateful and stateless layers, for demonstration only."""

    norm1: eqx.nn.BatchNorm
    spectral_linear: eqx.nn.SpectralNorm[eqx.nn.Linear]
    norm2: eqx.nn.BatchNorm
    linear1: eqx.nn.Linear
    linear2: eqx.nn.Linear

    def __init__(self, key):
        key1, key2, key3, key4 = jr.split(key, 4)
        self.norm1 = eqx.nn.BatchNorm(3, axis_name="batch", mode="ema")
        self.spectral_linear = eqx.nn.SpectralNorm(
            layer=eqx.nn.Linear(3, 32, key=key1),
            weight_name="weight",
            key=key2,
        )
        self.norm2 = eqx.nn.BatchNorm(32, axis_name="batch", mode="ema")
        self.linear1 = eqx.nn.Linear(32, 32, key=key3)
        self.linear2 = eqx.nn.Linear(32, 3, key=key4)

    def __call__(self, x, state):
        x, state = self.norm1(x, state)
        x, state = self.spectral_linear(x, state)
        x = jax.nn.relu(x)
        x, state = self.norm2(x, state)
        x = self.linear1(x)
        x = jax.nn.relu(x)
        x = self.linear2(x)
        return x, state


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
model, state = eqx.nn.make_with_state(Model)(mkey)

mean, var = state.get(model.norm1.ema_state_index)
print(mean)


# %%
def compute_loss(model, state, xs, ys):
    """Returns the loss and the new state."""
    batch_model = jax.vmap(
        model, axis_name="batch", in_axes=(0, None), out_axes=(0, None)
    )
    pred_ys, state = batch_model(xs, state)
    loss = jnp.mean((pred_ys - ys) ** 2)
    return loss, state


# %%
grad_fn = eqx.filter_grad(compute_loss, has_aux=True)
grads, new_state = grad_fn(model, state, xs, ys)

print(grads.linear2.bias)
print(state.get(model.norm1.ema_state_index)[0])
print(new_state.get(model.norm1.ema_state_index)[0])


# %%
@eqx.filter_jit
def make_step(model, state, opt_state, xs, ys):
    """Takes a training step, and returns everything that it changes."""
    loss_fn = eqx.filter_value_and_grad(compute_loss, has_aux=True)
    (loss, state), grads = loss_fn(model, state, xs, ys)
    updates, opt_state = optim.update(grads, opt_state)
    model = eqx.apply_updates(model, updates)
    return model, state, opt_state, loss


# %%
optim = optax.adam(learning_rate)
opt_state = optim.init(eqx.filter(model, eqx.is_inexact_array))

for _ in range(steps):
    # Full-batch gradient descent in this simple example.
    model, state, opt_state, loss = make_step(model, state, opt_state, xs, ys)
    print(f"{loss:.5f}")

# %%
inference_model = eqx.nn.inference_mode(model)
inference_model = eqx.Partial(inference_model, state=state)


# %%
@eqx.filter_jit
def evaluate(model, xs):
    """Returns predictions, and discards the state."""
    out, _ = jax.vmap(model)(xs)
    return out


pred_test_ys = evaluate(inference_model, test_xs)
print(pred_test_ys)
