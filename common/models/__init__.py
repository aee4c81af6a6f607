"""The specs that go by a name."""

from common.models.deep_mlp import DeepMLP
from common.models.digits_cnn import DigitsCNN
from common.models.stateful_mlp import StatefulMLP
from common.protocol import Spec

SPECS: dict[str, type[Spec]] = {
    spec.name: spec for spec in (StatefulMLP, DigitsCNN, DeepMLP)
}
