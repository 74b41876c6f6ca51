"""Tags and notes on images: kept in a file that people edit, and lost by nothing."""
from adlib.data import files
from adlib.report import explore
from tests.report import test_explore
from tests.report.test_explore import control, page

opened, reports = test_explore.opened, test_explore.reports


def test_tags_and_notes_are_kept_in_a_csv_and_come_back(opened):
    path = opened.reports / "notes" / "nut.csv"
    box = explore.notes(opened)
    image, tags, note = (control(box, name) for name in ("image", "tags", "note"))
    first, second = image.options[0][1], image.options[1][1]
    tags.value, note.value = "blurred, odd", ' =2+2, "why"\n?'
    control(box, "keep").click()
    assert explore.read_notes(path).reset_index().to_dict("records") == [
        {"path": first, "tags": "blurred, odd", "note": "\'=2+2, \"why\"\n?"}]
    image.value = second
    assert (tags.value, note.value) == ("", "")
    note.value = "a label to doubt"
    control(box, "keep").click()
    assert "notes/nut.csv, in the folder of the results, has notes on 2" in page(box).text
    again = explore.notes(opened)
    control(again, "image").value = second
    assert control(again, "note").value == "a label to doubt"
    control(again, "note").value = ""
    control(again, "keep").click()
    assert list(explore.read_notes(path).index) == [first]


def test_a_note_replaces_no_note_on_an_image_that_is_gone_and_a_damaged_file_is_named(opened):
    path, box = opened.reports / "notes" / "nut.csv", explore.notes(opened)
    gone = [f"nut/test/{i}.png" for i in range(100, 100 + len(opened.test) + 2)]
    files.write_text(path, "path,tags,note\n" + "".join(f"{key},odd,\n" for key in gone))
    control(box, "note").value = "why?"
    control(box, "keep").click()
    assert set(explore.read_notes(path).index) == {*gone, control(box, "image").value}
    files.write_text(path, "path,who,tags,note\na,me,odd,\na,you,,why\n")  # a column of one's own
    control(box, "keep").click()
    key = control(box, "image").value
    assert explore.read_notes(path).reset_index().to_numpy().tolist() == [
        ["a", "odd", "", "me"], ["a", "", "why", "you"], [key, "", "why?", ""]]
    path.write_bytes(b"path,tags,note\n\xe4,b,c\n")
    control(box, "keep").click()
    assert "nut.csv cannot be read as CSV in UTF-8" in page(box).text
    assert path.read_bytes().startswith(b"path,tags,note\n\xe4")
