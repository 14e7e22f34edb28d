"""The page: complete, by itself, and true to the rows."""

import re
from html.parser import HTMLParser

import pytest

from scoreplug.bench.cell import Row
from scoreplug.bench.page import page
from scoreplug.bench.pareto import plot
from scoreplug.bench.table import summaries


@pytest.fixture
def rows(cells_of):
    cells = cells_of(
        {"sampler": "exact"},
        {"conditioner": ["dps", {"name": "dps", "scale": 0.2}], "sampler": ["em", "ode"]},
        {"conditioner": "song", "sampler": "em", "label": "a <b> & c"},
        seeds=2,
        budgets=[20, 100],
    )
    found = []
    for i, cell in enumerate(cells):
        if cell.method_label == "a <b> & c":
            found.append(Row(cell=cell, status="failed", reason="ValueError: <script>alert(1)</script>"))
            continue
        metrics = {"sliced_wasserstein": 1.0 + i, "sliced_wasserstein_floor": 0.5, "crps": 2.0}
        cost = {"evaluations": float(cell.budget or 0), "vjps": 0.0, "seconds": 0.1}
        found.append(Row(cell=cell, metrics=metrics, cost=cost, warnings=["mind <this>"]))
    return found


class Outline(HTMLParser):
    """Tags that stay open, and addresses that a browser would fetch."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.fetched = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        fetching = {"src", "href", "xlink:href", "data"}
        self.fetched += [v for k, v in attributes if k in fetching and not v.startswith("#")]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_it_is_well_formed_and_fetches_nothing(rows):
    text = page(rows, title="test")
    outline = Outline()
    outline.feed(text)

    assert (outline.open, outline.wrong, outline.fetched) == ([], [], [])
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text


def test_it_shows_every_method_of_every_problem_with_its_numbers(rows):
    text = page(rows, title="test")

    for summary in summaries(rows):
        assert summary.method.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") in text
    assert str(summaries(rows)[0].estimates["sliced_wasserstein"]) in text


def test_text_of_others_stays_text(rows):
    text = page(rows, title="<i>title</i>")

    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<i>title" not in text
    assert "mind &lt;this&gt;" in text


def test_the_sorting_takes_few_lines(rows):
    (script,) = re.findall(r"<script>\n(.*?)</script>", page(rows, title="test"), flags=re.DOTALL)

    assert len(script.splitlines()) <= 30


def test_the_picture_has_the_colour_of_the_text_and_no_address(rows):
    svg = plot([s for s in summaries(rows) if s.error is not None])

    assert "currentColor" in svg
    assert "#010203" not in svg
    assert set(re.findall(r"https?://[^\"' ]+", svg)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_the_same_rows_give_the_same_page(rows):
    assert page(rows, title="test") == page(rows, title="test")


def test_it_can_be_made_of_rows_without_any_number(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": "em"})

    text = page([Row(cell=cell, status="refused", reason="no")], title="test")

    assert "What did not run" in text
    assert "<svg" not in text
