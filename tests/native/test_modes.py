"""The arguments by which a model is told whether to train."""

import pytest

from common.native.modes import mode_arguments, parameters_of


def takes_train(x, train): ...
def takes_training(x, *, training=False): ...
def takes_is_training(x, is_training=True): ...
def takes_inference(x, *, key=None, inference=None): ...
def takes_deterministic(x, deterministic, use_running_average): ...
def takes_neither(x, state): ...


@pytest.mark.parametrize(
    ("function", "training", "inference"),
    [
        (takes_train, {"train": True}, {"train": False}),
        (takes_training, {"training": True}, {"training": False}),
        (takes_is_training, {"is_training": True}, {"is_training": False}),
        (takes_inference, {"inference": False}, {"inference": True}),
        (
            takes_deterministic,
            {"deterministic": False, "use_running_average": False},
            {"deterministic": True, "use_running_average": True},
        ),
        (takes_neither, {}, {}),
    ],
)
def test_the_mode_is_passed_under_the_name_that_is_taken(
    function, training, inference
):
    assert mode_arguments(function, True) == training
    assert mode_arguments(function, False) == inference


def test_a_callable_object_is_read_by_its_call():
    class Model:
        def __call__(self, x, train): ...

    assert mode_arguments(Model(), True) == {"train": True}


def test_a_function_without_a_signature_has_no_parameters():
    assert parameters_of(min) == {}
    assert mode_arguments(min, True) == {}
