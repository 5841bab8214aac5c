"""The page of a fit says what the fit says, and is safe with any label."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from clipedge.decisions.fitting import Fit
from clipedge.decisions.page import fit_page
from clipedge.decisions.roc import Roc
from clipedge.decisions.rule import DecisionRule
from clipedge.decisions.temperature import Bin
from clipedge.decisions.thresholds import Quality
from clipedge.prompts.bank import PromptBank

HOSTILE = "<script>alert('1')</script>"
RULE = DecisionRule(2.0, (0.25, 0.75), False, "int8.x86")
BANK = PromptBank(np.eye(2, 4, dtype=np.float32), ("cat", HOSTILE), ("{}",), 10.0, 0.0, "softmax", "space", rule=RULE)
BINS = (Bin(0.3, 0.2, 5), Bin(0.9, 0.6, 15)), (Bin(0.3, 0.25, 8), Bin(0.7, 0.7, 12))
BEFORE, AFTER = Quality(20, 10, 0.9, 0.2, 0.8, 0.7), Quality(20, 10, 0.85, 0.05, 0.125, 0.84)
FIT = Fit(
    fitted_on=31,
    held_out=30,
    temperature=2.0,
    floor=13.25,
    temperature_kept=True,
    log_loss=(0.9, 0.4),
    calibration_error=(0.25, 0.02),
    reliability=BINS,
    recall=0.95,
    thresholds_refused="",
    before=BEFORE,
    plain=None,
    after=AFTER,
    roc=Roc(0.875, ((0.0, 0.0), (0.25, 0.9), (1.0, 1.0))),
    plain_roc=None,
)


def charts(page: str) -> list[ElementTree.Element]:
    pieces = [piece[: piece.index("</svg>")] for piece in page.split("<svg ")[1:]]
    return [ElementTree.fromstring(f"<svg {piece}</svg>") for piece in pieces]


def test_the_page_says_what_the_fit_says() -> None:
    page = fit_page(BANK, FIT, ["a.png: <damaged>"])
    for fact in (
        "31 pictures",
        "30 others",
        "temperature 2 with the floor 13.2 is kept",
        "12.5 %",
        "0.840",
        "0.750",
        "a.png: &lt;damaged",
    ):
        assert fact in page, fact
    assert "<script" not in page and "&lt;script&gt;" in page
    roc, reliability = charts(page)
    words = [item.text for item in roc.iter("text")] + [item.text for item in reliability.iter("text")]
    assert {"the fitted rule, area 0.875", "after it, error 0.020"} <= set(words)
    curves = [item.attrib["points"].count(",") for item in reliability.iter("polyline")]
    assert sorted(curves) == [2] * 6  # three curves of two points and their samples


@pytest.mark.parametrize(
    ("bank", "fit", "expected", "svgs"),
    [
        (BANK, dataclasses.replace(FIT, roc=None), "Reliability", 1),
        (BANK, dataclasses.replace(FIT, plain=BEFORE, plain_roc=FIT.roc), "plain maximum probability, area", 2),
        (
            dataclasses.replace(BANK, rule=None),
            dataclasses.replace(FIT, temperature_kept=False, thresholds_refused="F1 is < before"),
            "The thresholds are not kept: F1 is &lt; before",
            2,
        ),
    ],
)
def test_what_there_was_not_is_not_shown(bank: PromptBank, fit: Fit, expected: str, svgs: int) -> None:
    page = fit_page(bank, fit)
    assert expected in page
    assert len(charts(page)) == svgs
    assert ('class="verdict failed"' in page) == (bank.rule is None)
