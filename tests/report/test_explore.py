"""The widgets without a browser: a control is set, and the HTML beside it says what it should; and
what is shown where nobody is there."""
import math
import shutil

import bs4
import ipywidgets as w
import numpy as np
import pytest
from tests.conftest import picture
from tests.handmade import small_run

from adlib.data import layout
from adlib.evaluation import calibration, evaluate, verdicts
from adlib.report import explore, looking


@pytest.fixture
def reports(course_root, tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "SYNTHETIC", 8)
    for i in range(6, 14):  # more test images than fit on a page
        picture(course_root / "nut" / "test" / f"{i:03d}.png", 20 + i, defect=i % 2 == 1)
    path = course_root / "image_anomaly_labels.json"
    labels = [
        f'"nut/test/{i:03d}.png": {{"original_category": "nut", "label": '
        f'"{("good", "bad")[i % 2]}"}}' for i in range(6, 14)
    ]
    path.write_text(path.read_text().rstrip()[:-1] + ", " + ", ".join(labels) + "}")
    return tmp_path / "reports"


@pytest.fixture
def look(course_root, reports):
    return looking.look(
        small_run(course_root, reports, model="mean_grey", name="mean_grey", image_size=64))


def control(box, description):
    found = [one for one in widgets(box) if getattr(one, "description", None) == description]
    assert len(found) == 1, description
    return found[0]


def widgets(box):
    return [box, *(inner for child in getattr(box, "children", ()) for inner in widgets(child))]


def page(box):
    found = bs4.BeautifulSoup(explore.still(box), "html.parser")
    for part in found.select("[lang=zh-CN]"):
        part.decompose()
    return found


def confusion(box):
    return tuple(int(cell.text) for cell in page(box).select("td[data-count]"))


def counts(look, threshold):
    found = verdicts.counts(*evaluate.arrays(look.results, "test", "chosen_score"), threshold)
    return found.found, found.missed, found.false_positives, found.passed


def test_the_threshold_starts_where_no_label_put_it_and_jumps(look):
    box = explore.threshold(look)
    slider = control(box, "threshold")
    assert confusion(box) == counts(look, look.line)
    _, scores = evaluate.arrays(look.results, "test", "chosen_score")
    seen = []
    for i, cut in enumerate(verdicts.cuts(scores)):
        slider.value = i
        seen.append(confusion(box))
        assert seen[-1] == counts(look, cut)
    assert seen[0][1] == seen[0][3] == seen[-1][0] == seen[-1][2] == 0  # from all anomalous to none
    control(box, "oracle (uses labels)").click()
    assert confusion(box) == counts(look, verdicts.oracle(look.results, "chosen_"))
    control(box, "label-free threshold").click()
    assert confusion(box) == counts(look, look.line)
    rates = control(box, "asked false-alarm rate")
    for _, rate in rates.options[1:]:
        rates.value = rate
        assert confusion(box) == counts(look, verdicts.asked(look.results, rate, "chosen_"))
    assert len(rates.options) > 1 and len(page(box).select("svg")) == 1


def test_without_labels_or_threshold_the_widget_says_so(course_root, reports):
    folder = small_run(course_root, reports, model="mean_grey", name="mean_grey", held_out=0.0)
    look = looking.look(folder)
    box = explore.threshold(look)
    assert math.isnan(look.line) and control(box, "label-free threshold").disabled
    assert confusion(box) == counts(look, verdicts.oracle(look.results, "chosen_"))
    look.results["label"] = np.nan
    assert "no labels of both classes" in page(explore.threshold(look)).text


def test_the_gallery_follows_its_filters_and_leafs(look):
    box = explore.gallery(look)
    show, split, defect, called, number = (control(
        box, name) for name in ("show", "split", "defect", "called", "page"))

    def names():
        return [caption.strong.text for caption in page(box).select("figcaption")]

    assert show.options == verdicts.PICKS and names(
    ) == ["bad"] * explore.EACH and "1 to 6 of 7 images." in page(box).text
    number.value = 2
    assert names() == ["bad"]
    show.value = "worst false alarms"
    assert number.value == 1 and names() == ["good"] * explore.EACH
    called.value = "anomalous"
    test = look.rows[(look.rows["split"] == "test") & (look.rows["label"] == 0)]
    assert len(names()) == min(explore.EACH, int((test["score"] >= look.line).sum()))
    called.value, show.value, split.value, defect.value = "*", "random", "*", "bad"
    assert set(names()) == {
        "bad"
    } and f"of {int((look.rows['defect'] == 'bad').sum())} images." in page(box).text
    split.value = "train"
    assert page(box).text.strip().endswith("No image is like that.")


