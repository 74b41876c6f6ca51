"""What is displayed in a notebook, and how."""
import pytest
from markupsafe import Markup

from adlib.report.display import components, figures, render
from adlib.report.words.i18n import Text


@pytest.fixture
def displayed(monkeypatch):
    import IPython.display

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda what, raw=False: shown.append(what))
    return shown


def test_what_has_a_caption_is_a_figure_with_its_permalink_data_and_code(displayed):
    figures.show(Markup("<svg></svg>"), Text("A <curve>.", "曲线。"), "loss-curve", "history.csv")
    shown = displayed[0]["text/html"]
    assert 'id="loss-curve"' in shown and 'href="#loss-curve"' in shown and "<svg>" in shown
    assert "A &lt;curve&gt;." in shown and "曲线。" in shown and 'href="history.csv"' in shown
    assert 'href="#cell"' in shown and displayed[0]["text/plain"] == "A <curve>."


def test_a_component_moves_in_jupyterlab_and_comes_alone_elsewhere(displayed, monkeypatch):
    figures.show("")
    assert displayed == []
    fragment = components.paragraph("a < b")
    figures.show(fragment)
    monkeypatch.setattr(figures, "attended", lambda: True)
    figures.show(fragment)
    assert displayed[0]["text/html"] == fragment and render.script() in displayed[1]["text/html"]


def test_of_a_notebook_that_nobody_attends_the_first_output_has_the_style(displayed, monkeypatch):
    """For `jupyter nbconvert --to html`; the report's pages have their own."""
    monkeypatch.setattr("IPython.get_ipython", lambda: True)
    monkeypatch.setattr(figures, "_first", iter([True]))
    monkeypatch.setattr(figures, "attended", lambda: False)
    for name in ("one", "two"):
        figures.show(Markup("<svg></svg>"), "A curve.", name)
    first, second = (each["text/html"] for each in displayed)
    assert render.style() in first and "<style" not in second and "<script" not in first
    assert components.unstyled(first) == second.replace("two", "one")


def test_a_sentence_shows_names_as_they_are_and_commands_as_code(displayed):
    figures.say("run `adlib run` on <b>")
    assert "<code>adlib run</code> on &lt;b&gt;" in displayed[0]["text/html"]


@pytest.mark.parametrize(("header", "there"), [({"content": {"allow_stdin": True}}, True),
                                               ({"content": {"allow_stdin": False}}, False),
                                               ({}, False), (None, False)])
def test_somebody_is_there_where_the_front_end_takes_questions(monkeypatch, header, there):
    import IPython

    monkeypatch.setattr(IPython, "get_ipython",
                        lambda: type("Shell", (), {"parent_header": header})())
    assert figures.attended() is there
