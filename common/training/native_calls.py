"""How a user's model is called in training: on parts and groups of a batch."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PRNGKeyArray

from common.layouts import Role
from common.native import NativeModel
from common.protocol import Arrays, Settings
from common.training.parts import (
    average_over_parts,
    call_in_groups,
    mean_over_groups,
    random_of_whole,
)


class NativeCalls:
    """Calls a model of the user on the parts and the groups of a batch.

    The model's own random state, such as the streams of an NNX module, is
    that of the whole batch: every part draws its share of it.
    """

    def __init__(self, model: NativeModel, settings: Settings):
        self._model = model
        self._settings = settings
        roles = {name: info.role for name, info in model.infos.items()}
        self._random = {
            n for n, role in roles.items() if role is Role.RANDOM_STATE
        }
        self._params = {
            n for n, role in roles.items() if role is Role.PARAMETER
        }

    def forward(
        self, arrays: Arrays, xs: Any, key: PRNGKeyArray
    ) -> tuple[Any, Arrays]:
        """Calls the model in training mode.

        Args:
            arrays: by dotted name.
            xs: a batch.
            key: the key of the call.

        Returns:
            The outputs, and all arrays after the call.
        """

        def call(xs, random):
            key, own = random
            return self._model.apply(
                {**arrays, **own}, xs, training=True, key=key
            )

        random = key, self._random_of(arrays)
        if self._settings.groups == 1:
            return call(xs, random)
        outputs, found = call_in_groups(
            call, self._settings.groups, xs, random
        )
        means = mean_over_groups(found)
        # The same in all groups; the mean of equal numbers may be rounded.
        first = {n: found[n][0] for n in self._params}
        own = random_of_whole(self._random_of(means))
        return outputs, {**means, **first, **own}

    def average(
        self,
        function: Callable[[Arrays, Any, Any], tuple[Arrays, Any]],
        arrays: Arrays,
        batch: Any,
        key: PRNGKeyArray,
    ) -> tuple[Arrays, Any]:
        """Averages a function over the parts of a batch.

        Args:
            function: `(arrays, batch, key) -> (arrays, values)`.
            arrays: the arrays of the model by dotted name. One part hands
                them on to the next, but for the random state.
            batch: the whole batch.
            key: the key of the whole batch.

        Returns:
            The arrays after the last part, and the mean of the values.
        """

        def compute(arrays, batch, random):
            key, own = random
            arrays, values = function({**arrays, **own}, batch, key)
            own = random_of_whole(self._random_of(arrays))
            return {**arrays, **own}, values

        return average_over_parts(
            compute,
            self._settings.accumulate,
            arrays,
            batch,
            (key, self._random_of(arrays)),
        )

    def _random_of(self, arrays: Arrays) -> Arrays:
        return {name: arrays[name] for name in self._random}
