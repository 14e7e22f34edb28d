"""The report's text: complete in itself, true to the result, and safe against names."""

import base64
import json
import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import attrs
import numpy as np
import pytest

from scoreplug.run import report as module
from scoreplug.run._page import embedded
from scoreplug.run.display import pictures
from scoreplug.run.figure import figure
from scoreplug.run.report import report
from scoreplug.run.trajectory import Trajectory

result = runpy.run_path(str(Path(__file__).with_name("test_pictures.py")))["result"]


def data(text):
    """What the page's script reads."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    return json.loads(found)


def numbers(entry):
    """As the page's script decodes an array."""
    raw = np.frombuffer(base64.b64decode(entry["data"]), np.dtype(entry["kind"]).newbyteorder("<"))
    return (entry["offset"] + entry["scale"] * raw.astype(np.float64)).reshape(entry["shape"])


class Outline(HTMLParser):
    """Collects whatever a browser would fetch, and checks that tags are balanced."""

    void = ("meta", "img", "link", "br", "input")

    def __init__(self):
        super().__init__()
        self.sources, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def followed(r):
    """With frames at three levels, each with a range of its own."""
    frames = np.stack([r.samples[:2]] * 3, 1).astype(np.float32) * np.array([100, 10, 1]).reshape(1, 3, 1, 1, 1)
    path = Trajectory(frames=frames, levels=np.array([2.0, 1.0, 0.0]), denoised=np.array([False, True, True]))
    return attrs.evolve(r, trajectory=path)


def test_the_report_is_complete_in_itself():
    r = followed(result(n=3))
    text = report(r, figure(r))
    outline = Outline()
    outline.feed(text)

    assert outline.open == []
    assert [source.partition(",")[0] for source in outline.sources] == ["data:", "data:image/png;base64"]
    assert not re.search(r"@import|url\(", text)
    assert "default-src 'none'" in text


def test_every_picture_is_in_the_data_as_it_is():
    r = result(n=3)
    found = {entry["name"]: entry for entry in data(report(r, b""))["pictures"]}

    assert list(found) == list(pictures(r))
    for name, picture in pictures(r).items():
        np.testing.assert_array_equal(numbers(found[name]["array"]), picture.pixels.astype(np.float32))
        assert (found[name]["low"], found[name]["high"]) == (picture.low, picture.high)


@pytest.mark.parametrize("bits", [8, 16])
def test_quantised_numbers_are_off_by_half_a_step(bits):
    x = np.random.default_rng(0).normal(size=(5, 7))
    entry = embedded(x, bits)

    half = np.ptp(x) / (2**bits - 1) / 2
    np.testing.assert_allclose(numbers(entry), x, rtol=0, atol=half * (1 + 1e-9))
    assert numbers(entry).min() == x.min()


def test_a_constant_is_quantised_without_a_division_by_zero():
    np.testing.assert_array_equal(numbers(embedded(np.full((2, 2), 3.0), 8)), np.full((2, 2), 3.0))


def test_beyond_a_size_the_page_holds_statistics_of_all_samples_and_few_of_them(monkeypatch):
    monkeypatch.setattr(module, "VALUES", 130)
    r = result(n=6)
    text = report(r, b"")
    found = data(text)

    assert [entry["name"] for entry in found["pictures"] if entry["sample"]] == ["sample 1", "sample 2"]
    expected = {
        "mean": r.samples[:, 0].mean(0),
        "std": r.samples[:, 0].std(0, ddof=1),
        "quantiles": np.quantile(r.samples[:, 0], found["quantiles"], axis=0),
    }
    for name, value in expected.items():
        np.testing.assert_array_equal(numbers(found["summary"][name]), value.astype(np.float32))
    assert "The page holds the first 2 samples; statistics are of all 6." in text


def test_all_samples_of_a_small_run_are_there():
    found = data(report(result(n=6), b""))

    assert found["summary"] is None
    assert sum(entry["sample"] for entry in found["pictures"]) == 6


def test_frames_are_held_level_by_level_in_8_bits():
    r = followed(result(n=3))
    text = report(r, b"")
    found = data(text)["trajectory"]

    assert (found["levels"], found["denoised"]) == ([2.0, 1.0, 0.0], [False, True, True])
    for entry, frames in zip(found["frames"], r.trajectory.frames.swapaxes(0, 1), strict=True):
        assert entry["kind"] == "uint8"
        np.testing.assert_allclose(numbers(entry), frames[:, 0], rtol=0, atol=np.ptp(frames) / 255 * 0.501)
    assert "In 1 of the steps" in text


def test_the_report_escapes_what_it_quotes():
    name = "</script><script>alert(1)</script>"
    r = result(title=name)
    text = report(r, b"")

    assert "<script>alert" not in text
    assert text.count("</script>") == text.count("<script") == 3  # the page's own: shared, data, report
    assert r.config.model.name == name
    assert data(text)["files"]["config.toml"] == r.config.to_toml()


def test_the_report_shows_every_number_of_the_table():
    r = result(n=2)
    text = report(r, b"")

    for entry in (*r.metrics["samples"], r.metrics["posterior_mean"], r.metrics["baseline"]):
        for key in ("psnr", "residual"):
            assert f'<td data-key="{entry[key]}">{entry[key]:.4g}</td>' in text


def test_a_demo_stays_below_two_megabytes():
    r = result(shape=(1, 64, 64), n=8)
    frames = np.zeros((4, 24, 1, 64, 64), np.float32)
    path = Trajectory(frames=frames, levels=np.zeros(24), denoised=np.ones(24, bool))

    assert len(report(attrs.evolve(r, trajectory=path), figure(r))) < 2_000_000


def test_one_sample_has_no_statistics_and_the_page_says_so():
    assert "One sample: there is nothing to take a deviation or a quantile of." in report(result(n=1), b"")
