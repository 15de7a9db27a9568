"""The state of files that settings name: figures are used again only while these are what they were."""

import os

from dualat.evaluation.reuse import file_state


def test_pictures_behind_links_count_and_hidden_files_do_not(tmp_path):
    inside, outside = tmp_path / "reference", tmp_path / "elsewhere" / "deep"
    inside.mkdir()
    outside.mkdir(parents=True)
    (inside / "a.png").write_bytes(b"one")
    (outside / "b.png").write_bytes(b"two")
    os.symlink(outside.parent, inside / "linked")
    os.symlink(inside, outside / "round")
    os.symlink(tmp_path / "nowhere", inside / "broken.png")
    before = file_state(str(inside))
    assert [name for name, _, _ in before] == [f"{inside}/a.png", f"{inside}/linked/deep/b.png"]
    (inside / ".DS_Store").write_bytes(b"x")
    assert file_state(str(inside)) == before
    (outside / "b.png").write_bytes(b"three")
    assert file_state(str(inside)) != before
    assert file_state((str(inside / "a.png"), 5, "no file")) == [before[0]]
