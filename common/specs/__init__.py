"""The specs that go by a name."""

from common.protocol import Spec
from common.specs.deep_mlp import DeepMLP
from common.specs.digits_cnn import DigitsCNN
from common.specs.stateful_mlp import StatefulMLP

SPECS: dict[str, type[Spec]] = {
    spec.name: spec for spec in (StatefulMLP, DigitsCNN, DeepMLP)
}
