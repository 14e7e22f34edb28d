"""The page: complete, by itself, and true to the rows."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import pytest

from scoreplug.bench.cell import Row, canonical
from scoreplug.bench.page import page
from scoreplug.bench.pareto import front, plot
from scoreplug.bench.store import to_csv
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
        self.fetched += [v for k, v in attributes if k in fetching and v != "data:,"]

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


def test_the_rows_are_in_the_page_as_they_are_in_their_files(rows):
    (text,) = re.findall(r'id="data">(.*?)</script>', page(rows, title="test"), flags=re.DOTALL)
    files = {name: gzip.decompress(base64.b64decode(packed)).decode() for name, packed in json.loads(text).items()}

    assert files == {"csv": to_csv(rows), "jsonl": "".join(f"{canonical(row.table)}\n" for row in rows)}


def test_the_picture_has_every_method_at_its_place(rows):
    """Fewer evaluations are further left, smaller errors further down."""
    found = [s for s in summaries(rows) if s.error is not None and s.evaluations]
    picture = plot(found)

    assert [point["words"].partition(": ")[0] for point in picture["points"]] == [s.method for s in found]
    for place, value in (("x", lambda s: s.evaluations), ("y", lambda s: -s.error.mean)):
        order = sorted(range(len(found)), key=lambda i: value(found[i]))
        places = [picture["points"][i][place] for i in order]
        assert places == sorted(places)
    x0, y0, x1, y1 = picture["box"]
    for point in picture["points"]:
        below, above = point["bar"]
        assert x0 < point["x"] < x1
        assert y0 < point["y"] + above < point["y"] < point["y"] + below < y1


def test_the_picture_marks_the_methods_of_the_front(rows):
    found = [s for s in summaries(rows) if s.error is not None]
    real = [s for s in found if s.comparable and s.evaluations]
    best = {(real[i].method, real[i].evaluations) for i in front([(s.evaluations, s.error.mean) for s in real])}

    marked = [
        s for s, point in zip([s for s in found if s.evaluations], plot(found)["points"], strict=True) if point["best"]
    ]
    assert {(s.method, s.evaluations) for s in marked} == best


def test_there_is_no_picture_of_nothing():
    assert plot([]) is None


def test_the_same_rows_give_the_same_page(rows):
    assert page(rows, title="test") == page(rows, title="test")


def test_it_can_be_made_of_rows_without_any_number(cells_of):
    (cell,) = cells_of({"conditioner": "dps", "sampler": "em"})

    text = page([Row(cell=cell, status="refused", reason="no")], title="test")

    assert "What did not run" in text
    assert "<svg" not in text
