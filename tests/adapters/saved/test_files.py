"""A file is replaced whole or not at all."""

import pytest

from adapters.saved.files import replace_file


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("old", "new"):
        replace_file(path, lambda partial, text=text: partial.write_text(text))
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def killed(partial):
        partial.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(path, killed)
    assert path.read_text() == "old"
