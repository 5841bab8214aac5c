"""Does a graph keep the rules that TensorRT documents for ONNX files, for INT8 and for FP8?

Exports for TensorRT are made on machines without it. What its documentation and its parser's source say can be checked
there, node by node, and is, in every such export. The rules are those of TensorRT 10.1, which hold for what is served,
10.3 (JetPack 6) to 11. A graph that keeps them has not run yet: only building an engine shows that.
"""

from __future__ import annotations

import onnx

from clipedge.errors import BackendError
from clipedge.export.tensorrt_rules import attention, edges, operators, quantization
from clipedge.export.tensorrt_rules.facts import Finding, Rule, facts_of

__all__ = ["RULES", "Finding", "Rule", "broken_rules", "require_tensorrt"]

RULES: tuple[Rule, ...] = (*edges.RULES, *operators.RULES, *quantization.RULES, *attention.RULES)
SHOWN = 3  # findings in a message: a broken rule is often broken in every block


def broken_rules(model: onnx.ModelProto) -> list[Finding]:
    """Every place where a graph breaks a rule, rule by rule; nothing if it keeps them all."""
    facts = facts_of(model)
    return [Finding(rule.name, node, message) for rule in RULES for node, message in rule.broken(facts)]


def require_tensorrt(model: onnx.ModelProto, name: str) -> None:
    """Raises BackendError, with the nodes' names, if the graph called ``name`` breaks a rule."""
    found = broken_rules(model)
    if not found:
        return
    lines = [f"{finding.node}: {finding.message} [rule {finding.rule}]" for finding in found[:SHOWN]]
    if len(found) > SHOWN:
        lines.append(f"and {len(found) - SHOWN} more")
    sources = {rule.name: rule.source for rule in RULES}
    named = ", ".join(dict.fromkeys(sources[finding.rule] for finding in found[:SHOWN]))
    raise BackendError(
        f"{name} breaks TensorRT's rules: {'; '.join(lines)} (see {named}); nothing was written. Export this model for "
        "another --target, or in another --precision"
    )
