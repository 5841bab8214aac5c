"""What a fit of a bank's decision rule did, as a page: the figures, the ROC curve and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence

from clipedge.decisions.fitting import Fit
from clipedge.decisions.temperature import Bin
from clipedge.decisions.thresholds import Quality
from clipedge.drawing.page import escaped, figure, html_page, percent, table
from clipedge.drawing.plots import COLOURS, Axis, Series, line_chart
from clipedge.prompts.bank import PromptBank

__all__ = ["fit_page"]

SHARES = tuple((share, f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
OURS, PLAIN, IDEAL = COLOURS[0], COLOURS[1], COLOURS[2]


def fit_page(bank: PromptBank, fit: Fit, unreadable: Sequence[str] = ()) -> str:
    """The whole page; ``bank`` as it was after the fit."""
    title = f"Decisions among {len(bank.labels)} labels"
    sections = [f"<h1>{escaped(title)}</h1>", _verdict(bank, fit), _answers(fit)]
    if fit.roc is not None:
        sections.append(_roc(fit))
    sections += [_reliability(fit), _thresholds(bank)]
    if unreadable:
        lines = "\n".join(f"<li>{escaped(line)}</li>" for line in unreadable)
        sections.append(f"<h2>Pictures that cannot be read: {len(unreadable)}</h2>\n<ul>\n{lines}\n</ul>")
    return html_page(title, sections)


def _verdict(bank: PromptBank, fit: Fit) -> str:
    floor = "" if fit.floor is None else f" with the floor {fit.floor:.1f}"
    kept = "is kept" if fit.temperature_kept else "is not kept: it does not lower both log loss and calibration error"
    thresholds = f"are not kept: {escaped(fit.thresholds_refused)}" if fit.thresholds_refused else "are kept"
    return (
        f'<div class="verdict{"" if bank.rule else " failed"}"><p>Fitted on {fit.fitted_on} pictures, judged on '
        f"{fit.held_out} others. The temperature {fit.temperature:.3g}{floor} {kept}. The thresholds "
        f"{thresholds}.</p></div>"
    )


def _answers(fit: Fit) -> str:
    rules = {"without a fit": fit.before, "plain maximum probability": fit.plain, "fitted": fit.after}
    rows = [(name, *_cells(quality)) for name, quality in rules.items() if quality is not None]
    columns = ("rule", "right", "wrong", "unknown answered", "F1")
    note = (
        f"{fit.after.known} pictures of labels, {fit.after.unknown} of none of them. Right: the share of known ones "
        "that get their own label; wrong: the share of all that get another."
    )
    return f'<h2>Answers</h2>\n{table(columns, rows)}\n<p class="note">{note}</p>'


def _cells(quality: Quality) -> tuple[str, ...]:
    unknown = "" if quality.unknown_answered is None else percent(quality.unknown_answered)
    return percent(quality.right), percent(quality.wrong), unknown, f"{quality.f1:.3f}"


def _roc(fit: Fit) -> str:
    curves = [
        Series(f"{name}, area {curve.area:.3f}", curve.points, colour)
        for name, curve, colour in (
            ("the fitted rule", fit.roc, OURS),
            ("plain maximum probability", fit.plain_roc, PLAIN),
        )
        if curve is not None
    ]
    chance = Series("chance", ((0, 0), (1, 1)), IDEAL, dashed=True)
    axes = Axis("unknown pictures answered", 0, 1, SHARES), Axis("known pictures answered", 0, 1, SHARES)
    caption = "Known pictures from unknown ones, as the threshold falls, of the fitted rule all thresholds together."
    return f"<h2>Receiver operating characteristic</h2>\n{figure(line_chart([*curves, chance], *axes), caption)}"


def _reliability(fit: Fit) -> str:
    before, after = fit.calibration_error
    curves = [
        _bars(f"before the fit, error {before:.3f}", fit.reliability[0], PLAIN),
        _bars(f"after it, error {after:.3f}", fit.reliability[1], OURS),
        Series("as sure as right", ((0, 0), (1, 1)), IDEAL, dashed=True),
    ]
    axes = Axis("confidence", 0, 1, SHARES), Axis("share that is right", 0, 1, SHARES)
    caption = (
        f"{len(fit.reliability[1])} bins of the 15 have answers in them. Error: expected calibration error; log loss "
        f"{fit.log_loss[0]:.3f} before, {fit.log_loss[1]:.3f} after."
    )
    return f"<h2>Reliability</h2>\n{figure(line_chart(curves, *axes), caption)}"


def _bars(name: str, bins: Sequence[Bin], colour: str) -> Series:
    return Series(name, [(bar.confidence, bar.accuracy) for bar in bins], colour)


def _thresholds(bank: PromptBank) -> str:
    if bank.rule is None or not bank.rule.thresholds:
        return "<h2>Thresholds</h2>\n<p>The bank has none.</p>"
    rows = [(label, f"{value:.3f}") for label, value in zip(bank.labels, bank.rule.thresholds, strict=True)]
    return f"<h2>Thresholds</h2>\n{table(('label', 'probability to reach'), rows)}"
