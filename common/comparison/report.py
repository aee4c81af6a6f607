"""The result of a comparison: rows, a verdict, and the first divergence."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from common.comparison.rows import Divergence, Row
from common.environment import environment
from common.rendering.files import plain, to_json, write_text
from common.rendering.tables import print_text


@dataclasses.dataclass(frozen=True)
class Report:
    """The comparison of two or more backends on one model and one dtype.

    Attributes:
        spec: the name of the model.
        hyper_parameters: the hyper-parameters of the model.
        dtype: the dtype of all floating arrays.
        steps: the number of training steps taken.
        seed: the seed of the trainers.
        pairs: the names of the backends that were compared with each other.
        rows: the results, by quantity in the order of proof, then by pair.
        losses: the loss of every step, by backend.
    """

    spec: str
    hyper_parameters: Mapping[str, Any]
    dtype: str
    steps: int
    seed: int
    pairs: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    losses: Mapping[str, Sequence[float]]

    @property
    def ok(self) -> bool:
        """Whether all pairs agree on all quantities."""
        return all(row.ok for row in self.rows)

    @property
    def first_divergence(self) -> Divergence | None:
        """The first place where a pair of backends diverges, or `None`.

        It is the earliest step with a mismatch and, within this step, the
        first quantity in the order of proof.
        """
        divergences = [
            Divergence(row.quantity, *row.first, row.left, row.right)
            for row in self.rows
            if row.first is not None
        ]
        return min(
            divergences,
            key=lambda divergence: divergence.step,
            default=None,
        )

    @property
    def verdict(self) -> str:
        """One sentence: whether all agree, and otherwise where the first
        divergence is."""
        if self.ok:
            return f"{self.spec} {self.dtype}: all agree."
        return f"{self.spec} {self.dtype}: DISAGREE. {self.first_divergence}"

    def __str__(self) -> str:
        from common.comparison import text as report_text

        return print_text(report_text.render(self))

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values. Infinities are strings."""
        values = dataclasses.asdict(self) | {
            "ok": self.ok,
            "first_divergence": self.first_divergence
            and self.first_divergence._asdict(),
        }
        for row, source in zip(values["rows"], self.rows, strict=True):
            row["ok"] = source.ok
            row["worst"] = source.worst._asdict()
            row["first"] = source.first and source.first._asdict()
        return plain(values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a self-contained `.html` page or a `.json` file.

        Raises:
            ValueError: if the file name has another suffix.
        """
        save([self], path)


def save(reports: Sequence[Report], path: str | os.PathLike[str]) -> None:
    """Writes several reports into one `.html` or `.json` file.

    Raises:
        ValueError: if the file name has another suffix.
    """
    path = pathlib.Path(path)
    if path.suffix == ".json":
        values = {
            "environment": environment(),
            "reports": [report.to_json() for report in reports],
        }
        text = to_json(values)
    elif path.suffix == ".html":
        from common.comparison import page as report_html

        text = report_html.render(reports, environment())
    else:
        raise ValueError(
            f"report file: got {str(path)!r}, expected a name that ends in "
            "'.html' or '.json'. Choose a name with one of these suffixes."
        )
    write_text(path, text)
