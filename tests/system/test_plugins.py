"""Plugins: a file's code is run once, and what is wrong with it is one sentence."""

import sys
from importlib.metadata import EntryPoint

import pytest

from dualat.cli.main import run
from dualat.system import plugins
from dualat.system.plugins import load_installed, load_plugin, take_plugins


def test_the_code_of_a_file_is_run_once(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('x')\n")
    load_plugin(path)
    load_plugin(tmp_path / "." / "mine.py")
    assert (tmp_path / "ran").read_text() == "x"


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (
            "x = 1\nraise ValueError('too small: give more.')",
            "mine.py fails in line 2: too small: give more.",
        ),
        ("def f():\n    return {}['a']\n\nf()", "fails in line 2: KeyError: 'a'"),
        ("x = (", "fails in line 1: SyntaxError"),
        ("import no_such_module_here", "line 1: ModuleNotFoundError: No module named"),
    ],
)
def test_code_that_fails_is_named_with_its_line(tmp_path, code, match):
    path = tmp_path / "mine.py"
    path.write_text(code)
    for _ in range(2):  # a second try is none with half of it loaded
        with pytest.raises(ValueError, match=match):
            load_plugin(path)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.py does not exist"):
        load_plugin(tmp_path / "no.py")
    with pytest.raises(ValueError, match=r"ends in \.py"):
        load_plugin(tmp_path / "weights.pt")


def test_packages_name_their_modules(tmp_path, monkeypatch):
    (tmp_path / "package_of_mine.py").write_text("LOADED = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = [EntryPoint("mine", "package_of_mine", plugins.GROUP)]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: found)
    load_installed()
    assert sys.modules["package_of_mine"].LOADED
    found[:] = [EntryPoint("gone", "package_that_is_gone", plugins.GROUP)]
    with pytest.raises(
        ValueError, match="package_that_is_gone of an installed package fails: ModuleNotFound"
    ):
        load_installed()


def test_the_command_line(tmp_path, capsys):
    assert take_plugins(["a", "--plugin", "b.py", "--c", "--plugin=d.py"]) == (["a", "--c"], ["b.py", "d.py"])
    assert run(["recipes", "--plugin"]) == 2
    assert "--plugin is given without a file" in capsys.readouterr().err
    assert run(["recipes", "--plugin", str(tmp_path / "no.py")]) == 1
    assert "no.py does not exist" in capsys.readouterr().err
    (tmp_path / "mine.py").write_text("print('run first')\n")
    assert run(["recipes", "--plugin", str(tmp_path / "mine.py")]) == 0
    assert capsys.readouterr().out.startswith("run first\n")
