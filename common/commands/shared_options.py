"""Options that several commands have."""

import argparse
import pathlib
from typing import Any


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--json FILE`."""
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        metavar="FILE",
        help=f"write {what} to a JSON file",
    )


def add_html(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--html FILE`."""
    parser.add_argument(
        "--html",
        type=pathlib.Path,
        metavar="FILE",
        help=f"write an HTML page with {what}",
    )


def add_batch_norm(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--batch-norm DIALECT`."""
    parser.add_argument(
        "--batch-norm",
        metavar="DIALECT",
        help=f"ema, batch, standard or torch (default: {default})",
    )


def hyper_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the hyper-parameters that the user has set."""
    if options.batch_norm is None:
        return {}
    return {"batch_norm": options.batch_norm}
