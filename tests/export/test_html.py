"""report.html: whole, true to the report, safe with any name, and in need of nothing but itself."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from clipedge.calibration.half.plan import KeptOperation
from clipedge.calibration.sensitivity import LayerProfile
from clipedge.export.html import MAX_CHANGES, report_html
from clipedge.export.report import Beside, Report, TowerReport, report_lines
from clipedge.export.verify import COSINE_EDGES, AnswerChange, CosineHistogram, Parity, ZeroShot
from clipedge.manifest import Provenance

HOSTILE = "<script>alert('1')</script> & \"$x_1$\""
VOID = {"meta"}


class Page(HTMLParser):
    """Checks that elements nest, and gathers what a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def tower(latency: float) -> TowerReport:
    counts = tuple(range(len(COSINE_EDGES) - 1))
    parity = Parity(325, 0.98765, 0.97654, 0.91234, 0.01, 0.9321, CosineHistogram(COSINE_EDGES, counts, counts[::-1]))
    return TowerReport(parity, 400_000_000, 100_000_000, 60.0, latency)


CHANGES = (AnswerChange("cat", "cat", "dog", 5), AnswerChange("eel", "dog", "eel", 3), AnswerChange("a", "b", "c", 1))
LAYERS = tuple(
    LayerProfile("image", f"blocks.{i}.fc1", 20.0 + i, 1000, 4_000_000, 0.001 * i if i else None, i == 2)
    for i in range(4)
)
REPORT = Report(
    model="my-clip",
    precision="int8",
    target="x86",
    engine="onnxruntime 1.2.3",
    calibration="650 pictures of photos",
    proof="325 pictures of photos",
    unreadable=(),
    towers={"image": tower(20.0), "text": tower(90.0)},
    zero_shot=ZeroShot(325, 3, 0.9723, CHANGES, 0.9012, 0.8923, (0.86, 0.93), (0.85, 0.92), 0.89, (-0.12, 1.9)),
    failures=(),
    provenance=Provenance("my-clip", "mit", "ab" * 32, "cd" * 32, "2026-01-02T03:04:05+00:00", {"onnx": "1.2"}),
    layers=LAYERS,
)


def test_the_page_says_what_the_report_says() -> None:
    page = Page(report_html(REPORT))
    first = page.text.index("Size, latency, parity")
    for fact in (
        "Passed.", "90.12 % to 89.23 %", "325 pictures", "0.89 points", "-0.12 to 1.90", "4.0 times smaller",
        "3.0 times faster",
    ):  # fmt: skip
        assert fact in page.text[:first]
    for fact in (
        "400.00 100.00 0.25", "90.00 1.50", "0.98765", "0.97654", "0.91234", "93.2", "86.00 to 93.00", "85.00 to 92.00",
        "9 of 325 pictures changed", "5 right → wrong", "3 wrong → right", "1 wrong → other wrong", "cat cat dog",
        "1 of 4 quantizable layers", "image: blocks.2.fc1 22.0 0.002 25.0 % 4.00", "650 pictures of photos", "mit",
        "cd" * 32, "onnx 1.2", "onnxruntime 1.2.3",
    ):  # fmt: skip
        assert fact in page.text, fact


def test_half_precision_has_rows_of_its_own_and_what_it_left_in_float32() -> None:
    half = dataclasses.replace(tower(20.0), half_parity=dataclasses.replace(tower(20.0).parity, samples=128))
    kept = tuple(KeptOperation("image", f"blocks.{i}.qkv", f"blocks.{i}.<qkv> comes to 90,000") for i in range(7))
    report = dataclasses.replace(REPORT, precision="fp16", layers=(), towers={"image": half}, kept=kept)
    text = Page(report_html(report)).text
    for fact in (
        "image tower in real half precision (128 inputs), median centred cosine 0.97654", "checked for overflow on",
        "7 operations are left in float32", "image: blocks.6.qkv blocks.6.<qkv> comes to 90,000",
    ):  # fmt: skip
        assert fact in text, fact
    lines = "\n".join(report_lines(report))
    assert "in real half precision, 128 inputs" in lines and "checked for overflow on 650 pictures" in lines
    assert "image blocks.4.qkv (blocks.4.<qkv> comes to 90,000), and 2 more" in lines


def test_text_in_the_pictures_is_text_and_layers_in_float_have_their_colour() -> None:
    plain = dataclasses.replace(REPORT, layers=tuple(dataclasses.replace(layer, in_float=False) for layer in LAYERS))
    pages = report_html(REPORT), report_html(plain)
    assert "blocks.3.fc1" in Page(pages[1]).text  # the table names only layers in float; this is the axis
    bars = [re.findall(r'<path [^>]*style="fill: #e08a1e"', page) for page in pages]
    assert len(bars[0]) == 2 and bars[1] == []


