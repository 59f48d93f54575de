"""Rows as traces: the formats, the rules, and the real swipes."""

import json
from pathlib import Path

import numpy as np
import pytest

from adapters.validation import ConfigurationError
from seq2seq.swipe.keyboards.layout import layout_from_rows, load_layout, save_layout
from seq2seq.swipe.keyboards.layouts import Layouts
from seq2seq.swipe.traces.reading import read_traces


def row(**changes):
    """A row in the common format, with changes of its curve or of itself."""
    curve = {"x": [10, 20.5, 30], "y": [1, 2, 3], "t": [0, 8, 16]}
    own = {key: value for key, value in changes.items() if key not in curve}
    return {
        "word": "hi",
        "curve": curve | {key: changes[key] for key in curve if key in changes},
        "layout": "qwerty",
    } | own


def written(path: Path, *rows) -> Path:
    path.write_text("".join(f"{json.dumps(each)}\n" for each in rows), encoding="utf-8")
    return path


def test_a_file_is_read(tmp_path):
    ((index, trace),) = read_traces(written(tmp_path / "rows.jsonl", row()))
    assert (index, trace.word, trace.layout) == (0, "hi", "qwerty")
    assert [values.dtype for values in trace[1:4]] == [np.float32, np.float32, np.int32]
    assert [values.tolist() for values in trace[1:4]] == [[10, 20.5, 30], [1, 2, 3], [0, 8, 16]]


def test_flat_rows_are_rescaled_to_the_layout():
    flat = {"word": "hi", "x": [0, 720], "y": [0, 378], "t": [5, 25], "layout": "qwerty"}
    plain, narrow, both = (
        trace
        for _, trace in read_traces(
            [flat, flat | {"keyboard_width": 720}, flat | {"keyboard_width": 720, "keyboard_height": 378}]
        )
    )
    assert plain.x.tolist() == [0, 720]
    assert (narrow.x.tolist(), narrow.y.tolist()) == ([0, 360], [0, 378])
    assert (both.x.tolist(), both.y.tolist()) == ([0, 360], [0, 189])


def test_time_begins_at_0_and_is_rounded():
    epoch = 1_700_000_000_000
    ((_, trace),) = read_traces([row(t=[epoch, epoch + 7.6, epoch + 16])])
    assert trace.t.tolist() == [0, 8, 16]


def test_a_generator_is_a_source_and_is_read_as_needed():
    def endless():
        while True:
            yield row()

    assert next(read_traces(endless()))[1].word == "hi"


def test_layouts_by_default_by_path_and_of_ones_own(tmp_path):
    layout = layout_from_rows("mine", "en", ("hi",))
    save_layout(layout, tmp_path / "file.json")
    layouts = Layouts()
    rows = [row(layout=None), row(layout="dvorak"), row(layout=str(tmp_path / "file.json")), row(layout="mine")]
    names = [trace.layout for _, trace in read_traces(rows, layouts, "colemak")]
    assert names == ["colemak", "dvorak", "mine", "mine"]
    assert layouts["mine"] == layout


def test_a_word_may_be_unknown():
    ((_, trace),) = read_traces([{key: value for key, value in row().items() if key != "word"}])
    assert trace.word == ""


