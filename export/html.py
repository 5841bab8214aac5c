"""report.html: the proof of one export as a page that needs nothing but itself, on a phone, on paper, in the dark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from clipedge.calibration.half.plan import KeptOperation
from clipedge.calibration.sensitivity import LayerProfile
from clipedge.drawing.page import escaped, figure, html_page, interval, percent, table
from clipedge.export.checkpoints.licenses import find_license
from clipedge.export.choice import Choice
from clipedge.export.figures import EXPORTED, IN_FLOAT, SOURCE, cosine_figure, layer_figure, size_and_latency_figure
from clipedge.export.report import Beside, Report, TowerReport
from clipedge.export.verify import GATE, AnswerChange, Parity, ZeroShot

__all__ = ["report_html"]

MAX_CHANGES = 50  # rows of the table; report.json has them all

LEGEND_STYLE = f"""
.source, .exported, .float {{ display: inline-block; width: .7em; height: .7em; print-color-adjust: exact; }}
.source {{ background: {SOURCE}; }} .exported {{ background: {EXPORTED}; }} .float {{ background: {IN_FLOAT}; }}
"""


def report_html(report: Report) -> str:
    """The whole page. It makes no request, has no script, and is the same text for the same report."""
    title = f"{report.model} → {report.precision}, {report.target}"
    sections = [
        f"<h1>{escaped(title)}</h1>",
        _verdict(report),
        _summary(report),
        *([_choice(report.choice)] if report.choice else []),
        *([_answers(report.zero_shot)] if report.zero_shot else []),
        *([_beside(report, report.beside)] if report.beside else []),
        _cosines(report),
        *([_layers(report.layers)] if report.layers else []),
        *([_kept(report.kept)] if report.kept else []),
        _origin(report),
        *([_unreadable(report.unreadable)] if report.unreadable else []),
    ]
    return html_page(title, sections, LEGEND_STYLE)


def _verdict(report: Report) -> str:
    """One sentence with what somebody wants to know first; below the gate, also why."""
    size = sum(tower.source_bytes for tower in report.towers.values())
    exported_size = sum(tower.exported_bytes for tower in report.towers.values())
    image = report.towers["image"]
    kept = "gives the source model's answers" if report.passed else "does not give the source model's answers"
    sentence = (
        f"<strong>{'Passed' if report.passed else 'Failed'}.</strong> The {escaped(report.precision)} model {kept}: "
        f"{_answers_kept(report)}; its files are {_ratio(size, exported_size, 'smaller', 'larger')}, and its image "
        f"tower is {_ratio(image.source_latency_ms, image.exported_latency_ms, 'faster', 'slower')} than the source "
        "in PyTorch."
    )
    failures = "".join(f"<li>{escaped(failure)}</li>" for failure in report.failures)
    return (
        f'<div class="verdict{"" if report.passed else " failed"}"><p>{sentence}</p>'
        + (f"<ul>{failures}</ul>" if failures else "")
        + "</div>"
    )


def _choice(choice: Choice) -> str:
    rows = [
        (
            item.variant,
            f"{statistics.median(item.round_ms):.2f}" if item.round_ms else "",
            f"{min(item.round_ms):.2f} to {max(item.round_ms):.2f}" if item.round_ms else "",
            "; ".join(item.failures) or "passed",
        )
        for item in choice.candidates
    ]
    caption = f"Every precision was built and tried here; {choice.chosen} was kept, since {choice.reason}."
    columns = ("variant", "ms a picture, median of rounds", "range", "proof")
    return f"<h2>Why {escaped(choice.chosen)}</h2>\n{table(columns, rows, caption=caption)}"


def _answers_kept(report: Report) -> str:
    zero_shot, parity = report.zero_shot, report.towers["image"].parity
    centred = f"a median centred cosine of {parity.median_centred_cosine:.4f}"
    if zero_shot is None:
        return f"the same nearest neighbour for {percent(parity.neighbour_overlap)} of the pictures, and {centred}"
    if zero_shot.drop_points is None or zero_shot.source_accuracy is None or zero_shot.exported_accuracy is None:
        return f"the same label for {percent(zero_shot.agreement)} of {zero_shot.samples} pictures, and {centred}"
    accuracies = f"{percent(zero_shot.source_accuracy, 2)} to {percent(zero_shot.exported_accuracy, 2)}"
    return (
        f"zero-shot accuracy goes from {accuracies} on {zero_shot.samples} pictures (paired drop "
        f"{zero_shot.drop_points:.2f} points, 95 % interval {interval(zero_shot.drop_interval)})"
    )


def _summary(report: Report) -> str:
    rows = []
    for name, tower in report.towers.items():
        rows += _tower_rows(name, tower)
    columns = ("", "source", "exported", "ratio")
    legend = '<span class="source"></span> source, eager PyTorch <span class="exported"></span> exported'
    bars = figure(size_and_latency_figure(report, "bars"), f"{legend}, {escaped(report.engine)}")
    return f"<h2>Size, latency, parity</h2>\n{table(columns, rows)}\n{bars}"


def _tower_rows(name: str, tower: TowerReport) -> list[tuple[str, ...]]:
    parity = tower.parity
    before, after = tower.source_latency_ms, tower.exported_latency_ms
    return [
        (
            f"{name} tower, size (MB)",
            f"{tower.source_bytes / 1e6:.2f}",
            f"{tower.exported_bytes / 1e6:.2f}",
            f"{tower.exported_bytes / tower.source_bytes:.2f}",
        ),
        (f"{name} tower, latency (ms)", f"{before:.2f}", f"{after:.2f}", f"{after / before:.2f}"),
        (f"{name} tower, median cosine", "", f"{parity.median_cosine:.5f}", ""),
        (f"{name} tower, median centred cosine", "", f"{parity.median_centred_cosine:.5f}", ""),
        (f"{name} tower, 1st percentile of it", "", f"{parity.p1_centred_cosine:.5f}", ""),
        (f"{name} tower, same nearest neighbour (%)", "", f"{100 * parity.neighbour_overlap:.1f}", ""),
        *(_half_rows(name, tower.half_parity) if tower.half_parity else []),
    ]


def _half_rows(name: str, parity: Parity) -> list[tuple[str, ...]]:
    title = f"{name} tower in real half precision ({parity.samples} inputs)"
    return [
        (f"{title}, median centred cosine", "", f"{parity.median_centred_cosine:.5f}", ""),
        (f"{title}, 1st percentile of it", "", f"{parity.p1_centred_cosine:.5f}", ""),
    ]


def _answers(zero_shot: ZeroShot) -> str:
    rows = [(f"same top-1 of {zero_shot.labels} labels", percent(zero_shot.agreement), "")]
    note = ""
    if zero_shot.source_accuracy is not None and zero_shot.exported_accuracy is not None:
        before, after = percent(zero_shot.source_accuracy, 2), percent(zero_shot.exported_accuracy, 2)
        rows += [
            ("source accuracy", before, interval(zero_shot.source_interval, 100)),
            ("exported accuracy", after, interval(zero_shot.exported_interval, 100)),
            ("paired drop (points)", f"{zero_shot.drop_points:.2f}", interval(zero_shot.drop_interval)),
        ]
        if zero_shot.samples < GATE.min_pictures:
            note = f'<p class="note">Not gated: that takes {GATE.min_pictures} labelled proof pictures.</p>'
    values = table(("", "value", "95 % interval"), rows)
    return f"<h2>Answers on {zero_shot.samples} pictures</h2>\n{values}\n{note}{_changes(zero_shot)}"


def _beside(report: Report, other: Beside) -> str:
    rows = [
        (
            f"{name} tower, {what}",
            f"{getattr(report.towers[name].parity, field):.5f}",
            f"{getattr(parity, field):.5f}",
        )
        for name, parity in other.parity.items()
        for what, field in (
            ("median centred cosine", "median_centred_cosine"),
            ("1st percentile of it", "p1_centred_cosine"),
        )
    ]
    if report.zero_shot and other.zero_shot:
        rows.append(("same top-1", percent(report.zero_shot.agreement), percent(other.zero_shot.agreement)))
    note = "" if not other.failures else f'<p class="note">{escaped(other.quantizer)} stays below the gate.</p>'
    return f"<h2>Two quantizers</h2>\n{table(('quantized by', report.quantizer, other.quantizer), rows)}\n{note}"


def _changes(zero_shot: ZeroShot) -> str:
    changes = zero_shot.changes
    changed = sum(change.count for change in changes)
    if not changes:
        return "<p>No picture changed its label.</p>"
    kinds: dict[str, int] = {}
    for change in changes:
        kinds[_kind(change)] = kinds.get(_kind(change), 0) + change.count
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    rows = [
        (change.truth if change.truth is not None else "?", change.source, change.exported, _kind(change), change.count)
        for change in changes[:MAX_CHANGES]
    ]
    caption = f"{changed} of {zero_shot.samples} pictures changed their label: {counts}."
    if len(changes) > MAX_CHANGES:
        caption += f" The {MAX_CHANGES} most frequent of {len(changes)} changes; report.json has all."
    return table(("truth", "source said", "exported says", "change", "pictures"), rows, "words", caption)


def _kind(change: AnswerChange) -> str:
    if change.truth is None:
        return "truth unknown"
    if change.truth == change.source:
        return "right → wrong"
    return "wrong → right" if change.truth == change.exported else "wrong → other wrong"


def _cosines(report: Report) -> str:
    figures = [
        figure(
            cosine_figure(tower.parity.cosines, f"cosines-{name}"),
            f"{escaped(name)} tower, {tower.parity.samples} inputs. Centred: after the mean embedding was subtracted, "
            "since unrelated inputs already have a large raw cosine.",
        )
        for name, tower in report.towers.items()
    ]
    return "<h2>Cosine of source and exported embedding</h2>\n" + "\n".join(figures)


def _layers(layers: Sequence[LayerProfile]) -> str:
    towers = dict.fromkeys(layer.tower for layer in layers)
    figures = []
    for tower in towers:
        own = [layer for layer in layers if layer.tower == tower]
        caption = f'{escaped(tower)} tower, in graph order. <span class="exported"></span> INT8'
        if any(layer.in_float for layer in own):
            caption += ' <span class="float"></span> left in float; shown is what INT8 would do to it'
        figures.append(figure(layer_figure(own, f"layers-{tower}"), caption))
    kept = [layer for layer in layers if layer.in_float]
    note = "<p>All quantizable layers are in INT8.</p>"
    if kept:
        total = sum(layer.multiply_adds for layer in layers)
        rows = [
            (
                f"{layer.tower}: {layer.layer}",
                f"{layer.snr_db:.1f}",
                "" if layer.cost is None else f"{layer.cost:.2g}",
                percent(layer.multiply_adds / total if total else 0.0),
                f"{layer.weight_bytes / 1e6:.2f}",
            )
            for layer in kept
        ]
        columns = ("left in float", "SNR (dB)", "cost in INT8", "multiply-adds", "weight (MB)")
        note = table(columns, rows, caption=f"{len(kept)} of {len(layers)} quantizable layers are left in float.")
    return "<h2>Layer by layer</h2>\n" + note + "\n" + "\n".join(figures)


def _kept(kept: Sequence[KeptOperation]) -> str:
    rows = [(f"{item.tower}: {item.operation}", item.reason) for item in kept]
    caption = f"{len(kept)} operations are left in float32, since half precision cannot hold them."
    return "<h2>Left in float32</h2>\n" + table(("operation", "since"), rows, "words", caption)


def _origin(report: Report) -> str:
    provenance = report.provenance
    rows = [
        ("source model", provenance.source_model),
        ("its licence", str(find_license(provenance.source_license))),
        ("SHA-256 of its weights", provenance.source_sha256),
        (report.calibration_verb, report.calibration or "nothing: no ranges were measured"),
        *([("SHA-256 of those pixels", provenance.calibration_sha256)] if provenance.calibration_sha256 else []),
        ("proven on", f"{report.proof}; never the calibration pictures"),
        ("proven in", report.engine),
        ("made", provenance.created),
        ("with", ", ".join(f"{name} {version}" for name, version in provenance.tools.items())),
    ]
    return "<h2>Where it comes from</h2>\n" + table((), rows, "facts")


def _unreadable(lines: Sequence[str]) -> str:
    items = "\n".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f"<h2>Pictures that cannot be read: {len(lines)}</h2>\n<ul>\n{items}\n</ul>"


def _ratio(source: float, exported: float, less: str, more: str) -> str:
    return f"{source / exported:.1f} times {less}" if exported <= source else f"{exported / source:.1f} times {more}"
