"""What a command says is one line that a terminal shows as it is, whatever a file is called."""

import warnings

import pytest

from dualat.cli.main import LONGEST, one_line, run


@pytest.mark.parametrize(
    "name", ["a\nb", "a\r\nb", "a\x1b[31mb", "\u202egnp.exe", "\udcff", "a\tb\x00", "\u2028", "é\U0001f600"]
)
def test_odd_names_do_not_break_the_line(capsys, name):
    code = run(["report", name])
    err = capsys.readouterr().err
    assert code == 1 and err.startswith("dualat: ") and err.count("\n") == 1 and err[:-1].isprintable()
    plain = name.isprintable()
    assert (f"dualat: {name} is no run folder" in err) == plain
    if name == "a\nb":
        assert "dualat: a\\nb is no run folder" in err


def test_a_very_long_value_is_cut_in_the_middle_and_the_advice_stays(capsys):
    code = run(["recipes", "x" * 5000])
    err = capsys.readouterr().err
    assert code == 2 and len(err) < LONGEST + 20 and "xxx ... " in err
    assert err.endswith("; your own is a path that ends in .yaml.\n")
    assert one_line("x" * LONGEST) == "x" * LONGEST and len(one_line("x" * LONGEST + "y")) == LONGEST


def test_warnings_are_one_line_too(capsys, monkeypatch):
    def warn(args):
        warnings.warn("of\ntwo lines", stacklevel=1)
        return 0

    monkeypatch.setattr("dualat.cli.report.main", warn)
    assert run(["report"]) == 0
    assert capsys.readouterr().err == "dualat: warning: of\\ntwo lines\n"