NAN = float("nan")
REFUSED = {
    "NaN": (row(x=[1, NAN, 3]), "'x' .*finite numbers; got nan at point 1"),
    "infinite": (row(y=[1, 2, float("inf")]), "'y' .*finite numbers; got inf at point 2"),
    "too large for float32": (row(y=[1, 2, 1e39]), "'y' .*finite"),
    "NaN time": (row(t=[0, NAN, 3]), "'t' .*finite"),
    "unequal lengths": (row(x=[1, 2]), "equal lengths; got 2 of x, 3 of y, 3 of t"),
    "time goes back": (row(t=[0, 16, 8]), "'t' .*not decrease; got 16 before 8 at point 2"),
    "seconds": (row(t=[0, 0.5, 1.2]), "milliseconds.*got 1.2 from"),
    "no time": (row(t=[0, 0, 0]), "milliseconds"),
    "years": (row(t=[0, 8, 1e11]), "31 bits"),
    "one point": (row(x=[1], y=[1], t=[0]), "two points or more; got 1"),
    "no points": (row(x=[], y=[], t=[]), "two points or more; got 0"),
    "strings": (row(x=["1", "2", "3"]), "'x' .*list of numbers"),
    "booleans": (row(x=[True, False, True]), "'x' .*list of numbers"),
    "null": (row(x=[1, None, 3]), "'x' .*list of numbers"),
    "a number": (row(x=3), "'x' .*list of numbers"),
    "ragged": (row(x=[[1], [2, 3]]), "'x' .*list of numbers"),
    "pairs": (row(x=[[1, 2]] * 3), "'x' .*list of numbers"),
    "no y": ({"word": "hi", "curve": {"x": [1, 2], "t": [0, 8]}, "layout": "qwerty"}, "'y' .*is required"),
    "curve is a list": (row(curve=[1]), "'curve' .*must be an object"),
    "no layout": (row(layout=None), "'layout' .*is required"),
    "unknown layout": (row(layout="qwert"), "Row 1 .*'qwert': did you mean"),
    "layout is a number": (row(layout=1), "'layout' .*must be a string"),
    "word is a number": (row(word=1), "'word' .*must be a string"),
    "letter without key": (row(word="señor"), r"layout 'qwerty'; got 'señor' with 'ñ' \(U\+00F1"),
    "apostrophe": (row(word="don't"), r"U\+0027 APOSTROPHE"),
    "capital": (row(word="Hi"), r"U\+0048 .*write 'h'"),
    "homoglyph": (row(word="\u00ebж", layout="jcuken"), r"U\+00EB .*write 'ё' \(U\+0451"),
    "width 0": (row(keyboard_width=0), "'keyboard_width' .*positive number of pixels; got 0"),
    "width true": (row(keyboard_width=True), "'keyboard_width' .*positive"),
    "width of a wrong type": (row(keyboard_width="360"), "'keyboard_width' .*positive"),
    "height NaN": (row(keyboard_height=NAN), "'keyboard_height' .*positive"),
    "not an object": ([1, 2], "must be an object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_row_is_refused_by_its_number(case):
    given, message = REFUSED[case]
    with pytest.raises(ConfigurationError, match=message) as refused:
        list(read_traces([row(), given]))
    assert "row 1" in str(refused.value).lower()


def test_a_message_names_the_file(tmp_path):
    path = written(tmp_path / "rows.jsonl", row(), row(), row(x=[1, 2]))
    with pytest.raises(ConfigurationError, match=rf"row 2 of {path}"):
        list(read_traces(path))


@pytest.mark.parametrize(("text", "message"), [('{"word": \n', "line 1"), ("[1]\n", "expected an object")])
def test_a_broken_file_is_refused(tmp_path, text, message):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        list(read_traces(path))
    with pytest.raises(ConfigurationError, match="must exist"):
        list(read_traces(tmp_path / "none.jsonl"))


def test_refused_rows_are_reported_and_the_others_keep_their_numbers():
    refused: list[str] = []
    found = list(read_traces([row(), row(word="don't"), row(x=[1]), row(word="it")], refused=refused))
    assert [(index, trace.word) for index, trace in found] == [(0, "hi"), (3, "it")]
    assert len(refused) == 2
    assert "row 1" in refused[0]
    assert "row 2" in refused[1]


def test_an_error_of_the_source_is_its_own():
    def failing():
        yield row()
        raise ValueError("the disk is full")

    with pytest.raises(ValueError, match=r"^the disk is full$"):
        list(read_traces(failing()))


def test_real_swipes_are_read(real_swipes):
    assert len(real_swipes) == 777
    width = load_layout("qwerty").size[0]
    median = np.median(np.concatenate([trace.x for trace in real_swipes]))
    assert 0.3 * width < median < 0.7 * width
