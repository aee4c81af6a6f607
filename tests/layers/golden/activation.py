"""Activation functions in NumPy.

PyTorch: https://docs.pytorch.org/docs/stable/nn.html#non-linear-activations
"""

import math
from collections.abc import Iterator

import numpy as np

from tests.layers.golden.attention import softmax
from tests.layers.golden.case import Case
from tests.layers.golden.recurrent import sigmoid


def erf(x):
    """The error function; its derivative is 2 exp(-x^2) / sqrt(pi)."""
    real = np.vectorize(math.erf)(x.real)
    if np.isrealobj(x):
        return real
    slope = 2 / math.sqrt(math.pi) * np.exp(-(x.real**2))
    return real + 1j * x.imag * slope


def clip(x, low, high):
    """Clips by the real part."""
    return np.where(x.real < low, low, np.where(x.real > high, high, x))


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def elu(x, alpha):
    """x if x > 0, otherwise alpha (exp(x) - 1)."""
    return np.where(x.real > 0, x, alpha * (np.exp(x) - 1))


def glu(x):
    """The first half, times the sigmoid of the second half."""
    a, b = np.split(x, 2, axis=-1)
    return a * sigmoid(b)


def log_softmax(x):
    """The logarithm of softmax."""
    return np.log(softmax(x))


def gelu_tanh(x):
    """The tanh approximation of Hendrycks and Gimpel, arXiv:1606.08415."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return x / 2 * (1 + np.tanh(inner))


def gelu_erf(x):
    """x P(N(0, 1) <= x)."""
    return x / 2 * (1 + erf(x / math.sqrt(2)))


def standardize(x, eps=1e-5):
    """(x - mean) / sqrt(variance + eps) along the last axis."""
    mean = np.mean(x, axis=-1, keepdims=True)
    var = np.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(var + eps)


def hard_sigmoid(x):
    """clip(x + 3, 0, 6) / 6."""
    return clip(x + 3, 0, 6) / 6


ACTIVATIONS = {
    "celu": lambda x: np.where(x.real > 0, x, np.exp(x) - 1),
    "elu": lambda x: elu(x, 1.0),
    "glu": glu,
    "hard_sigmoid": hard_sigmoid,
    "hard_silu": lambda x: x * hard_sigmoid(x),
    "hard_swish": lambda x: x * hard_sigmoid(x),
    "hard_tanh": lambda x: clip(x, -1, 1),
    "identity": lambda x: x,
    "leaky_relu": lambda x: np.where(x.real > 0, x, 0.01 * x),
    "log_sigmoid": lambda x: -np.log(1 + np.exp(-x)),
    "log_softmax": log_softmax,
    "logsumexp": lambda x: np.log(np.sum(np.exp(x), axis=-1)),
    "one_hot": lambda i: np.eye(5, dtype=int)[i],
    "relu": lambda x: np.where(x.real > 0, x, 0),
    "relu6": lambda x: clip(x, 0, 6),
    "selu": lambda x: SELU_SCALE * elu(x, SELU_ALPHA),
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "soft_sign": lambda x: x / (1 + np.where(x.real > 0, x, -x)),
    "softmax": softmax,
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "standardize": standardize,
    "swish": lambda x: x * sigmoid(x),
    "tanh": np.tanh,
}


def prelu(x, negative_slope, **_):
    """x if x > 0, otherwise the slope of the channel times x."""
    return np.where(x.real > 0, x, negative_slope * x)


# --- cases -------------------------------------------------------------------

# On both sides of every kink, and none at a kink.
POINTS = np.round(np.linspace(-7.3, 7.1, 12), 3).reshape(2, 6)
CLASSES = np.array([[0, 4, 2], [3, 3, 1]])


def _activation() -> Iterator[Case]:
    functions = {("gelu", True): gelu_tanh, ("gelu", False): gelu_erf}
    functions |= {(name, True): f for name, f in ACTIVATIONS.items()}
    for (name, approximate), function in functions.items():
        points = CLASSES if name == "one_hot" else POINTS
        yield Case(
            layer="activation",
            fields={
                "function": name,
                "approximate": approximate,
                "size": points.shape[1:],
            },
            define=lambda x, f=function, **_: f(x),
            inputs=(points,),
        )


def _prelu() -> Iterator[Case]:
    for features, axes in ((None, 1), (3, 2), (3, 0)):
        yield Case(
            layer="prelu",
            fields={"features": features, "num_spatial_dims": axes},
            define=prelu,
            inputs=((*(2,) * axes, 3),),
            params={"negative_slope": () if features is None else (features,)},
        )


def cases() -> Iterator[Case]:
    """Yields the cases of this family's rows."""
    yield from _activation()
    yield from _prelu()
