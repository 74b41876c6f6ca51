"""What was found of the data, in words: in both languages, and without a path of this machine."""
import json
import shutil
import types

import bs4
import pytest

from adlib.config import Config
from adlib.data import corruptions, layout, quality
from adlib.data.quality import Findings
from adlib.report import eda
from adlib.report.words import data_sentences
from adlib.report.words.i18n import chinese


@pytest.mark.parametrize(("rule", "said"), [
    ("parameter", "Data: folder images, as given."),
    ("environment", "Data: folder images (environment variable ADLIB_DATA)."),
    ("project", "Data: folder images of the project."),
    ("drawn", "Data: folder images, drawn by adlib, because neither data_root nor"),
    ("folder", "Data: folder images."),
])
def test_where_the_data_lie_by_the_folders_name(rule, said):
    sentence = data_sentences.data_source(rule, "images")
    assert sentence.startswith(said) and "/home" not in sentence
    assert "images" in chinese(sentence) and chinese(sentence).startswith("数据")


def test_every_problem_is_a_sentence(course_root):
    nut = course_root / "nut"
    (nut / "test" / "000.png").write_bytes(b"")
    shutil.copy(nut / "train" / "good" / "002.png", nut / "test" / "002.png")
    shutil.copy(nut / "train" / "good" / "003.png", nut / "train" / "good" / "004.png")
    findings = quality.check(layout.open_category(course_root, "nut"))
    unreadable, leak, duplicate = data_sentences.findings_problems(findings)
    assert unreadable.startswith("cannot be read: nut/test/000.png (")
    assert leak == ("the same image in training and in evaluation, which flatters every number: "
                    "nut/train/good/002.png, nut/test/002.png")
    assert duplicate.endswith("more than once: nut/train/good/003.png, nut/train/good/004.png")
    assert chinese(leak).endswith("nut/train/good/002.png、nut/test/002.png")
    rows = dict(data_sentences.findings_rows(findings))
    assert rows["sizes in pixels"] == "32x32 (15)" and rows["unreadable"] == "1"
    labels = course_root / layout.LABELS
    labels.write_text(json.dumps({f"nut/test/{i:03d}.png": {"label": "bad"} for i in range(6)}))
    findings = quality.check(layout.open_category(course_root, "nut"))
    assert "all anomalous" in data_sentences.findings_problems(findings)[-1]
    labels.write_text("{")
    findings = quality.check(layout.open_category(course_root, "nut"))
    said = data_sentences.findings_problems(findings)[-1]
    assert said.startswith("image_anomaly_labels.json is not valid JSON (Expecting") and chinese(
        said).startswith("image_anomaly_labels.json 不是有效的 JSON")
    labels.unlink()
    shutil.rmtree(nut / "train" / "bad")
    findings = quality.check(layout.open_category(course_root, "nut"))
    assert "have no labels" in data_sentences.findings_problems(findings)[-1]


@pytest.mark.parametrize(("text", "code"), [
    ("{", "no_json"), ("[]", "no_object"), ('{"nut/../a.png": "bad"}', "leads_out"),
    ('{"nut/test/000.png": "odd"}', "neither"), ('{"nut/test/000.png": "bad"}', "unlabelled"),
    ('{"nut/test/000.png": "bad", "nut\\\\test/000.png": "bad"}', "twice"),
    ('{"nut/test/999.png": "bad"}', "absent")])
def test_what_is_wrong_with_the_labels_is_a_code_in_the_file_and_a_sentence_on_the_page(
        course_root, text, code):
    (course_root / layout.LABELS).write_text(text)
    category = layout.open_category(course_root, "nut")
    findings = quality.check(category)
    said, = data_sentences.findings_problems(findings)
    assert layout.LABELS in said and layout.LABELS in chinese(said) and chinese(said) != said
    part = types.SimpleNamespace(config=Config(reports=str(course_root)), category=category)
    assert str(said) in bs4.BeautifulSoup(eda.card(part, findings), "html.parser").text
    kept = (course_root / "eda" / "nut" / eda.CARD).read_text()
    assert json.loads(kept)["label_problem"][0] == f"labels.{code}"
    assert str(course_root) not in kept + said and str(said) not in kept


def test_suspect_pictures_are_in_the_answer_where_the_files_have_no_problem(course_root):
    category = layout.open_category(course_root, "nut")
    findings = quality.check(category)
    assert not data_sentences.findings_problems(findings)
    assert "speaks against" in data_sentences.data_answer(category, findings)
    said = data_sentences.data_answer(category, findings, 2)
    assert said.endswith("No problem with the files; suspect pictures, above: 2.")
    part = types.SimpleNamespace(config=Config(reports=str(course_root)), category=category)
    card = eda.card(part, findings)
    assert "No problem with the files." in card  # and nothing of the pictures
    # its link leads to the same numbers
    kept = course_root / "eda" / "nut" / bs4.BeautifulSoup(card, "html.parser").select_one(
        ".sources a")["href"]
    assert json.loads(kept.read_text())["counts"] == findings.counts


def test_what_is_noted_of_masks_and_places_is_a_sentence_with_at_most_five_names():
    def said(code, names):
        findings = Findings({"test": 1}, {}, {}, {"good": 1, "bad": 1}, (), (), (), 0, "",
                            noted={code: names})
        sentence, = data_sentences.findings_problems(findings)
        return sentence

    for code in ("unread", "stray", "bare", "respelled", "alike", "absent", "contradicted", "empty",
                 "most", "levels", "exif", "turned"):
        sentence = said(code, tuple(f"a/{i}.png" for i in range(7)))
        assert sentence.startswith(("7 ", "7\N{NO-BREAK SPACE}")) and sentence.endswith(
            "(a/0.png, a/1.png, a/2.png, a/3.png, a/4.png, ...)")
        assert "7 " in chinese(sentence) and "a/4.png" in chinese(sentence)
    assert said("kept", ("a.png", "a.png", "b.png")) == (
        "defects smaller than half a cell of the maps, which count as one cell each: 3 "
        "(a.png, b.png)")
    assert said("unread", ("a\x1b[2J.png", )).endswith("(a\N{REPLACEMENT CHARACTER}[2J.png)")


def test_masks_are_told_by_defect_or_that_there_are_none():
    for masks, said in (({"crack": (2, 3), "cut": (0, 1)}, "crack 2/3, cut 0/1"),
                        ({"crack": (0, 3)}, "none: where the defects are will not be measured"),
                        ({}, "none: where the defects are will not be measured")):
        findings = Findings({"test": 1}, {}, {}, {}, (), (), (), 0, masks=masks)
        assert dict(data_sentences.findings_rows(findings))[
            "defective test images with a mask"] == said


def test_every_corruption_is_a_sentence_of_its_own():
    sentences = {data_sentences.corruption(name, strength)
                 for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS}
    assert len(sentences) == len(corruptions.CORRUPTIONS) * len(corruptions.STRENGTHS)
    assert "sensor noise, standard deviation 4% of the range" in sentences
    with pytest.raises(ValueError, match="unknown corruption 'fog'"):
        data_sentences.corruption("fog", 1)
