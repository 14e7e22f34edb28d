"""The report in a browser: it fetches nothing, its numbers are those of the arrays, its controls do what they say."""

import io
import json
import re

import attrs
import numpy as np
import pytest
from matplotlib.image import imread

pytest.importorskip("selenium", reason="needs selenium")

from selenium.webdriver.common.keys import Keys

from scoreplug.run.figure import figure
from scoreplug.run.report import report
from scoreplug.run.resolve import resolve
from scoreplug.run.runner import run

TABLE = {
    "samples": 5,
    "batch": 2,
    "model": {"name": "gaussian", "image_shape": [1, 8, 12], "covariance": 0.1},
    "operator": "inpainting",
    "conditioner": "dps",
    "sampler": {"name": "pc", "steps": 40},
    "input": {"source": "levels", "noise_std": 0.1},
}


@pytest.fixture(scope="session")
def result(tmp_path_factory):
    """A run, and its folder."""
    folder = tmp_path_factory.mktemp("report")
    np.save(folder / "x.npy", np.linspace(0, 1, 96).reshape(8, 12))
    out = folder / "run"
    config = resolve({**TABLE, "input": {"image": str(folder / "x.npy"), "noise_std": 0.1}})
    return run(config, out), out


@pytest.fixture
def page(browser, result):
    browser.open(result[1] / "report.html")
    return browser


def cells(browser):
    """The lines of the table of the pixel."""
    rows = browser.run("return [...byId('pixel').rows].map(row => [...row.cells].map(cell => cell.textContent))")
    return {name: value for name, value in rows}


def at(browser, row, column):
    """Point at a pixel."""
    browser.run(
        "const box = byId('stage').getBoundingClientRect();"
        "const [row, column] = arguments;"
        "byId('stage').dispatchEvent(new PointerEvent('pointermove', {"
        "clientX: box.left + (column + .5) / width * box.width, clientY: box.top + (row + .5) / height * box.height}))",
        *(row, column),
    )


def pixels(browser, selector):
    """What a canvas shows, (H, W, 3)."""
    found = browser.run(
        "const canvas = document.querySelector(arguments[0]);"
        "const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        "return [canvas.height, canvas.width, [...data]]",
        selector,
    )
    return np.array(found[2], np.uint8).reshape(found[0], found[1], 4)[..., :3]


def gray(x, low, high):
    """What a gray canvas of x shows."""
    level = np.floor(np.clip(255 * (x.astype(np.float32) - low) / (high - low), 0, 255) + 0.5)
    return np.repeat(level[..., None], 3, -1).astype(int)


def close(text, value):
    """A number of the page has four digits, of float32."""
    return float(text) == pytest.approx(value, rel=6e-4, abs=1e-6)


def test_it_loads_without_an_error_or_a_request(page):
    assert page.errors() == []
    assert page.requests() == []
    assert "default-src 'none'" in page.run("return document.querySelector('meta[http-equiv]').content")


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 11), (3, 5)])
def test_the_cursor_shows_the_numbers_of_the_arrays(page, result, row, column):
    at(page, row, column)

    values, found = result[0].samples[:, 0, row, column], cells(page)
    assert page.text("#readout") == f"row {row}, column {column}"
    assert close(found["mean"], values.mean())
    assert close(found["standard deviation"], values.std(ddof=1))
    for share in (5, 25, 50, 75, 95):
        assert close(found[f"{share} %"], np.percentile(values, share))
    assert close(found["truth"], result[0].truth[0, row, column])
    dots = page.run("return [...document.querySelectorAll('#strip .dot')].map(dot => +dot.dataset.value)")
    np.testing.assert_array_equal(dots, values.astype(np.float32))


def test_the_cursor_starts_where_the_samples_differ_most(page, result):
    row, column = np.unravel_index(result[0].std[0].argmax(), (8, 12))

    assert page.text("#readout") == f"row {row}, column {column}"


