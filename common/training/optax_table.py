"""Every optimizer and transformation of optax, with arguments for a test.

Each name of `optax` and `optax.contrib` that returns an
`optax.GradientTransformation` has a row. The tests take training steps with
each row in every backend, and the documentation prints the table.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax
import optax.contrib

PER_EXAMPLE = (
    "It expects one gradient for each example of the batch. The backends "
    "compute one gradient for the whole batch."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One function of optax.

    Attributes:
        make: calls it, with arguments that suit a model of a few elements.
        reason: why it cannot train a model of a backend; empty if it can.
    """

    make: Callable[[], optax.GradientTransformation]
    reason: str = ""


def _weights(params):
    """Selects the weight matrices, by canonical name."""
    return {name: name.endswith(".weight") for name in params}


# Annotated as a tree, but a function that returns one is accepted too.
WEIGHTS: Any = _weights


def _group(params):
    return {
        name: "head" if name.startswith("head.") else "body" for name in params
    }


def _every_second(step, **arguments):
    del arguments
    return step % 2 == 0


def _norm(updates):
    return optax.tree.norm(updates)


def _negate(updates, params=None):
    del params
    return jax.tree.map(lambda x: -0.1 * x, updates)


def _negate_leaf(update, param):
    del param
    return -0.1 * update


def _descend(
    transformation: optax.GradientTransformation,
) -> optax.GradientTransformation:
    return optax.chain(transformation, optax.scale(-0.01))


def _schedule(step):
    return -0.1 / (1 + step)


OPTIMIZERS: dict[str, Row] = {
    "optax.adabelief": Row(lambda: optax.adabelief(0.01)),
    "optax.adadelta": Row(lambda: optax.adadelta(0.1)),
    "optax.adafactor": Row(
        lambda: optax.adafactor(0.01, min_dim_size_to_factor=2)
    ),
    "optax.adagrad": Row(lambda: optax.adagrad(0.1)),
    "optax.adam": Row(lambda: optax.adam(0.01)),
    "optax.adamax": Row(lambda: optax.adamax(0.01)),
    "optax.adamaxw": Row(lambda: optax.adamaxw(0.01, mask=_weights)),
    "optax.adamw": Row(lambda: optax.adamw(0.01, mask=_weights)),
    "optax.adan": Row(lambda: optax.adan(0.01)),
    "optax.amsgrad": Row(lambda: optax.amsgrad(0.01)),
    "optax.fromage": Row(lambda: optax.fromage(0.01)),
    "optax.lamb": Row(lambda: optax.lamb(0.01)),
    "optax.lars": Row(lambda: optax.lars(0.01)),
    "optax.lbfgs": Row(
        lambda: optax.lbfgs(
            memory_size=3,
            linesearch=optax.scale_by_zoom_linesearch(
                5, initial_guess_strategy="one"
            ),
        )
    ),
    "optax.lion": Row(lambda: optax.lion(0.01)),
    "optax.nadam": Row(lambda: optax.nadam(0.01)),
    "optax.nadamw": Row(lambda: optax.nadamw(0.01)),
    "optax.noisy_sgd": Row(
        lambda: optax.noisy_sgd(0.01, key=jax.random.key(1))
    ),
    "optax.novograd": Row(lambda: optax.novograd(0.01)),
    "optax.optimistic_adam": Row(lambda: optax.optimistic_adam(0.01)),
    "optax.optimistic_adam_v2": Row(lambda: optax.optimistic_adam_v2(0.01)),
    "optax.optimistic_gradient_descent": Row(
        lambda: optax.optimistic_gradient_descent(0.01)
    ),
    "optax.polyak_sgd": Row(lambda: optax.polyak_sgd(0.1)),
    "optax.radam": Row(lambda: optax.radam(0.01)),
    "optax.rmsprop": Row(
        lambda: optax.rmsprop(0.01, momentum=0.9, centered=True)
    ),
    "optax.rprop": Row(lambda: optax.rprop(0.01)),
    "optax.sgd": Row(lambda: optax.sgd(0.01, momentum=0.9, nesterov=True)),
    "optax.sign_sgd": Row(lambda: optax.sign_sgd(0.01)),
    "optax.signum": Row(lambda: optax.signum(0.01)),
    "optax.sm3": Row(lambda: optax.sm3(0.1)),
    "optax.yogi": Row(lambda: optax.yogi(0.01)),
    "optax.contrib.acprop": Row(lambda: optax.contrib.acprop(0.01)),
    "optax.contrib.ademamix": Row(lambda: optax.contrib.ademamix(0.01)),
    "optax.contrib.adopt": Row(lambda: optax.contrib.adopt(0.01)),
    "optax.contrib.cocob": Row(lambda: optax.contrib.cocob()),
    "optax.contrib.dadapt_adamw": Row(
        lambda: optax.contrib.dadapt_adamw(1.0, estim_lr0=0.001)
    ),
    "optax.contrib.dog": Row(lambda: optax.contrib.dog(0.1)),
    "optax.contrib.dowg": Row(lambda: optax.contrib.dowg(0.1)),
    "optax.contrib.dpsgd": Row(
        lambda: optax.contrib.dpsgd(0.01, 1.0, 0.1, 0),
        PER_EXAMPLE,
    ),
    "optax.contrib.galore": Row(lambda: optax.contrib.galore(0.01, rank=1)),
    "optax.contrib.madgrad": Row(lambda: optax.contrib.madgrad(0.01)),
    "optax.contrib.mechanize": Row(
        lambda: optax.contrib.mechanize(optax.sgd(0.1))
    ),
    "optax.contrib.momo": Row(lambda: optax.contrib.momo(0.1)),
    "optax.contrib.momo_adam": Row(lambda: optax.contrib.momo_adam(0.01)),
    "optax.contrib.muon": Row(lambda: optax.contrib.muon(0.01)),
    "optax.contrib.prodigy": Row(
        lambda: optax.contrib.prodigy(1.0, estim_lr0=0.001)
    ),
    "optax.contrib.sam": Row(
        lambda: optax.contrib.sam(
            optax.sgd(0.01),
            optax.chain(optax.contrib.normalize(), optax.sgd(0.05)),
            opaque_mode=True,
        )
    ),
    "optax.contrib.schedule_free": Row(
        lambda: optax.contrib.schedule_free(optax.sgd(0.1), 0.1)
    ),
    "optax.contrib.schedule_free_adamw": Row(
        lambda: optax.contrib.schedule_free_adamw(0.01)
    ),
    "optax.contrib.schedule_free_sgd": Row(
        lambda: optax.contrib.schedule_free_sgd(0.1)
    ),
    "optax.contrib.simplified_ademamix": Row(
        lambda: optax.contrib.simplified_ademamix(0.001)
    ),
    "optax.contrib.sophia": Row(
        lambda: optax.contrib.sophia(0.01, update_interval=2)
    ),
}
"""Optimizers that train a model by themselves."""

