"""Data sets, and the order in which training sees them."""

from typing import NamedTuple

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int, UInt32

from common.protocol import Spec


class Dataset(NamedTuple):
    """A training and a test set."""

    train_xs: Float[np.ndarray, "N *S"]
    train_ys: np.ndarray
    test_xs: Float[np.ndarray, "M *S"]
    test_ys: np.ndarray


class Place(NamedTuple):
    """A place in the data order.

    Attributes:
        epoch: number of epochs ended.
        position: number of examples seen of the one after.
    """

    epoch: int
    position: int


def order(
    key_data: UInt32[np.ndarray, " K"], epoch: int, size: int
) -> Int[np.ndarray, " N"]:
    """Returns the order of `size` examples in an epoch.

    It depends on the run's key and the epoch only, not on the backend nor on
    how the run got there.
    """
    rng = np.random.default_rng([*key_data.tolist(), epoch])
    return rng.permutation(size).astype(np.int32)


def take(
    key_data: UInt32[np.ndarray, " K"],
    start: Place,
    end: Place,
    size: int,
    batch_size: int,
    count: int,
) -> tuple[Int[np.ndarray, "N B"], Place]:
    """Returns the examples of the next steps, and the place after them.

    Examples that do not fill a last batch are left out of their epoch.

    Args:
        key_data: of the run.
        start: where to go on.
        end: where to stop.
        size: number of examples.
        batch_size: examples a step.
        count: steps to take at most.
    """
    epoch, position = start
    rows = [np.zeros((0, batch_size), np.int32)]
    while count and epoch < end.epoch:
        steps = min((size - position) // batch_size, count)
        stop = position + steps * batch_size
        if steps:
            examples = order(key_data, epoch, size)[position:stop]
            rows.append(examples.reshape(steps, batch_size))
        count, position = count - steps, stop
        if position + batch_size > size:
            epoch, position = epoch + 1, 0
    return np.concatenate(rows), Place(epoch, position)


def digits(*, dtype: str = "float32", seed: int = 0) -> Dataset:
    """Loads 1,797 real handwritten digits and holds out a fifth.

    Inputs have shape (8, 8, 1) and lie in [0, 1]; targets are int32 labels.
    The split is shuffled by the seed.

    Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten
        Digits", 1998, UCI; as shipped with scikit-learn.
    """
    # Takes a second to import, and only real data needs it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(dtype) / 16
    labels = labels.astype(np.int32)
    shuffled = np.random.default_rng(seed).permutation(len(images))
    test, train = np.split(shuffled, [len(images) // 5])
    return Dataset(images[train], labels[train], images[test], labels[test])


def waves(spec: Spec, *, dtype: str = "float32", seed: int = 5678) -> Dataset:
    """Makes the data of Equinox's example: normal `x`, and `sin(x) + 1`.

    Its sizes and its seed are the example's, with more examples.
    """
    xkey, xkey2 = jr.split(jr.key(seed))
    (features,) = spec.inputs.shape
    train_xs = np.asarray(jr.normal(xkey, (256, features), "float32"))
    test_xs = np.asarray(jr.normal(xkey2, (64, features), "float32"))
    return Dataset(
        *(
            x.astype(dtype)
            for xs in (train_xs, test_xs)
            for x in (xs, np.sin(xs) + 1)
        )
    )


def dataset(spec: Spec, *, dtype: str = "float32") -> Dataset:
    """Returns the data that a spec is trained on by the command line."""
    with jax.enable_x64(dtype == "float64"):
        if spec.data == "digits":
            return digits(dtype=dtype)
        return waves(spec, dtype=dtype)
