"""Models that bring their own step: a GAN with two optimizers in both."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from flax import nnx

from common import build
from common.agreement import assert_close
from common.errors import NonFiniteLossError

LIBRARIES = ("equinox", "flax")
each_library = pytest.mark.parametrize("library", LIBRARIES)
REAL = np.random.default_rng(0).normal(size=(8, 2)) + 3


# --- the models -------------------------------------------------------------


class EqxGan(eqx.Module):
    generator: eqx.nn.Linear
    discriminator: eqx.nn.Linear

    def __init__(self, key):
        first, second = jr.split(key)
        self.generator = eqx.nn.Linear(3, 2, key=first)
        self.discriminator = eqx.nn.Linear(2, "scalar", key=second)


class NnxGan(nnx.Module):
    def __init__(self, rngs):
        self.generator = nnx.Linear(3, 2, rngs=rngs)
        self.discriminator = nnx.Linear(2, 1, rngs=rngs)


def discriminator_loss(discriminate, real, fake):
    return jnp.mean(
        jax.nn.softplus(-discriminate(real))
        + jax.nn.softplus(discriminate(fake))
    )


def generator_loss(discriminate, fake):
    return jnp.mean(jax.nn.softplus(-discriminate(fake)))


# --- one step in each idiom -------------------------------------------------


def equinox_step(gan, carry, batch, *, key, update):
    real, _ = batch
    noise = jr.normal(key, (len(real), 3), real.dtype)
    fake = jax.vmap(gan.generator)(noise)

    @eqx.filter_value_and_grad
    def of_discriminator(discriminator):
        return discriminator_loss(jax.vmap(discriminator), real, fake)

    d_loss, grads = of_discriminator(gan.discriminator)
    gan = update("discriminator", gan, grads)

    @eqx.filter_value_and_grad
    def of_generator(generator):
        fake = jax.vmap(generator)(noise)
        return generator_loss(jax.vmap(gan.discriminator), fake)

    g_loss, grads = of_generator(gan.generator)
    gan = update("generator", gan, grads)
    mean = 0.9 * carry["mean"] + 0.1 * jnp.mean(fake, 0)
    metrics = {"loss": d_loss + g_loss, "generator": g_loss}
    return gan, {"mean": mean}, metrics


def flax_step(gan, carry, batch, *, key, update):
    real, _ = batch
    noise = jr.normal(key, (len(real), 3), real.dtype)
    fake = gan.generator(noise)

    def of_discriminator(discriminator):
        return discriminator_loss(discriminator, real, fake)

    d_loss, grads = nnx.value_and_grad(of_discriminator)(gan.discriminator)
    update("discriminator", gan, grads)

    def of_generator(generator):
        return generator_loss(gan.discriminator, generator(noise))

    g_loss, grads = nnx.value_and_grad(of_generator)(gan.generator)
    update("generator", gan, grads)
    mean = 0.9 * carry["mean"] + 0.1 * jnp.mean(fake, 0)
    return None, {"mean": mean}, {"loss": d_loss + g_loss, "generator": g_loss}


def sample(gan, noise, *, training, key):
    """How a trained GAN is called: it generates."""
    generate = gan.generator
    if isinstance(gan, EqxGan):
        generate = jax.vmap(generate)
    return generate(noise), None


STEPS = {"equinox": equinox_step, "flax": flax_step}


def make_model(library):
    return EqxGan(jr.key(0)) if library == "equinox" else NnxGan(nnx.Rngs(0))


def make_gan(library, model=None, **options):
    options = {
        "step": STEPS[library],
        "call": sample,
        "carry": {"mean": np.zeros(2)},
        "optimizer": {
            "generator": optax.adam(0.01),
            "discriminator": optax.sgd(0.02, momentum=0.9),
        },
        "dtype": "float64",
        **options,
    }
    return build(model=model or make_model(library), **options)


@each_library
def test_the_step_trains_both_parts(library, tmp_path, assert_same):
    trainer = make_gan(library)
    before = trainer.state()
    metrics = trainer.step(REAL, None)
    assert metrics.keys() == {"loss", "generator"}
    losses = trainer.fit(REAL, None, epochs=6, batch_size=4, progress=False)
    assert losses.shape == (12,)
    after = trainer.state()
    assert all((x != before.params[n]).all() for n, x in after.params.items())
    assert after.opt.keys() == {
        "carry.mean",
        "generator.0.count",
        *(f"generator.0.{m}.{n}" for m in ("mu", "nu") for n in LEAVES),
        *(f"discriminator.0.trace.{n}" for n in LEAVES),
    }
    assert (trainer.carry["mean"] == after.opt["carry.mean"]).all()
    assert trainer.carry["mean"].any()
    noise = np.ones((5, 3))
    assert trainer.predict(noise).shape == (5, 2)
    assert type(trainer.native) is (EqxGan if library == "equinox" else NnxGan)
    path = tmp_path / "gan.safetensors"
    trainer.save(path)
    again = make_gan(library).load(path)
    assert again.step(REAL, None) == trainer.step(REAL, None)
    assert_same(again.state(), trainer.state())


LEAVES = ("weight", "bias")


def test_a_gan_crosses_with_both_optimizers():
    left = make_gan("equinox")
    left.fit(REAL, None, epochs=2, batch_size=4, progress=False)
    right = make_gan("flax").load(left.state())
    a = [left.step(REAL, None)["loss"] for _ in range(5)]
    b = [right.step(REAL, None)["loss"] for _ in range(5)]
    for got, want in (
        (right.state().params, left.state().params),
        (right.state().opt, left.state().opt),
        ({"loss": np.array(b)}, {"loss": np.array(a)}),
    ):
        assert_close(
            got, want,
            dtype="float64", quantity="trajectory", what="gan", steps=5,
        )  # fmt: skip


@each_library
def test_the_step_reports_the_gradients(library):
    trainer = make_gan(library)
    _, _, gradients = trainer.pure.step_with_gradients(
        trainer.leaves, (REAL, None)
    )
    assert gradients.keys() == trainer.state().params.keys()
    assert all(x.any() for x in gradients.values())


def test_evaluating_without_a_loss(assert_raises):
    trainer = make_gan("flax")
    assert_raises(
        lambda: trainer.evaluate(REAL, None),
        ValueError,
        r"evaluate: got no loss for NnxGan, expected a loss or a metric\. "
        r"Pass `loss` or `metrics` to `build`\.",
    )

    def spread(samples, targets):
        return jnp.std(samples)

    trainer = make_gan("flax", metrics={"spread": spread})
    assert trainer.evaluate(np.ones((4, 3)), None).keys() == {"spread"}


def test_a_step_without_optimizers_by_part():
    """One optimizer trains the whole model, under the name "optimizer"."""

    def step(model, carry, batch, *, key, update):
        xs, ys = batch

        @eqx.filter_value_and_grad
        def compute_loss(model):
            return jnp.mean((jax.vmap(model)(xs) - ys) ** 2)

        loss, grads = compute_loss(model)
        model = update("optimizer", model, grads, value=loss)
        return model, carry + 1, {"loss": loss}

    with jax.enable_x64(False):
        model = eqx.nn.Linear(2, 2, key=jr.key(0))
    xs = REAL.astype("float32")
    mine = build(model, step=step, carry=0, optimizer=optax.adam(0.1))
    usual = build(model, loss="mse", optimizer=optax.adam(0.1))
    for _ in range(3):
        assert mine.step(xs, xs)["loss"] == usual.step(xs, xs)["loss"]
    assert mine.carry == 3 and usual.carry is None


def test_a_failing_step_of_ones_own_is_found():
    def step(model, carry, batch, *, key, update):
        return model, carry, {"loss": jnp.log(-jnp.sum(batch[0] ** 2))}

    with jax.enable_x64(False):
        model = eqx.nn.Linear(2, 2, key=jr.key(0))
    trainer = build(model, step=step, optimizer=optax.sgd(0.1))
    with pytest.raises(NonFiniteLossError, match="^step 1: got a loss of nan"):
        trainer.fit(REAL.astype("float32"), None, batch_size=4, progress=False)


# --- errors -----------------------------------------------------------------


def returns(result):
    def step(model, carry, batch, *, key, update):
        return result(model, carry, update)

    return step


ERRORS = {
    "two_values": (
        lambda model, carry, update: (model, {"loss": jnp.zeros(())}),
        TypeError,
        r"step of EqxGan: got tuple, expected \(native, carry, metrics\)\. "
        r"Return these three values\.",
    ),
    "no_loss": (
        lambda model, carry, update: (model, carry, {"d": jnp.zeros(())}),
        TypeError,
        r"step of EqxGan: got the metrics \{'d': \(\)\}, expected scalars by "
        r'name, "loss" among them\. Return a dict of them as the third '
        r"value\.",
    ),
    "no_scalar": (
        lambda model, carry, update: (model, carry, {"loss": jnp.zeros(2)}),
        TypeError,
        r"step of EqxGan: got the metrics \{'loss': \(2,\)\}, expected "
        r'scalars by name, "loss" among them\. Return a dict of them as the '
        r"third value\.",
    ),
    "no_dict": (
        lambda model, carry, update: (model, carry, jnp.zeros(())),
        TypeError,
        r"step of EqxGan: got the metrics <class .+>, expected scalars by "
        r'name, "loss" among them\. Return a dict of them as the third '
        r"value\.",
    ),
    "another_optimizer": (
        lambda model, carry, update: update("critic", model, model),
        ValueError,
        r"optimizer: got 'critic', expected one of 'generator', "
        r"'discriminator'\. Pass it to `build`\.",
    ),
    "another_carry": (
        lambda model, carry, update: (model, {}, {"loss": jnp.zeros(())}),
        TypeError,
        r"carry of EqxGan: got the structure .+, expected .+ as before the "
        r"step\. Return a carry of the same structure\.",
    ),
}


@pytest.mark.parametrize("fault", ERRORS)
def test_what_a_step_may_return(fault, assert_raises):
    result, error, message = ERRORS[fault]
    trainer = make_gan("equinox", step=returns(result))
    assert_raises(lambda: trainer.step(REAL, None), error, message)


@each_library
def test_parts_that_are_not_there(library, assert_raises):
    model = make_model(library)
    name = type(model).__name__
    for part, owner, word in (
        ("critic", name, "critic"),
        ("generator.layers", "Linear", "layers"),
    ):
        options = {"optimizer": {part: optax.sgd(0.1)}, "dtype": None}
        assert_raises(
            lambda options=options: make_gan(library, model, **options),
            ValueError,
            rf"part of {name}: got '{part}', expected the dotted path of a "
            rf"part, but {owner} has no '{word}'\. Write attributes, "
            r"keys and indices with dots between them, as in "
            r"`layers\.0\.weight`\.",
        )


def test_parts_that_share_an_array(assert_raises):
    class Tied(nnx.Module):
        def __init__(self):
            self.a = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
            self.b = nnx.Linear(2, 2, rngs=nnx.Rngs(1))
            self.b.kernel = self.a.kernel

    tied = Tied()
    assert_raises(
        lambda: build(tied, step=flax_step, optimizer={"b": optax.sgd(0.1)}),
        ValueError,
        r"optimizer 'b': got \['b\.kernel'\], which are tied to arrays of "
        r"another part, expected parameters of this part alone\. Train both "
        r"parts with one optimizer\.",
    )