TRANSFORMATIONS: dict[str, Row] = {
    "optax.MultiSteps": Row(
        lambda: optax.MultiSteps(optax.sgd(0.1), 2).gradient_transformation()
    ),
    "optax.adaptive_grad_clip": Row(
        lambda: _descend(optax.adaptive_grad_clip(0.01))
    ),
    "optax.add_decayed_weights": Row(
        lambda: _descend(optax.add_decayed_weights(0.1, mask=_weights))
    ),
    "optax.add_noise": Row(lambda: _descend(optax.add_noise(0.1, 0.5, 3))),
    "optax.apply_every": Row(lambda: _descend(optax.apply_every(2))),
    "optax.apply_if_finite": Row(
        lambda: optax.apply_if_finite(optax.sgd(0.1), 3)
    ),
    "optax.centralize": Row(lambda: _descend(optax.centralize())),
    "optax.chain": Row(
        lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.01))
    ),
    "optax.clip": Row(lambda: _descend(optax.clip(0.05))),
    "optax.clip_by_block_rms": Row(
        lambda: _descend(optax.clip_by_block_rms(0.05))
    ),
    "optax.clip_by_global_norm": Row(
        lambda: _descend(optax.clip_by_global_norm(0.1))
    ),
    "optax.conditionally_mask": Row(
        lambda: optax.conditionally_mask(optax.sgd(0.1), _every_second)
    ),
    "optax.conditionally_transform": Row(
        lambda: _descend(
            optax.conditionally_transform(
                optax.clip(0.05), _every_second, forward_extra_args=True
            )
        )
    ),
    "optax.ema": Row(lambda: _descend(optax.ema(0.9))),
    "optax.flatten": Row(lambda: optax.flatten(optax.adam(0.01))),
    "optax.freeze": Row(
        lambda: optax.chain(
            optax.sgd(0.1),
            optax.freeze(WEIGHTS),
        )
    ),
    "optax.identity": Row(lambda: _descend(optax.identity())),
    "optax.inject_hyperparams": Row(
        lambda: optax.inject_hyperparams(optax.adam)(
            optax.linear_schedule(0.1, 0.01, 5)
        )
    ),
    "optax.inject_stateful_hyperparams": Row(
        lambda: optax.inject_stateful_hyperparams(optax.adam)(
            optax.linear_schedule(0.1, 0.01, 5)
        )
    ),
    "optax.keep_params_nonnegative": Row(
        lambda: optax.chain(optax.sgd(0.5), optax.keep_params_nonnegative())
    ),
    "optax.masked": Row(lambda: optax.masked(optax.adam(0.01), _weights)),
    "optax.measure_with_ema": Row(
        lambda: _descend(
            optax.monitor({"norm": optax.measure_with_ema(_norm, 0.9)})
        )
    ),
    "optax.monitor": Row(lambda: _descend(optax.monitor({"norm": _norm}))),
    "optax.multi_transform": Row(
        lambda: optax.multi_transform(
            {"head": optax.adam(0.01), "body": optax.sgd(0.1)}, _group
        )
    ),
    "optax.named_chain": Row(
        lambda: optax.named_chain(
            ("clip", optax.clip(0.05)), ("adam", optax.adam(0.01))
        )
    ),
    "optax.normalize_by_update_norm": Row(
        lambda: _descend(optax.normalize_by_update_norm())
    ),
    "optax.partition": Row(
        lambda: optax.partition(
            {"head": optax.adam(0.01), "body": optax.sgd(0.1)}, _group
        )
    ),
    "optax.scale": Row(lambda: optax.scale(-0.1)),
    "optax.scale_by_adadelta": Row(
        lambda: _descend(optax.scale_by_adadelta())
    ),
    "optax.scale_by_adam": Row(lambda: _descend(optax.scale_by_adam())),
    "optax.scale_by_adamax": Row(lambda: _descend(optax.scale_by_adamax())),
    "optax.scale_by_adan": Row(lambda: _descend(optax.scale_by_adan())),
    "optax.scale_by_amsgrad": Row(lambda: _descend(optax.scale_by_amsgrad())),
    "optax.scale_by_backtracking_linesearch": Row(
        lambda: optax.chain(
            optax.sgd(0.1), optax.scale_by_backtracking_linesearch(5)
        )
    ),
    "optax.scale_by_belief": Row(lambda: _descend(optax.scale_by_belief())),
    "optax.scale_by_distance_over_gradients": Row(
        lambda: _descend(optax.scale_by_distance_over_gradients())
    ),
    "optax.scale_by_factored_rms": Row(
        lambda: _descend(optax.scale_by_factored_rms(min_dim_size_to_factor=2))
    ),
    "optax.scale_by_lbfgs": Row(
        lambda: _descend(optax.scale_by_lbfgs(memory_size=2))
    ),
    "optax.scale_by_learning_rate": Row(
        lambda: optax.scale_by_learning_rate(0.1)
    ),
    "optax.scale_by_lion": Row(lambda: _descend(optax.scale_by_lion())),
    "optax.scale_by_novograd": Row(
        lambda: _descend(optax.scale_by_novograd())
    ),
    "optax.scale_by_optimistic_gradient": Row(
        lambda: _descend(optax.scale_by_optimistic_gradient())
    ),
    "optax.scale_by_param_block_norm": Row(
        lambda: _descend(optax.scale_by_param_block_norm())
    ),
    "optax.scale_by_param_block_rms": Row(
        lambda: _descend(optax.scale_by_param_block_rms())
    ),
    "optax.scale_by_polyak": Row(lambda: _descend(optax.scale_by_polyak())),
    "optax.scale_by_radam": Row(lambda: _descend(optax.scale_by_radam())),
    "optax.scale_by_rms": Row(lambda: _descend(optax.scale_by_rms())),
    "optax.scale_by_rprop": Row(lambda: _descend(optax.scale_by_rprop(0.01))),
    "optax.scale_by_rss": Row(lambda: _descend(optax.scale_by_rss())),
    "optax.scale_by_schedule": Row(lambda: optax.scale_by_schedule(_schedule)),
    "optax.scale_by_sign": Row(lambda: _descend(optax.scale_by_sign())),
    "optax.scale_by_sm3": Row(lambda: _descend(optax.scale_by_sm3())),
    "optax.scale_by_stddev": Row(lambda: _descend(optax.scale_by_stddev())),
    "optax.scale_by_trust_ratio": Row(
        lambda: _descend(optax.scale_by_trust_ratio())
    ),
    "optax.scale_by_yogi": Row(lambda: _descend(optax.scale_by_yogi())),
    "optax.scale_by_zoom_linesearch": Row(
        lambda: optax.chain(optax.sgd(0.1), optax.scale_by_zoom_linesearch(5))
    ),
    "optax.selective_transform": Row(
        lambda: optax.selective_transform(optax.sgd(0.1), freeze_mask=WEIGHTS)
    ),
    "optax.set_to_zero": Row(lambda: optax.set_to_zero()),
    "optax.snapshot": Row(lambda: _descend(optax.snapshot("norm", _norm))),
    "optax.stateless": Row(lambda: optax.stateless(_negate)),
    "optax.stateless_with_tree_map": Row(
        lambda: optax.stateless_with_tree_map(_negate_leaf)
    ),
    "optax.lookahead": Row(
        lambda: optax.lookahead(optax.sgd(0.1), 2, 0.5),
        "It expects `optax.LookaheadParams`, a pair of parameter trees, in "
        "place of the parameters.",
    ),
    "optax.trace": Row(lambda: _descend(optax.trace(0.9))),
    "optax.with_extra_args_support": Row(
        lambda: optax.with_extra_args_support(optax.sgd(0.1))
    ),
    "optax.zero_nans": Row(lambda: _descend(optax.zero_nans())),
    "optax.contrib.differentially_private_aggregate": Row(
        lambda: _descend(
            optax.contrib.differentially_private_aggregate(
                1.0, 0.1, key=jax.random.key(0)
            )
        ),
        PER_EXAMPLE,
    ),
    "optax.contrib.hutchinson_estimator_diag_hessian": Row(
        lambda: _descend(optax.contrib.hutchinson_estimator_diag_hessian())
    ),
    "optax.contrib.normalize": Row(
        lambda: _descend(optax.contrib.normalize())
    ),
    "optax.contrib.reduce_on_plateau": Row(
        lambda: optax.chain(
            optax.sgd(0.1),
            optax.contrib.reduce_on_plateau(patience=1, cooldown=1),
        )
    ),
    "optax.contrib.scale_by_acprop": Row(
        lambda: _descend(optax.contrib.scale_by_acprop())
    ),
    "optax.contrib.scale_by_ademamix": Row(
        lambda: _descend(optax.contrib.scale_by_ademamix())
    ),
    "optax.contrib.scale_by_adopt": Row(
        lambda: _descend(optax.contrib.scale_by_adopt())
    ),
    "optax.contrib.scale_by_cocob": Row(
        lambda: optax.contrib.scale_by_cocob()
    ),
    "optax.contrib.scale_by_galore": Row(
        lambda: _descend(optax.contrib.scale_by_galore(rank=1))
    ),
    "optax.contrib.scale_by_madgrad": Row(
        lambda: optax.contrib.scale_by_madgrad(0.01)
    ),
    "optax.contrib.scale_by_muon": Row(
        lambda: optax.partition(
            {"muon": _orthogonalize(), "sgd": optax.sgd(0.1)}, _by_rank
        )
    ),
    "optax.contrib.scale_by_simplified_ademamix": Row(
        lambda: _descend(optax.contrib.scale_by_simplified_ademamix())
    ),
    "optax.contrib.split_real_and_imaginary": Row(
        lambda: optax.contrib.split_real_and_imaginary(optax.adam(0.01))
    ),
}
"""Building blocks, as part of an optimizer that takes a step downhill."""


def _by_rank(params):
    return {k: "muon" if x.ndim == 2 else "sgd" for k, x in params.items()}


def _orthogonalize():
    def dimensions(params):
        return jax.tree.map(
            lambda x: optax.contrib.MuonDimensionNumbers(), params
        )

    return _descend(
        optax.contrib.scale_by_muon(weight_dimension_numbers=dimensions)
    )
