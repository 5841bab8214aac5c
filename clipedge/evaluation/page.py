"""Accuracy on a labelled folder as a page: models, classes, groups, and worse and worse pictures, with charts."""

from __future__ import annotations

from collections.abc import Sequence

from clipedge.drawing.page import escaped, figure, html_page, interval, percent, table
from clipedge.drawing.plots import COLOURS, Axis, Bar, Series, bar_chart, line_chart
from clipedge.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from clipedge.evaluation.evaluate import Comparison, Evaluation, Robustness
from clipedge.evaluation.groups import GroupAudit, gap_sentence
from clipedge.evaluation.intervals import Accuracy, in_percent, in_points

__all__ = ["eval_page"]

SHARES = tuple((share, f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
ACCURACY = Axis("accuracy", 0, 1, SHARES)
MOST_BARS = 60  # the classes with the lowest accuracy
MOST_CONFUSIONS = 20


def eval_page(folder: str, found: Comparison) -> str:
    """The whole page about the pictures in ``folder``."""
    title = f"{found.models[0]} on {folder}"
    first = found.evaluations[0]
    sections = [f"<h1>{escaped(title)}</h1>", _models(found), _classes(found.models[0], first), _confusions(first)]
    sections += [_groups(found.models, column, [audit[column] for audit in found.groups]) for column in found.groups[0]]
    if found.corruptions:
        sections.append(_corruptions(found))
    if first.unreadable:
        lines = "\n".join(f"<li>{escaped(line)}</li>" for line in first.unreadable)
        sections.append(f"<h2>Pictures that cannot be read: {len(first.unreadable)}</h2>\n<ul>\n{lines}\n</ul>")
    return html_page(title, sections)


def _models(found: Comparison) -> str:
    rows = [
        (name, percent(item.top1, 2), interval(item.interval, 100), percent(item.top5, 2))
        for name, item in zip(found.models, found.evaluations, strict=True)
    ]
    gaps = "".join(
        f"<p>{escaped(found.models[0])} minus {escaped(name)}: {in_points(gap)} points, paired by picture.</p>"
        for name, gap in zip(found.models[1:], found.differences, strict=True)
    )
    caption = f"{found.evaluations[0].pictures} pictures, {len(found.evaluations[0].per_class)} classes"
    accuracies = table(("model", "top-1", "95 % interval", "top-5"), rows, caption=caption)
    return f"<h2>Accuracy</h2>\n{accuracies}\n{gaps}"


def _classes(model: str, evaluation: Evaluation) -> str:
    classes = sorted(evaluation.per_class.items(), key=lambda item: item[1].share)
    caption = f"{escaped(model)}, the weakest class first. The line is the 95 % interval."
    if len(classes) > MOST_BARS:
        caption += f" The {MOST_BARS} weakest of {len(classes)} classes; --json has all."
    return f"<h2>Classes</h2>\n{figure(bar_chart(_bars(classes[:MOST_BARS]), ACCURACY), caption)}"


def _bars(accuracies: Sequence[tuple[str, Accuracy]]) -> list[Bar]:
    return [Bar(f"{name} ({item.pictures})", item.share, item.interval) for name, item in accuracies]


def _confusions(evaluation: Evaluation) -> str:
    if not evaluation.confusions:
        return "<p>No picture was taken for another class.</p>"
    caption = f"The most frequent of {len(evaluation.confusions)} confusions."
    rows = evaluation.confusions[:MOST_CONFUSIONS]
    return table(("class", "taken for", "pictures"), rows, "words", caption)


def _groups(models: Sequence[str], column: str, audits: Sequence[GroupAudit]) -> str:
    rows = [
        (name, audits[0].groups[name].pictures, *(in_percent(audit.groups[name]) for audit in audits))
        for name in audits[0].groups
    ]
    verdicts = "".join(
        f"<p>{escaped(model)}: {escaped(gap_sentence(audit))}</p>" for model, audit in zip(models, audits, strict=True)
    )
    ungrouped = f"<p>{audits[0].ungrouped} pictures belong to no group.</p>" if audits[0].ungrouped else ""
    bars = figure(bar_chart(_bars(list(audits[0].groups.items())), ACCURACY), escaped(models[0])) if rows else ""
    return (
        f"<h2>Groups: {escaped(column)}</h2>\n{verdicts}{ungrouped}\n"
        f"{table(('group', 'pictures', *models), rows)}\n{bars}"
    )


def _corruptions(found: Comparison) -> str:
    charts = [
        figure(_chart(found, kind), f"{kind}: severity 0 is the pictures as they are. Vertical lines: 95 % intervals.")
        for kind in CORRUPTIONS
    ]
    rows = [_row(item) for item in found.corruptions]
    gaps = [f"{found.models[0]} minus {name}, points" for name in found.models[1:]]
    grid = table(("corruption", *found.models, *gaps), rows)
    return f"<h2>Worse pictures</h2>\n{grid}\n" + "\n".join(charts)


def _chart(found: Comparison, kind: str) -> str:
    clean = [(item.top1, item.interval) for item in found.evaluations]
    series = []
    for model, name in enumerate(found.models):
        worse = [item.accuracies[model] for item in found.corruptions if item.corruption == kind]
        shares = [clean[model][0], *(item.share for item in worse)]
        intervals = [clean[model][1], *(item.interval for item in worse)]
        colour = COLOURS[model % len(COLOURS)]  # dashed, so that what lies under it is seen
        series.append(Series(name, list(enumerate(shares)), colour, dashed=model > 0, intervals=intervals))
    ticks = tuple((float(severity), str(severity)) for severity in (0, *SEVERITIES))
    return line_chart(series, Axis("severity", 0, SEVERITIES[-1], ticks), ACCURACY)


def _row(item: Robustness) -> tuple[str, ...]:
    return (
        f"{item.corruption} {item.severity}",
        *map(in_percent, item.accuracies),
        *map(in_points, item.differences),
    )
