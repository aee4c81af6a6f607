"""`port` prints its plan, and saves the arrays of the target."""

import sys

import pytest
import safetensors.numpy

from common import cli
from tests.commands import user_pair


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    user_pair.write(tmp_path, "ported")
    yield tmp_path
    sys.modules.pop("ported", None)


def test_the_arrays_are_those_of_the_source(folder, capsys):
    words = ["port", "ported:left", "ported:right", "--save", "r.safetensors"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert "linear.kernel" in capsys.readouterr().out
    words = ["port", "ported:left", "ported:source", "--save", "l.safetensors"]
    assert cli.main(words) == 0, capsys.readouterr().err
    right, left = (
        safetensors.numpy.load_file(folder / f"{side}.safetensors")
        for side in "rl"
    )
    assert (right["linear.kernel"] == left["linear.weight"].T).all()
    assert right["norm.scale"].shape == (4,)


def test_names_that_differ_need_rules(capsys):
    assert cli.main(["port", "ported:left", "ported:renamed"]) == 2
    message = capsys.readouterr().err
    assert "linear.weight" in message and "dense.kernel" in message


def test_another_suffix_is_refused(capsys):
    words = ["port", "ported:left", "ported:right", "--save", "r.npz"]
    assert cli.main(words) == 2
    assert "expected a name that ends in '.safetensors'" in (
        capsys.readouterr().err
    )


def test_a_source_that_does_not_exist(capsys):
    assert cli.main(["port", "no.safetensors", "ported:right"]) == 2
    assert "SOURCE: got 'no.safetensors', expected a file that exists" in (
        capsys.readouterr().err
    )


def test_errors_name_the_options(monkeypatch, capsys):
    def refuse(*_, **options):
        raise ValueError(
            "batch norm `n`: got no `batch_norm`, expected a choice. Pass "
            "batch_norm='serve', or list it in `ignore`."
        )

    monkeypatch.setattr("common.porting.plan_port", refuse)
    assert cli.main(["port", "ported:left", "ported:right"]) == 2
    message = capsys.readouterr().err
    assert "got no `--batch-norm`" in message
    assert "Pass `--batch-norm serve`, or list it in `--ignore`." in message
