"""The result of a comparison: rows, a verdict, and the first divergence."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from common import agreement
from common.comparison.rows import Divergence, Location, Row
from common.environment import environment
from common.files import write_text
from common.rendering.files import plain, to_json
from common.rendering.tables import print_text


@dataclasses.dataclass(frozen=True, repr=False)
class Report:
    """The comparison of two or more backends on one model and one dtype.

    Attributes:
        spec: the name of the model; `None` for models without a spec.
        hyper_parameters: the hyper-parameters of the model.
        dtype: the dtype of all floating arrays, or several.
        steps: the number of training steps taken.
        seed: the seed of the trainers; `None` for models without a trainer.
        pairs: the names of the backends that were compared with each other.
        rows: the results, by quantity in the order of proof, then by pair.
        losses: the loss of every step, by backend.
        models: the classes of the left and the right model, without a spec.
        notes: what was assumed, and what was left out and why.
        location: where in the sources the first divergence is.
    """

    spec: str | None
    hyper_parameters: Mapping[str, Any]
    dtype: str
    steps: int
    seed: int | None
    pairs: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    losses: Mapping[str, Sequence[float]]
    models: tuple[str, str] = ("", "")
    notes: Sequence[str] = ()
    location: Location = Location()

    @property
    def title(self) -> str:
        """The name of the model, or of both classes."""
        return self.spec or " ~ ".join(dict.fromkeys(self.models))

    @property
    def columns(self) -> list[tuple[str, str, str]]:
        """The left, the right and the dtype of each column of the table."""
        found = {row.dtype for row in self.rows} or {""}
        order = ["", *reversed(agreement.EPS)]
        dtypes = sorted(found, key=order.index)
        return [
            (left, right, dtype)
            for dtype in dtypes
            for left, right in self.pairs
        ]

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
            Divergence(
                row.quantity,
                *row.first,
                row.left,
                row.right,
                row.dtype,
                self.location,
            )
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
        """Says in one sentence whether all agree, or where the first
        divergence is."""
        if self.ok:
            return f"{self.title} {self.dtype}: all agree."
        return f"{self.title} {self.dtype}: DISAGREE. {self.first_divergence}"

    @property
    def explanation(self) -> str:
        """The verdict, the source lines, the hint and the notes, as text."""
        first = self.first_divergence
        lines = [self.verdict, *([] if first is None else first.describe())]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        """The verdict; `print` shows the whole table."""
        return f"<Report of {len(self.rows)} rows: {self.verdict}>"

    def __str__(self) -> str:
        from common.comparison import text as report_text

        return print_text(report_text.render(self))

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values. Infinities are strings."""
        values = dataclasses.asdict(self) | {
            "ok": self.ok,
            "first_divergence": self.first_divergence
            and self.first_divergence._asdict()
            | {"location": self.location._asdict()},
            "location": self.location._asdict(),
        }
        for row, source in zip(values["rows"], self.rows, strict=True):
            row["ok"] = source.ok
            row["worst"] = source.worst._asdict()
            row["first"] = source.first and source.first._asdict()
        return plain(values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a self-contained `.html` page or a `.json` file.

        Args:
            path: the file to write, whose suffix says which.

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
