"""Says below every measured figure how to measure it again.

The pages include generated files. `with_source` ends those that hold
measurements with the command that measures them and a link to all numbers.
"""

import dataclasses
import pathlib

from common.layers.table import LAYERS


@dataclasses.dataclass(frozen=True)
class Source:
    """Where the numbers of a figure come from.

    Attributes:
        command: the command that measures them again.
        data: the JSON file of all numbers, relative to the folder of the
            pages. Those in `_generated` are written when the pages are built,
            the others are stored.
    """

    command: str
    data: str

    def __str__(self) -> str:
        """Returns the command and a link to the numbers, as Markdown."""
        name = pathlib.PurePosixPath(self.data).name
        return f"`{self.command}` ({{download}}`{name} </{self.data}>`)"


def _stored(command: str, name: str) -> Source:
    return Source(command, f"data/{name}")


def _built(part: str, name: str) -> Source:
    return Source(f"python docs/generate.py {part}", f"_generated/{name}")


COMPARED = _stored(
    "eqx-vs-nnx compare --json docs/data/compare.json", "compare.json"
)
TIMED = _stored("eqx-vs-nnx bench --json docs/data/bench.json", "bench.json")
BATCH_NORM = _built("batch_norm", "batch_norm.json")
LAYER_TABLE = _built("layers", "layers.json")
SCALED = _stored(
    "eqx-vs-nnx bench --devices 1,2,4,8 --shard replicated,fsdp "
    "--json docs/data/scaling.json",
    "scaling.json",
)
PLANNED = _built("many_devices", "many_devices.json")
OPTIMIZERS = _built("optimizers", "optimizers.json")

SOURCES: dict[str, tuple[Source, ...]] = {
    "headline.md": (COMPARED, TIMED),
    "benchmark.md": (TIMED,),
    "benchmark.svg": (TIMED,),
    "reports.md": (
        Source(
            "eqx-vs-nnx compare --model stateful_mlp --steps 50 "
            "--json reports.json",
            "_generated/reports.json",
        ),
    ),
    "differences.md": (
        Source(
            "eqx-vs-nnx differences --json differences.json",
            "_generated/differences.json",
        ),
    ),
    "layers.md": (LAYER_TABLE,),
    **{f"layers_{row.family}.md": (LAYER_TABLE,) for row in LAYERS.values()},
    "inference_variance.md": (BATCH_NORM,),
    "inference_variance.svg": (BATCH_NORM,),
    "training_mean.md": (BATCH_NORM,),
    "training_mean.svg": (BATCH_NORM,),
    "training_deviation.md": (BATCH_NORM,),
    "variance_formulas.md": (BATCH_NORM,),
    "optimizers.md": (OPTIMIZERS,),
    "transformations.md": (OPTIMIZERS,),
    "diff_case.md": (_built("diff", "diff_case.json"),),
    "diff_case.svg": (_built("diff", "diff_case.json"),),
    "diff_fixed.md": (_built("diff", "diff_fixed.json"),),
    "diff_bank.md": (
        _stored(
            "python -m tests.divergence.mutations docs/data/mutations.json",
            "mutations.json",
        ),
    ),
    "diff_unseen.md": (
        _stored(
            "python -m tests.divergence.unseen docs/data/unseen.json",
            "unseen.json",
        ),
    ),
    "diff_cost.md": (
        _stored("python docs/measure_diff.py", "diff_cost.json"),
    ),
    "port_diff.md": (_built("align", "port_diff.json"),),
    "port_compare.md": (_built("align", "port_compare.json"),),
    "align_cost.md": (
        _stored("python docs/measure_align.py", "align_cost.json"),
    ),
    "scan_costs.md": (
        _stored("python docs/measure_scan.py", "scan_costs.json"),
    ),
    "many_devices_costs.md": (SCALED,),
    "many_devices_volume.md": (PLANNED,),
    "many_devices_norms.md": (PLANNED,),
    "many_devices_checkpoints.md": (PLANNED,),
    "port_cost.md": (
        _stored("python docs/measure_port.py", "port_cost.json"),
    ),
    "recipe_costs.md": (
        _stored("python docs/measure_recipes.py", "recipe_costs.json"),
    ),
}
"""The sources of every generated file that holds measurements."""

UNMEASURED = {
    "agreement.md": "the tolerances of common/agreement.py",
    "layer_tolerances.md": "the tolerances of common/agreement.py",
    "layers_counts.md": "counts of the libraries' public layers",
    "names.md": "names and shapes",
    "layers_options.md": "the arguments of layers that no comparison sets",
    "command_line.md": "the text of --help",
    "many_devices_assumptions.md": "what the plan is computed from",
    "many_devices_layouts.svg": "a drawing",
    "dictionary.md": "snippets, with the values that the tests check",
    "port_align.md": "a mapping, printed by the code above it",
    "port_rules.md": "a mapping, printed by the code above it",
}
"""The other generated files, and what they hold."""


def with_source(name: str, text: str) -> str:
    """Returns a generated file, ending with the sources of its numbers.

    Args:
        name: the name of the file.
        text: what it holds.

    Raises:
        ValueError: if a Markdown file is in neither of the tables above.
    """
    if not name.endswith(".md") or name in UNMEASURED:
        return text
    if name not in SOURCES:
        raise ValueError(
            f"generated file: got {name}, expected one that docs/reproduce.py "
            "lists. Add the command that measures it to SOURCES."
        )
    sources = " and ".join(map(str, SOURCES[name]))
    return (
        f"{text.rstrip()}\n\n:::{{container}} reproduce\n"
        f"Reproduce: {sources}\n:::\n"
    )
