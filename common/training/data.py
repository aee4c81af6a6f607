"""Data sets, and the order in which training sees them."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Float, Int, UInt32

from common.protocol import Spec


class Dataset(NamedTuple):
    """A training set and a test set."""

    train_xs: Float[np.ndarray, "N *S"]
    train_ys: np.ndarray
    test_xs: Float[np.ndarray, "M *S"]
    test_ys: np.ndarray


class Place(NamedTuple):
    """A place in the data order.

    Attributes:
        epoch: the number of completed epochs.
        position: the number of examples seen in the current epoch.
    """

    epoch: int
    position: int


@runtime_checkable
class Take(Protocol):
    """`take` for one run and one data set."""

    def __call__(
        self, start: Place, end: Place, *, count: int
    ) -> tuple[np.ndarray, Place]:
        """Returns the examples of at most `count` steps, and the place after
        them."""
        ...


def order(
    key_data: UInt32[np.ndarray, " K"], epoch: int, size: int
) -> Int[np.ndarray, " N"]:
    """Returns the order of `size` examples in an epoch.

    It is a pure function of the run's key and the epoch, so it is the same in
    every backend and after resuming.
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

    Examples at the end of an epoch that do not fill a batch are left out.

    Args:
        key_data: the data of the run's key.
        start: the current place.
        end: the place to stop at.
        size: the number of examples in the data set.
        batch_size: the number of examples in a step.
        count: the largest number of steps to return.
    """
    epoch, position = start
    rows = [np.zeros((0, batch_size), np.int32)]
    while count and epoch < end.epoch:
        steps = min(max(size - position, 0) // batch_size, count)
        stop = position + steps * batch_size
        if steps:
            examples = order(key_data, epoch, size)[position:stop]
            rows.append(examples.reshape(steps, batch_size))
        count, position = count - steps, stop
        if position + batch_size > size:
            epoch, position = epoch + 1, 0
    return np.concatenate(rows), Place(epoch, position)


def count_steps(start: Place, end: Place, size: int, batch_size: int) -> int:
    """Returns how many steps lie between two places in the data order.

    Args:
        start: the current place.
        end: the place to stop at, the start of an epoch.
        size: the number of examples in the data set.
        batch_size: the number of examples in a step.
    """
    epochs = end.epoch - start.epoch
    if epochs <= 0:
        return 0
    first = max(size - start.position, 0) // batch_size
    return first + (epochs - 1) * (size // batch_size)


def digits(*, dtype: str = "float32", seed: int = 0) -> Dataset:
    """Loads 1,797 real handwritten digits and holds out a fifth.

    Inputs have shape (8, 8, 1) and values in [0, 1]. Targets are int32
    labels. The seed decides which examples are held out.

    References:
        Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits",
        UCI, 1998. The data is the copy in scikit-learn.
    """
    # Importing scikit-learn takes a second, and only this data needs it.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(dtype) / 16
    labels = labels.astype(np.int32)
    shuffled = np.random.default_rng(seed).permutation(len(images))
    test, train = np.split(shuffled, [len(images) // 5])
    return Dataset(images[train], labels[train], images[test], labels[test])


def waves(spec: Spec, *, dtype: str = "float32", seed: int = 5678) -> Dataset:
    """Makes the data of Equinox's example: normal `x`, and `sin(x) + 1`.

    The seed is that of the example, and there are more examples.
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
    """Returns the data set that the command line trains a spec on."""
    with jax.enable_x64(dtype == "float64"):
        if spec.data == "digits":
            return digits(dtype=dtype)
        return waves(spec, dtype=dtype)