def test_the_cursor_moves_by_keys_and_stays_inside(page):
    at(page, 2, 2)
    page.press("#stage", Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert page.text("#readout") == "row 3, column 3"

    page.press("#stage", Keys.SHIFT + Keys.ARROW_LEFT)
    assert page.text("#readout") == "row 3, column 0"


def test_images_are_drawn_on_the_scale_of_the_data(page, result):
    low, high = result[0].metrics["data_range"]

    for canvas, x in (("#over", result[0].truth[0]), ("#under", result[0].mean[0])):
        assert np.abs(pixels(page, canvas) - gray(x, low, high)).max() <= 1  # a tie of the rounding


def test_either_side_takes_any_image(page, result):
    page.choose("#left", "sample 2")
    page.click("[data-name='sample 5']")

    for canvas, x in (("#over", result[0].samples[1, 0]), ("#under", result[0].samples[4, 0])):
        assert np.abs(pixels(page, canvas) - gray(x, *result[0].metrics["data_range"])).max() <= 1
    assert page.find("#right").get_attribute("value") == "sample 5"


def test_the_seam_follows_slider_keys_and_pointer(page):
    page.move("#divide", 30)
    assert page.run("return byId('over').style.clipPath") == "inset(0px 70% 0px 0px)"

    page.press("#divide", Keys.ARROW_RIGHT)
    assert page.run("return byId('seam').style.left") == "31%"

    from selenium.webdriver import ActionChains

    page.run("byId('stage').scrollIntoView({block: 'center'})")
    third = page.run("return byId('stage').clientWidth") / 3
    ActionChains(page.driver).drag_and_drop_by_offset(page.find("#seam i"), int(third), 0).perform()
    assert float(page.find("#divide").get_attribute("value")) == pytest.approx(31 + 33, abs=2)


def test_the_gray_range_changes_images_and_not_errors(page, result):
    error = pixels(page, "[data-name='error'] > canvas")
    page.run("byId('low-number').value = 0.25; byId('low-number').dispatchEvent(new Event('change'))")
    page.run("byId('high-number').value = 0.5; byId('high-number').dispatchEvent(new Event('change'))")

    for selector, x in (("#under", result[0].mean[0]), ("[data-name='sample 1'] > canvas", result[0].samples[0, 0])):
        assert np.abs(pixels(page, selector) - gray(x, 0.25, 0.5)).max() <= 1
    np.testing.assert_array_equal(pixels(page, "[data-name='error'] > canvas"), error)
    assert page.text("#left-scale div").startswith("0.25")

    page.click("#reset")
    assert np.abs(pixels(page, "#under") - gray(result[0].mean[0], *result[0].metrics["data_range"])).max() <= 1


def test_thumbs_of_the_gray_range_do_not_pass_each_other(page):
    page.move("#low", 5.0)

    low, high = (float(page.find(f"#{name}").get_attribute("value")) for name in ("low", "high"))
    assert low < high


def test_the_scrubber_goes_through_the_frames(page, result):
    trajectory, scale = result[0].trajectory, result[0].metrics["data_range"]
    last = len(trajectory.levels) - 1
    for frame in (0, 11, last):
        page.move("#level", frame)
        for i in range(4):
            found = pixels(page, f"#frames canvas:nth-child({i + 1})")
            x = trajectory.frames[i, frame, 0]
            step = np.ptp(trajectory.frames[:, frame]) / 255 / (scale[1] - scale[0]) * 255  # of the 8 bits
            assert np.abs(found - gray(x, *scale)).max() <= step / 2 + 1
        if frame < last:
            assert f"noise level {float(f'{trajectory.levels[frame]:.4g}'):g}" in page.text("#level-says")
    assert page.text("#level-says") == f"{last + 1} of {last + 1}: the samples"

    page.press("#level", Keys.ARROW_LEFT)
    assert page.text("#level-says").startswith(f"{last} of {last + 1}: ")


def test_a_title_sorts_the_metrics(page, result):
    title = "table.sortable th:nth-child(2) button"
    column = "return [...document.querySelectorAll('table.sortable tbody td:nth-child(2)')].map(td => +td.dataset.key)"
    page.click(title)
    up = page.run(column)
    page.press(title, Keys.ENTER)
    down = page.run(column)

    assert up == sorted(up)
    assert down == up[::-1]
    assert page.find("table.sortable th:nth-child(2)").get_attribute("aria-sort") == "descending"
    assert len(up) == 3 + len(result[0].samples)


def test_the_theme_follows_the_system_and_then_the_button(browser, result):
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.open(result[1] / "report.html", dark=True)
    dark = browser.run(ground)
    browser.open(result[1] / "report.html")
    light = browser.run(ground)
    browser.press("#theme", Keys.ENTER)

    assert (light, dark) == ("rgb(255, 255, 255)", "rgb(22, 22, 24)")
    assert browser.run(ground) == dark
    assert browser.find("#theme").get_attribute("aria-pressed") == "true"


def test_downloads_are_the_arrays_the_config_and_the_metrics(page, result):
    found, out = result
    page.choose("#saved", "mean")
    page.click("#save-npy")
    np.testing.assert_array_equal(np.load(io.BytesIO(page.saved("mean.npy"))), found.mean[0].astype(np.float32))

    page.click("#save-samples")
    saved = np.load(io.BytesIO(page.saved("samples.npy")))
    np.testing.assert_array_equal(saved, found.samples[:, 0].astype(np.float32))

    page.click("#save-png")
    image = np.rint(255 * imread(io.BytesIO(page.saved("mean.png")))[..., :3])
    assert np.abs(image - gray(found.mean[0], *found.metrics["data_range"])).max() <= 1

    page.click("[data-file='config.toml']")
    assert page.saved("config.toml") == (out / "config.toml").read_bytes()
    page.click("[data-file='metrics.json']")
    assert json.loads(page.saved("metrics.json")) == json.loads((out / "metrics.json").read_text())
    assert page.errors() == []


def test_a_phone_scrolls_in_one_direction(browser, result):
    browser.open(result[1] / "report.html", width=360, height=740)

    assert browser.run("return document.documentElement.scrollWidth") == 360
    assert browser.run("return byId('stage').getBoundingClientRect().right") <= 360


def test_the_tab_key_reaches_every_control_and_the_focus_shows(page):
    wanted = set(
        page.run(
            "const controls = document.querySelectorAll('button, select, input, summary, #stage');"
            "return [...controls].map((control, i) => control.dataset.stop = `${i}`)"
        )
    )
    reached, bare = set(), []
    page.run("document.activeElement.blur()")
    for _ in range(len(wanted) + 10):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        stop, outline = page.run(
            "const e = document.activeElement; return [e.dataset.stop ?? null, getComputedStyle(e).outlineStyle]"
        )
        reached.add(stop)
        bare += [stop] if stop is not None and outline != "solid" else []

    assert wanted <= reached
    assert bare == []


def test_text_has_the_contrast_of_aa(browser, result):
    """WCAG 2: at least 4.5 between text and what it is on, in both themes."""
    colours = (
        "const of = name => { const e = document.createElement('i'); e.style.color = `var(--${name})`;"
        "document.body.append(e); const c = getComputedStyle(e).color; e.remove(); return c; };"
        "const names = ['ink', 'soft', 'accent', 'on-accent', 'paper', 'field', 'edge'];"
        "return Object.fromEntries(names.map(n => [n, of(n)]))"
    )

    def luminance(text):
        c = np.array([int(v) for v in re.findall(r"\d+", text)[:3]]) / 255
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for dark in (False, True):
        browser.open(result[1] / "report.html", dark=dark)
        light = {name: luminance(text) for name, text in browser.run(colours).items()}

        def ratio(a, b, light=light):
            high, low = sorted((light[a], light[b]), reverse=True)
            return (high + 0.05) / (low + 0.05)

        assert min(ratio(a, b) for a in ("ink", "soft", "accent") for b in ("paper", "field")) >= 4.5
        assert ratio("accent", "on-accent") >= 4.5
        assert min(ratio("edge", "paper"), ratio("edge", "field")) >= 3  # what bounds a control


def test_names_of_others_stay_text(browser, result, tmp_path):
    evil = "</script><img src=x onerror='window.hit = 1'><b>"
    found = result[0]
    model = attrs.evolve(found.config.model, name=evil)
    baseline = found.baseline._replace(name=evil)
    bad = attrs.evolve(
        found,
        config=attrs.evolve(found.config, model=model),
        baseline=baseline,
        provenance={**found.provenance, "plugins": [{"name": evil, "version": evil, "state": "ok"}]},
    )
    (tmp_path / "evil.html").write_text(report(bad, figure(found)))
    browser.open(tmp_path / "evil.html")

    assert browser.run("return window.hit") is None
    assert browser.errors() == []
    assert browser.requests() == []
    assert evil in browser.text("h1")
    assert evil in browser.text("[data-name='baseline'] .words")


def test_a_run_in_colour_shows_colours(browser, tmp_path):
    np.save(tmp_path / "x.npy", np.linspace(0, 1, 3 * 64).reshape(3, 8, 8))
    table = {**TABLE, "model": {"name": "gaussian", "image_shape": [3, 8, 8]}, "samples": 2}
    result = run(resolve({**table, "input": {"image": str(tmp_path / "x.npy"), "noise_std": 0.1}}), tmp_path / "run")
    browser.open(tmp_path / "run" / "report.html")
    at(browser, 1, 2)

    low, high = result.metrics["data_range"]
    expected = np.rint(np.clip(255 * (np.moveaxis(result.mean, 0, -1) - low) / (high - low), 0, 255))
    assert np.abs(pixels(browser, "#under") - expected).max() <= 1
    assert close(cells(browser)["mean"], result.samples[:, :, 1, 2].mean())
    assert browser.errors() == []


def test_a_page_of_many_samples_has_statistics_of_all_of_them(browser, result, tmp_path, monkeypatch):
    found = result[0]
    monkeypatch.setattr("scoreplug.run.report.VALUES", 2 * found.mean.size)
    monkeypatch.setattr("scoreplug.run.report.EXACT", 100)
    (tmp_path / "many.html").write_text(report(found, b""))
    browser.open(tmp_path / "many.html")
    at(browser, 4, 4)

    shown, values = cells(browser), found.samples[:, 0, 4, 4]
    assert float(shown["5 %"]) == pytest.approx(np.quantile(values, 0.05), abs=1e-3)
    assert float(shown["standard deviation"]) == pytest.approx(values.std(ddof=1), abs=1e-3)
    assert len(browser.all("#strip .dot")) == 2
    assert "The page holds the first 2 samples; statistics are of all 5." in browser.text(".inspector")
    assert "16 bits a value" in browser.text("main")


def test_a_sinogram_is_shown_and_not_compared(browser, tmp_path):
    table = {**TABLE, "operator": {"name": "radon", "angles": 5}, "samples": 1}
    table |= {
        "model": {"name": "gaussian", "image_shape": [1, 8, 8]},
        "input": {"source": "ellipses", "noise_std": 0.1},
    }
    run(resolve(table), tmp_path / "run")
    browser.open(tmp_path / "run" / "report.html")
    options = browser.run("return [...byId('left').options].map(option => option.value)")

    assert "measurement" not in options
    assert {"truth", "baseline", "mean", "error"} <= set(options)
    assert browser.run("return document.querySelector('[data-name=measurement]').tagName") == "DIV"
    assert cells(browser)["standard deviation"] == "-"
    assert browser.errors() == []
