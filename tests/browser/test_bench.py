"""The page of a benchmark in a browser."""

from pathlib import Path

import pytest

pytest.importorskip("selenium", reason="needs selenium")

from selenium.webdriver.common.keys import Keys

from scoreplug.bench.page import page
from scoreplug.bench.store import read_rows, to_csv
from scoreplug.bench.table import summaries

ROWS = Path(__file__).parents[2] / "docs/bench/budgets.jsonl"


@pytest.fixture(scope="session")
def rows():
    return read_rows(ROWS)


@pytest.fixture(scope="session")
def file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.html"
    path.write_text(page(rows, title="bench <b>"))
    return path


@pytest.fixture
def bench(browser, file):
    browser.open(file)
    return browser


def test_it_loads_without_an_error_or_a_request(bench):
    assert bench.errors() == []
    assert bench.requests() == []
    assert bench.text("h1") == "bench <b>"


def test_every_word_of_the_filter_has_to_occur(bench, rows):
    found = summaries(rows)
    wanted = [s for s in found if all(word in f"{s.problem} {s.method}" for word in ("dps", "ancestral"))]
    bench.press("#filter", "DPS ancestral")

    shown = bench.run("return [...byId('all').tBodies[0].rows].filter(row => !row.hidden).map(row => row.textContent)")
    assert len(found) > len(shown) == len(wanted) > 0
    assert all("dps" in text and "ancestral" in text for text in shown)
    assert bench.text("#filter-says") == f"{len(wanted)} of {len(found)} rows"


def test_titles_sort_numbers_and_words(bench):
    bench.run("document.querySelectorAll('#all th button')[1].click()")
    words = bench.run("return [...document.querySelectorAll('#all tbody tr')].map(r => r.cells[1].textContent)")
    position = bench.run("return [...document.querySelectorAll('#all th')].findIndex(t => t.textContent === 'SW')")
    bench.run("document.querySelectorAll('#all th button')[arguments[0]].click()", position)
    numbers = bench.run(
        "return [...document.querySelectorAll('#all tbody tr')].map(r => r.cells[arguments[0]].dataset.key)", position
    )
    known = [float(key) for key in numbers if key is not None]

    assert bench.run("return arguments[0].every((w, i, all) => i === 0 || all[i - 1].localeCompare(w) <= 0)", words)
    assert known == sorted(known)
    assert None not in numbers[: len(known)]  # what has no value comes last


def test_marks_tell_their_numbers_to_pointer_and_keys(bench):
    first, second = (point.get_attribute("data-words") for point in bench.all(".plot svg .point")[:2])
    bench.press(".plot svg .point", Keys.ARROW_RIGHT)
    assert bench.text(".plot .said") == second

    bench.run("document.querySelector('.plot svg .point').dispatchEvent(new PointerEvent('pointerenter'))")
    assert bench.text(".plot .said") == first


def test_a_conditioner_dims_the_others(bench):
    bench.press(".plot .family", Keys.ENTER)
    dim = "return [...document.querySelector('.plot').querySelectorAll('svg .point.dimmed')].map(p => p.dataset.family)"
    found = bench.run(dim)

    assert found
    assert "0" not in found
    assert bench.find(".plot .family").get_attribute("aria-pressed") == "true"
    bench.click(".plot .family")
    assert bench.run(dim) == []


def test_the_saved_files_are_the_rows(bench, rows):
    bench.click("[data-save='jsonl']")
    assert bench.saved("rows.jsonl") == ROWS.read_bytes()
    bench.click("[data-save='csv']")
    assert bench.saved("rows.csv").decode() == to_csv(rows)


def test_a_phone_scrolls_in_one_direction(browser, file):
    browser.open(file, width=360, height=740)

    assert browser.run("return document.documentElement.scrollWidth") == 360


def test_the_theme_changes_the_heat_map(browser, file):
    colour = "return getComputedStyle(document.querySelector('.value')).backgroundColor"
    browser.open(file)
    light = browser.run(colour)
    browser.click("#theme")

    assert browser.run(colour) != light
