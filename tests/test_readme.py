"""README.md and README.zh-CN.md say the same, line by line: who changes one changes the other. What
any page of the documentation leads to, or names by its path, is there."""
import re
import shlex
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import pytest

from adlib import cli

ROOT = Path(__file__).resolve().parents[1]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)]+)\)")
SPAN = re.compile(r"`([^`]+)`")
NUMBER = re.compile(r"\d*\.?\d+")
# of a heading, an item, a quotation, a row of a table
MARK = re.compile(r"\s*(#+ |[-*] |\d+\. |> |\|)?")
HAN = re.compile(r"[\u4e00-\u9fff]")
PAGES = [ENGLISH, CHINESE, *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"\b(?:adlib|benchmarks|docs|notebooks|params|tests)/[\w/.-]*\.(?:ipynb|md|py|yaml)\b")
THE_READERS_OWN = {"params/configurations/mine.yaml"}


def parts(path: Path) -> list[tuple[bool, str]]:
    """Every line, and whether it lies in a fenced code block."""
    found, inside = [], False
    for line in path.read_text(encoding="utf-8").splitlines():
        inside ^= (fence := line.startswith("```"))
        found.append((inside and not fence, line))
    return found


def anchors(page: Path) -> list[str]:
    """Of its headings, as GitHub makes them: small letters, a hyphen for a space, no marks."""
    headings = [line for inside, line in parts(page) if line.startswith("#") and not inside]
    return [re.sub(r"[^\w-]", "", line.lstrip("# ").lower().replace(" ", "-"))
            for line in headings]


def facts(inside: bool, line: str) -> dict:
    """What a translation leaves as it is. Words may change places within a line, so numbers and
    code are counted, links are not."""
    numbers = Counter(NUMBER.findall(line))
    if inside:
        return {"code": line.partition("#")[:2], "numbers": numbers}
    links = [(image, text == target, target) for image, text, target in LINK.findall(line)]
    return {
        "block": line if line.startswith(("```", "|--")) else MARK.match(line).group(),
        "empty": not line, "columns": line.count("|"), "links": [
            link for link in links if link[-1] not in (ENGLISH.name, CHINESE.name)
        ], "spans": Counter(SPAN.findall(line)), "numbers": numbers
    }


def test_both_hold_the_same_line_by_line():
    pairs = zip_longest(parts(ENGLISH), parts(CHINESE), fillvalue=(False, "(no such line)"))
    for number, (english, chinese) in enumerate(pairs, 1):
        assert facts(*english) == facts(*chinese), f"line {number}:\n{english[1]}\n{chinese[1]}"


@pytest.mark.parametrize("path, spoken", [(ENGLISH, False), (CHINESE, True)],
                         ids=["english", "chinese"])
def test_each_is_in_its_own_language(path, spoken):
    for inside, line in parts(path):
        prose = line.partition("#")[2] if inside else SPAN.sub("", line)
        if any(map(str.isalpha, prose)) and "](README" not in line and not line.startswith("```"):
            assert bool(HAN.search(prose)) is spoken, line


def test_each_leads_to_the_other_at_its_top():
    assert ENGLISH.read_text(encoding="utf-8").splitlines()[2] == "[中文](README.zh-CN.md)"
    assert CHINESE.read_text(encoding="utf-8").splitlines()[2] == "[English](README.md)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_leads_to_is_there(page):
    text = page.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for _, _, target in LINK.findall(text)]
    assert [target for target in targets
            if "://" not in target and not (page.parent / target).exists()] == []
    named = set(NAMED.findall(text)) - THE_READERS_OWN
    assert sorted(path for path in named if not (ROOT / path).is_file()) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_to_a_heading_has_that_heading(page):
    places = [(page.parent / path if path else page, anchor)
              for _, _, target in LINK.findall(page.read_text(encoding="utf-8"))
              for path, hash, anchor in [target.partition("#")] if hash and "://" not in target]
    assert [anchor for path, anchor in places if anchor not in anchors(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_place_of_one_machine(page):
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|Users|work)/", page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_commands_are_commands(page):
    lines = [line for inside, line in parts(page) if inside]
    spans = SPAN.findall("\n".join(line for inside, line in parts(page) if not inside))
    for command in lines + [span for span in spans if "..." not in span and " -" in span]:
        words = shlex.split(command, comments=True) if command.startswith("adlib ") else []
        if words and not {"--version", "--help"} & set(words):
            cli._parser().parse_args(words[1:])  # ends the test with what is wrong with it


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("results*.md")),
                         ids=lambda page: page.name)
def test_measured_results_name_scores_in_words(page):
    codes = re.findall(r"\b(?:squared|ssim|sum|gradient|distance)\.(?:mean|max|top1)\b",
                       page.read_text(encoding="utf-8"))
    assert not codes