def test_two_configurations_are_compared_and_another_is_opened(course_root, reports, look,
                                                               monkeypatch):
    folder = reports / "runs" / "nut" / "mean_grey" / "seed-0"
    assert "Only mean_grey has a finished run of nut" in page(
        explore.compare(look, looking.others(folder))).text
    for name in ("contrast", "laplacian_variance"):
        other = small_run(course_root, reports, model=name, name=name, image_size=64)
    opened, real = [], looking.look
    monkeypatch.setattr(
        looking, "look",
        lambda folder, data_root: opened.append(folder.parent.name) or real(folder, data_root))
    box = explore.compare(look, looking.others(folder))
    second, image = control(box, "mean_grey beside"), next(
        one for one in widgets(box) if isinstance(one, w.IntSlider))
    pairs = looking.together(look, real(looking.others(folder)["contrast"]))
    assert image.value == looking.farthest(pairs) and image.max == len(pairs) - 1
    for i in (0, image.max):
        image.value = i
        assert pairs["path"][i] in page(box).text and [
            part.text for part in page(box).select("figcaption strong")
        ][::2] == ["mean_grey", "contrast"]
    second.value = "laplacian_variance"
    assert "laplacian_variance" in page(box).select("figcaption")[1].text and opened == [
        "contrast", "laplacian_variance"
    ]
    shutil.rmtree(other)  # the other run is gone meanwhile: told, and the next choice works
    second.value = "contrast"
    assert opened[-1] == "laplacian_variance" and "contrast" in page(box).select(
        "figcaption")[1].text


def test_a_run_that_cannot_be_opened_is_told(course_root, reports, look):
    other = small_run(course_root, reports, model="contrast", name="contrast")
    others = looking.others(reports / "runs" / "nut" / "mean_grey" / "seed-0")
    (other / "metrics.json").unlink()
    assert "holds no finished run" in page(explore.compare(look, others)).text


def test_what_if_follows_every_control(look):
    box = explore.what_if(look)
    before = page(box)
    assert len(before.select("img")) == 3 and "of the image changed" in before.text
    seen = {str(before)}
    for name, value in (("across", 0.3), ("down", 0.6), ("size", 0.5), ("contrast", 0.6),
                        ("anomaly", "perlin"), ("picture", 1)):
        control(box, name).value = value
        seen.add(explore.still(box))
    control(box, "another one").click()
    seen.add(explore.still(box))
    assert len(seen) == 8
    control(box, "contrast").value = 0
    assert "0.00% of the image changed" in page(box).text


def test_any_image_can_be_looked_at_a_kind_at_a_time(course_root, reports):
    category = layout.open_category(course_root, "nut")
    box = explore.browse(category, 64)
    kind, number = control(box, "kind"), control(box, "page")
    kinds = [label for label, _ in kind.options]
    assert kinds == [
        "train, good (8)", "test, good (7)", "test, bad (7)", "train_bad (never trained on) (2)"
    ]
    assert len(page(box).select("img")) == 8
    kind.value = "test, bad"
    assert [caption.text for caption in page(box).select("figcaption")] == [
        f"{i:03d}.png" for i in range(1, 14, 2)
    ]
    number.value = 2  # after the last page comes the first
    assert len(page(box).select("img")) == 7


def test_where_somebody_is_there_the_widget_is_shown_and_elsewhere_its_twin(monkeypatch):
    import IPython.display

    shown, made = [], []
    monkeypatch.setattr(IPython.display, "display",
                        lambda what, raw=False: shown.append(what if raw else what.data))

    def make(text):
        made.append(text)
        return w.VBox([w.IntSlider(), w.HTML(text)])

    explore.show(make, "<b>one</b>")
    explore.show(make, "two", twin="")
    assert not explore.attended() and shown == ["<b>one</b>"] and made == ["<b>one</b>"]
    monkeypatch.setattr(explore, "attended", lambda: True)
    explore.show(make, "three", twin="")
    assert shown[1]["text/html"] == "three" and "application/vnd.jupyter.widget-view+json" in shown[
        1]


@pytest.mark.parametrize(("header", "there"), [({"content": {"allow_stdin": True}}, True),
                                               ({"content": {"allow_stdin": False}}, False),
                                               ({}, False), (None, False)])
def test_somebody_is_there_where_the_front_end_takes_questions(monkeypatch, header, there):
    import IPython

    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"parent_header": header})
                        ())
    assert explore.attended() is there
