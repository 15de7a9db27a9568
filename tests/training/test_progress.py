"""What training tells on the way is shown as it is."""

import pytest

from dualat.training.progress import Progress, announce


@pytest.mark.parametrize("name", ["runs/[/b]", "runs/[red]x", "data[0]"])
def test_brackets_are_no_markup(capsys, name):
    # [/b] in the name of a run folder ended a finished training in rich's MarkupError
    announce(f"run folder: {name}")
    with Progress(name, 10, 0, 5, 8) as progress:
        progress.note(f"the best so far: {name}")
        progress.update(10, {"loss_ce": 0.5})
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [f"run folder: {name}", f"the best so far: {name}"] and lines[2].startswith(
        f"{name} 10/10"
    )
