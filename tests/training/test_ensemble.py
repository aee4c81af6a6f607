"""`build(ensemble=N)`: each member is the run of its own seed."""

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
import pytest

from common import build, compare, load
from common.agreement import assert_close
from common.errors import NonFiniteLossError, StateError
from common.training import members
from common.training.building import Trainer

MEMBERS = 2
SEED = 3


@pytest.fixture
def ensemble(make) -> Trainer:
    return make("deep_mlp", "reference", seed=SEED, ensemble=MEMBERS)


@pytest.fixture
def data(ensemble, make_batch):
    return make_batch(ensemble.spec)


def check_members(state, singles, steps=1):
    """Asserts that each member has the State of a run of its own."""
    for i, single in enumerate(singles):
        got, want = members.take(state, i), single.state()
        assert got.step == want.step
        for name, x in want.rng.items():
            assert np.array_equal(got.rng[name], x), name
        for group, quantity in (
            ("params", "parameters"),
            ("buffers", "parameters"),
            ("opt", "moments"),
        ):
            assert_close(
                getattr(got, group),
                getattr(want, group),
                dtype="float64",
                quantity=quantity,
                what=f"{group} of member {i}",
                steps=steps,
            )


def singles_of(make, model, backend, batch):
    """Returns trainers of the members' seeds, after one step."""
    singles = [make(model, backend, seed=SEED + i) for i in range(MEMBERS)]
    return singles, [single.step(*batch) for single in singles]


def test_members_are_the_runs_of_their_seeds(ensemble, data, make):
    metrics = ensemble.step(*data)
    singles, expected = singles_of(make, "deep_mlp", "reference", data)
    check_members(ensemble.state(), singles)
    assert metrics["loss"].shape == (MEMBERS,)
    for i, one in enumerate(expected):
        assert_close(
            metrics["loss"][i], one["loss"], dtype="float64", quantity="loss"
        )
    predictions = ensemble.predict(data.xs)
    assert predictions.shape == (MEMBERS, *data.ys.shape)
    assert_close(
        predictions[1],
        singles[1].predict(data.xs),
        dtype="float64",
        quantity="forward",
    )
    assert ensemble.evaluate(*data)["loss"].shape == (MEMBERS,)


@pytest.mark.parametrize("backend", ["equinox", "flax"])
def test_members_in_both_libraries(backend, make, make_batch):
    """With dropout and with batches in parts."""
    trainer = make(
        "digits_cnn", backend, seed=SEED, ensemble=MEMBERS, accumulate=2
    )
    batch = make_batch(trainer.spec)
    trainer.step(*batch)
    singles = [
        make("digits_cnn", "reference", seed=SEED + i, accumulate=2)
        for i in range(MEMBERS)
    ]
    for single in singles:
        single.step(*batch)
    check_members(trainer.state(), singles)


def test_the_check_finds_statistics_of_another_member(ensemble, data, make):
    ensemble.step(*data)
    singles, _ = singles_of(make, "deep_mlp", "reference", data)
    state = ensemble.state()
    name = "blocks.0.norm.running_mean"
    state.buffers[name][...] = state.buffers[name][::-1]
    with pytest.raises(AssertionError, match="buffers of member 0"):
        check_members(state, singles)


def test_a_member_continues_in_the_order_of_the_ensemble(
    ensemble, data, tmp_path
):
    options = {"batch_size": 2, "progress": False}
    assert ensemble.fit(*data, epochs=0, **options).shape == (0, MEMBERS)
    ensemble.step(*data)
    member = ensemble.member(1)
    assert (member.seed, member.steps_taken) == (SEED + 1, 1)
    path = tmp_path / "member.safetensors"
    member.save(path)
    losses = ensemble.fit(*data, **options)
    assert losses.shape == (4, MEMBERS)
    for one in (member, load(path, backend="reference")):
        assert_close(
            one.fit(*data, **options),
            losses[:, 1],
            dtype="float64",
            quantity="loss",
            steps=5,
        )


def test_a_file_holds_all_members(ensemble, data, tmp_path, assert_same, make):
    ensemble.step(*data)
    path = tmp_path / "run.safetensors"
    ensemble.save(path)
    other = load(path, backend="equinox")
    assert other.settings.ensemble == MEMBERS
    assert_same(other.state(), ensemble.state())
    single = make("deep_mlp", "reference")
    with pytest.raises(StateError, match="got a run of an ensemble of 2, exp"):
        single.load(path)


def test_the_member_that_fails_is_named(ensemble, data):
    state = ensemble.state()
    state.params["head.bias"][1] = np.nan
    ensemble.load(state)
    with pytest.raises(NonFiniteLossError, match="nan in member 1, expected"):
        ensemble.fit(*data, batch_size=2, progress=False)


def test_an_update_that_is_not_finite_names_the_member(make, make_batch):
    trainer = make(
        "deep_mlp",
        "reference",
        optimizer=optax.sgd(1.0),
        ensemble=MEMBERS,
    )
    state = trainer.state()
    state.params["head.weight"][0] = 1e200
    trainer.load(state)
    xs, ys = make_batch(trainer.spec)
    with pytest.raises(NonFiniteLossError, match="in member 0, expected fin"):
        trainer.fit(xs, ys, batch_size=4, epochs=2, progress=False)


# Models of the user


def linear(seed):
    return eqx.nn.Linear(3, 2, key=jr.key(seed))


def build_linear(model, **options):
    return build(model=model, optimizer=optax.sgd(0.1), loss="mse", **options)


def test_models_of_a_list_are_the_members():
    models = [linear(0), linear(1)]
    trainer = build_linear(models, ensemble=2)
    weights = trainer.state().params["weight"]
    for i, model in enumerate(models):
        assert np.array_equal(weights[i], model.weight)
        one = trainer.member(i).native
        assert np.array_equal(one.weight, model.weight)
    assert trainer.native.weight.shape == (2, 2, 3)


def test_members_start_from_one_model():
    weights = build_linear(linear(0), ensemble=2).state().params["weight"]
    assert np.array_equal(weights[0], weights[1])


# Bad input


@pytest.mark.parametrize("count", [0, 1.0, True, "2"])
def test_a_wrong_number_of_members_is_refused(count):
    with pytest.raises(ValueError, match="ensemble: got .*, expected an int"):
        build(backend="reference", ensemble=count)


def test_models_of_a_list_must_fit():
    with pytest.raises(ValueError, match="ensemble: got None with a list of"):
        build_linear([linear(0), linear(1)])
    wide = eqx.nn.Linear(3, 4, key=jr.key(0))
    with pytest.raises(ValueError, match="array 'bias' of member 1: got"):
        build_linear([linear(0), wide], ensemble=2)


def test_there_is_no_such_member(ensemble, make):
    with pytest.raises(ValueError, match="member: got 2, expected an integer"):
        ensemble.member(2)
    with pytest.raises(ValueError, match="member: got 0 of a trainer of one"):
        make("deep_mlp", "reference").member(0)


def test_the_seed_of_every_member_has_32_bits():
    with pytest.raises(ValueError, match="for 2 members, expected an int"):
        build(backend="reference", seed=2**32 - 1, ensemble=2)


def test_members_are_compared_one_by_one(ensemble, data):
    with pytest.raises(ValueError, match="compare: got an ensemble"):
        compare(ensemble, ensemble, *data)
