"""What a model card says of the licence, and what is known of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clipedge.export import export
from clipedge.export.checkpoints import DEMO_CHECKPOINT
from clipedge.export.checkpoints.licenses import find_license, read_license
from clipedge.export.report import report_lines


def read(folder: Path, card: str) -> str | None:
    (folder / "README.md").write_text(card, encoding="utf-8")
    return read_license(folder)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: mit\n---\n# A model\n", "mit"),
        ("---\ntags:\n- clip\nlicense: 'cc-by-nc-4.0'  # as upstream\n---\n", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: apple-ascl\nlicense_link: LICENSE\n---\n", "apple-ascl (LICENSE)"),
        ("---\nlicense_name: house-rules\nlicense: other\n---\n", "house-rules"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: mit\nlicense_link: https://example.org/mit\n---\n", "mit"),
        ("---\ntags: [clip]\n---\nlicense: mit\n", None),
        ("# A model\nlicense: mit\n", None),
    ],
)
def test_the_licence_is_read_from_the_front_matter(tmp_path: Path, card: str, expected: str | None) -> None:
    assert read(tmp_path, card) == expected


def test_a_model_without_a_card_names_no_licence(tmp_path: Path) -> None:
    assert read_license(tmp_path) is None


@pytest.mark.parametrize(
    ("license", "restricts", "words"),
    [
        ("mit", False, "any use"),
        ("apache-2.0", False, "any use"),
        ("cc-by-4.0", False, "any use, with attribution"),
        ("cc-by-sa-4.0", False, "same licence"),
        ("gpl-3.0", False, "same licence"),
        ("apple-ascl (LICENSE)", False, "no patents"),
        ("apple-amlr", True, "non-commercial research only"),
        ("Apple-AMLR (LICENSE)", True, "non-commercial research only"),
        ("cc-by-nc-4.0", True, "non-commercial use only"),
        ("cc-by-nc-sa-4.0", True, "under the same licence"),
        ("cc-by-nc-nd-4.0", True, "nothing adapted"),
        ("openrail", True, "are forbidden"),
        ("openrail++", True, "are forbidden"),
        ("creativeml-openrail-m", True, "are forbidden"),
        ("bigscience-bloom-rail-1.0", True, "are forbidden"),
        ("fair-noncommercial-research-license", True, "read it"),
        ("our-research-only-license (LICENSE)", True, "read it"),
        ("other", None, "read its text"),
        ("house-rules (https://example.org)", None, "read its text"),
        ("once-ncis", None, "read its text"),
        (None, None, "ask the author"),
    ],
)
def test_what_a_licence_permits(license: str | None, restricts: bool | None, words: str) -> None:
    found = find_license(license)
    assert (found.id, found.restricts) == (license, restricts)
    assert words in found.terms
    assert str(found).startswith(license or "unknown")


@pytest.mark.slow
def test_a_restriction_is_shown_at_export_and_stays_with_the_bundle(tmp_path: Path) -> None:
    model = shutil.copytree(DEMO_CHECKPOINT, tmp_path / "model")
    (model / "README.md").write_text("---\nlicense: apple-amlr\n---\n")
    with pytest.warns(
        UserWarning, match="the licence of model restricts its use, and that of the bundle: apple-amlr: "
    ):
        report = export(model, tmp_path / "bundle", precision="fp32", text=False)
    terms = "apple-amlr: non-commercial research only"
    assert any(f"its licence restricts its use, {terms}" in line for line in report_lines(report))
    assert json.loads((tmp_path / "bundle" / "report.json").read_text())["license"]["restricts"] is True
    assert terms in (tmp_path / "bundle" / "report.html").read_text()
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert f"- Licence: Apple Machine Learning Research Model licence ({terms}" in card
    assert "inherits it" in card
