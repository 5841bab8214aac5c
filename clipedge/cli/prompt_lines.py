"""What `clipedge prompts` prints of a fit and of a tuning."""

from __future__ import annotations

from collections.abc import Sequence

from clipedge.decisions.fitting import Fit
from clipedge.tuning.tuned import TEMPLATES
from clipedge.tuning.tuning import Trial, Tuning

__all__ = ["fit_lines", "tuning_lines"]


def fit_lines(fit: Fit) -> list[str]:
    """What was fitted, what of it was kept, and the rules side by side."""
    (loss, new_loss), (error, new_error) = fit.log_loss, fit.calibration_error
    floor = "" if fit.floor is None else f", floor {fit.floor:.1f}"
    kept = "kept" if fit.temperature_kept else "NOT KEPT, it does not lower both"
    lines = [
        f"  fitted on {fit.fitted_on} pictures, judged on {fit.held_out} others:",
        f"  temperature {fit.temperature:.3g}{floor}, {kept}: "
        f"log loss {loss:.3f} -> {new_loss:.3f}, calibration error {error:.3f} -> {new_error:.3f}",
        f"  thresholds {'NOT KEPT: ' + fit.thresholds_refused if fit.thresholds_refused else 'kept'}",
    ]
    if fit.roc is not None:
        plain = "" if fit.plain_roc is None else f", plain maximum probability {fit.plain_roc.area:.3f}"
        lines.append(f"  known from unknown, area under the ROC curve: {fit.roc.area:.3f}{plain}")
    rules = {"without a fit": fit.before, "plain maximum probability": fit.plain, "fitted": fit.after}
    for name, quality in rules.items():
        if quality is None:
            continue
        unknown = "" if quality.unknown_answered is None else f", of unknown answered {quality.unknown_answered:7.2%}"
        lines.append(
            f"    {name:26} right {quality.right:7.2%}, wrong {quality.wrong:7.2%}{unknown}, F1 {quality.f1:.3f}"
        )
    return lines


def tuning_lines(tuning: Tuning, templates: Sequence[str]) -> list[str]:
    """What was tried, a line each, and the templates that were chosen of ``templates``."""
    before, after = tuning.accuracy
    left_out = f"; {tuning.left_out} of none of the labels left out: there are no negatives" if tuning.left_out else ""
    lines = [
        f"  tuned on {tuning.pictures} pictures, judged on each by what was tuned on the other folds of {tuning.folds}"
        f"{left_out}:",
        f"    {'':18}{'before':>9}{'after':>9}{'gain in points (95 % interval)':>34}",
    ]
    if all(trial.name != TEMPLATES for trial in tuning.trials):
        several = len(templates) > 1
        why = "a bank has its texts only as their ensemble" if several else "there is one; --templates has sets"
        lines.append(f"    {TEMPLATES:18}not tried: {why}")
    for trial in tuning.trials:
        old, new = (100 * share for share in trial.accuracy)
        low, high = (100 * bound for bound in trial.interval)
        gain = f"{new - old:+.2f}  ({low:+.2f} to {high:+.2f})"
        verdict = "kept" if trial.kept else "NOT KEPT, no gain is proven"
        lines.append(f"    {trial.name:18}{old:7.2f} %{new:7.2f} %{gain:>34}  {verdict}")
        lines += _settings(trial, templates) if trial.kept else []
    lines.append(f"  accuracy on held-out pictures {before:.2%} -> {after:.2%}")
    return lines


def _settings(trial: Trial, templates: Sequence[str]) -> list[str]:
    if trial.template_counts is None:
        return [f"      shrinkage to the text {trial.shrinkage:g}"]
    chosen = sorted(zip(trial.template_counts, templates, strict=True), key=lambda pair: -pair[0])
    return [f"      {count} x {template}" for count, template in chosen if count]