@pytest.mark.parametrize(
    "report",
    [
        REPORT,
        dataclasses.replace(REPORT, zero_shot=None, layers=(), towers={"image": tower(20.0)}),
        dataclasses.replace(REPORT, failures=("median is low",), unreadable=("a.png: damaged",), calibration=None),
    ],
)
def test_the_page_is_whole_and_needs_nothing_else(report: Report) -> None:
    source = report_html(report)
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "image"} & {*page.elements}
    assert "http:" not in source and "https:" not in source and "@import" not in source
    assert not re.search(r"url\((?!#)", source)
    references = set(re.findall(r'href="#([^"]+)"', source)) | set(re.findall(r"url\(#([^)]+)\)", source))
    assert references <= {*page.ids} and len(page.ids) == len({*page.ids})
    assert source == report_html(report)


def test_any_name_is_only_text() -> None:
    assert REPORT.zero_shot is not None
    changes = (AnswerChange(HOSTILE, HOSTILE, "dog", 1),)
    hostile = dataclasses.replace(
        REPORT,
        model=HOSTILE,
        calibration=HOSTILE,
        proof=HOSTILE,
        unreadable=(HOSTILE,),
        failures=(HOSTILE,),
        zero_shot=dataclasses.replace(REPORT.zero_shot, changes=changes),
        layers=(dataclasses.replace(LAYERS[0], layer=HOSTILE),),
        provenance=dataclasses.replace(REPORT.provenance, source_model=HOSTILE, source_license=HOSTILE),
    )
    page = Page(report_html(hostile))
    assert "script" not in page.elements
    assert page.text.count("<script>alert('1')</script>") >= 11


def test_without_labels_the_neighbours_stand_in_the_verdict() -> None:
    page = Page(report_html(dataclasses.replace(REPORT, zero_shot=None)))
    assert "the same nearest neighbour for 93.2 % of the pictures" in page.text and "accuracy" not in page.text


def test_an_export_below_the_gate_says_why() -> None:
    page = Page(report_html(dataclasses.replace(REPORT, failures=("median cosine is 0.5",))))
    assert "Failed." in page.text and "does not give" in page.text and "median cosine is 0.5" in page.text


def test_long_lists_of_changes_are_cut_and_say_so() -> None:
    assert REPORT.zero_shot is not None
    changes = tuple(AnswerChange(None, f"a{i}", f"b{i}", 1) for i in range(MAX_CHANGES + 10))
    page = Page(
        report_html(dataclasses.replace(REPORT, zero_shot=dataclasses.replace(REPORT.zero_shot, changes=changes)))
    )
    assert f"b{MAX_CHANGES - 1} " in page.text and f"b{MAX_CHANGES} " not in page.text
    assert f"{MAX_CHANGES} most frequent of {MAX_CHANGES + 10}" in page.text


def test_layers_without_signal_or_measurement_are_drawn() -> None:
    odd = [dataclasses.replace(LAYERS[0], snr_db=value, cost=None) for value in (float("inf"), float("nan"))]
    page = Page(report_html(dataclasses.replace(REPORT, layers=tuple(odd))))
    assert "not measured" in page.text


def test_the_terminal_names_layers_in_float_and_counts_unreadable_pictures() -> None:
    lines = report_lines(dataclasses.replace(REPORT, unreadable=tuple(f"{i}.png: damaged" for i in range(7))))
    text = "\n".join(lines)
    assert "left in float, 25.0 % of the multiply-adds: image blocks.2.fc1" in text
    assert "left out: 7" in text and "4.png" in text and "5.png" not in text and "2 more" in text


def test_two_quantizers_stand_side_by_side_on_the_page_and_in_the_terminal() -> None:
    parity = {
        name: dataclasses.replace(found.parity, median_centred_cosine=0.25) for name, found in REPORT.towers.items()
    }
    beside = Beside("clipedge", parity, dataclasses.replace(REPORT.zero_shot, exported_accuracy=0.125), ("failed",))
    both = dataclasses.replace(REPORT, target="tensorrt", quantizer="modelopt", beside=beside)
    lines = [" ".join(line.split()) for line in report_lines(both)]
    head = lines.index("quantized by modelopt clipedge")
    assert lines[head + 1] == "image tower, centred, median 0.97654 0.25000"
    assert "zero-shot top-1 (%) 89.23 12.50" in lines
    text = Page(report_html(both)).text
    assert "quantized by modelopt clipedge" in text and "0.25000" in text
    assert "clipedge stays below the gate" in text
    assert "Two quantizers" in text and "Two quantizers" not in Page(report_html(REPORT)).text
