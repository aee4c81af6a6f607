"""`docs`, without building the pages, which CI does by itself."""

import os
import threading
import urllib.request

import pytest

from common import cli
from common.commands import docs


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that `docs` looks for."""
    for name in (
        "docs/conf.py",
        "common/cli.py",
        "docs/_build/html/index.html",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "impl_equinox").mkdir()
    (tmp_path / "impl_flax").mkdir()
    return tmp_path


def site(checkout):
    return checkout / "docs" / "_build" / "html"


def test_a_checkout_is_found(checkout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert docs.find_checkout([elsewhere, checkout]) == checkout


def test_an_installed_package_has_no_pages(assert_raises, tmp_path):
    assert_raises(
        lambda: docs.find_checkout([tmp_path]),
        ValueError,
        r"docs: got .*, expected a checkout of this project, .* Clone .*",
    )


@pytest.mark.parametrize("name", ["docs/conf.py", "common/cli.py"])
def test_pages_older_than_a_source_are_built_again(checkout, name):
    index = site(checkout) / "index.html"
    newest = max(path.stat().st_mtime for path in checkout.rglob("*.*"))
    os.utime(index, (newest + 1, newest + 1))
    assert not docs.is_outdated(site(checkout), checkout)
    os.utime(checkout / name, (newest + 2, newest + 2))
    assert docs.is_outdated(site(checkout), checkout)


def test_missing_pages_are_built(checkout):
    (site(checkout) / "index.html").unlink()
    assert docs.is_outdated(site(checkout), checkout)


def test_missing_packages_are_named(assert_raises):
    docs.require_packages(["json"])
    assert_raises(
        lambda: docs.require_packages(["json", "no_such_package"]),
        ValueError,
        r"docs: got no package no_such_package, expected .* Install .*",
    )


def test_the_pages_are_served_on_localhost(checkout):
    with docs.server(site(checkout), 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        url = f"http://localhost:{serving.server_port}/index.html"
        with urllib.request.urlopen(url) as page:
            assert page.read() == b"docs/_build/html/index.html"
        serving.shutdown()


def test_a_port_in_use_is_refused(assert_raises, checkout):
    with docs.server(site(checkout), 0) as serving:
        port = serving.server_port
        assert_raises(
            lambda: docs.server(site(checkout), port),
            ValueError,
            rf"--port: got {port}, expected a free port .* Pass .*",
        )


@pytest.fixture
def found(monkeypatch, checkout):
    """The checkout, which `docs` finds."""
    monkeypatch.setattr(docs, "find_checkout", lambda candidates: checkout)
    return checkout


@pytest.mark.parametrize("status", [0, 1])
def test_build_only(found, monkeypatch, capsys, status):
    monkeypatch.setattr(docs, "build", lambda root, site: status)
    monkeypatch.setattr(docs, "require_packages", lambda names: None)
    assert cli.main(["docs", "--build-only", "--rebuild"]) == status
    printed = capsys.readouterr().out
    assert ("The build failed." in printed) == bool(status)


def test_control_c_is_how_it_ends(found, monkeypatch, capsys):
    def press(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(docs, "is_outdated", lambda site, root: False)
    monkeypatch.setattr(
        docs.http.server.ThreadingHTTPServer, "serve_forever", press
    )
    assert cli.main(["docs", "--port", "0"]) == 0
    printed = capsys.readouterr().out
    assert "http://localhost:" in printed and "Stopped." in printed


def test_a_port_that_is_no_port(capsys):
    assert cli.main(["docs", "--port", "70000"]) == 2
    assert "--port: got 70000, expected" in capsys.readouterr().err
