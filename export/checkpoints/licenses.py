"""What the licence on a model card permits.

Identifiers are the hub's (https://huggingface.co/docs/hub/repositories-licenses). Apple's two are judged by the texts
in its repository ml-mobileclip: LICENSE_MODELS of 2025, which allows the models "exclusively for Research Purposes",
and LICENSE_weights_data of 2024, which allows any use. A line here is no legal advice: it tells whether the licence
has to be read before the model is used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["License", "find_license", "read_license"]


@dataclass(frozen=True)
class License:
    """``id`` as the model card has it, None where it names none. ``restricts``: whether some uses are forbidden; None
    where that is not known. ``terms``: what it permits, in a line."""

    id: str | None
    name: str
    restricts: bool | None
    terms: str

    def __str__(self) -> str:
        return f"{self.id or self.name}: {self.terms}"


# Identifier (a regular expression for all of it), name, whether it forbids uses, what it permits. The first that fits.
KNOWN: tuple[tuple[str, str, bool, str], ...] = (
    (
        "apple-amlr",
        "Apple Machine Learning Research Model licence",
        True,
        "non-commercial research only, of what is made from the model too; who passes it on adds the agreement's text",
    ),
    (
        "apple-ascl|apple-sample-code-license",
        "Apple Sample Code licence",
        False,
        "any use; no patents are licensed, and Apple's name may not promote what is made from the model",
    ),
    (
        r"cc-by-nc-nd-[\d.]+",
        "Creative Commons Attribution-NonCommercial-NoDerivatives",
        True,
        "non-commercial use only, with attribution; nothing adapted from the model may be shared",
    ),
    (
        r"cc-by-nc-sa-[\d.]+",
        "Creative Commons Attribution-NonCommercial-ShareAlike",
        True,
        "non-commercial use only, with attribution; what is adapted from the model under the same licence",
    ),
    (
        r"cc-by-nc-[\d.]+",
        "Creative Commons Attribution-NonCommercial",
        True,
        "non-commercial use only, with attribution",
    ),
    (
        r"cc-by-nd-[\d.]+",
        "Creative Commons Attribution-NoDerivatives",
        True,
        "any use, with attribution; nothing adapted from the model may be shared",
    ),
    (
        r"cc-by-sa-[\d.]+",
        "Creative Commons Attribution-ShareAlike",
        False,
        "any use, with attribution; what is adapted from the model under the same licence",
    ),
    (r"cc-by-[\d.]+", "Creative Commons Attribution", False, "any use, with attribution"),
    (
        r"(.*-)?(open)?rail(\+\+)?(-.*)?",
        "Responsible AI licence",
        True,
        "the uses that its text lists are forbidden, also to whoever gets the model from you",
    ),
    (r"cc0-1\.0|unlicense|0bsd", "public domain", False, "any use"),
    (
        r"mit|apache-2\.0|bsd(-.*)?|isc|zlib|bsl-1\.0",
        "permissive licence",
        False,
        "any use, with its notice kept",
    ),
    (
        r"(a|l)?gpl-.*|(a|l)?gpl|mpl-.*",
        "licence with copyleft",
        False,
        "any use; who passes the model on does so under the same licence",
    ),
    (
        r".*\b(nc|non-?commercial|research|academic)\b.*",
        "restrictive licence",
        True,
        "by its name for non-commercial use or research only; read it",
    ),
)


def find_license(license: str | None) -> License:
    """What is known of the licence that ``read_license`` gave."""
    if license is None:
        return License(None, "unknown", None, "ask the author of the source model")
    identifier = license.partition(" (")[0].lower()
    for pattern, name, restricts, terms in KNOWN:
        if re.fullmatch(pattern, identifier):
            return License(license, name, restricts, terms)
    return License(license, "unknown licence", None, "not known here, so read its text before you use the model")


def read_license(folder: Path) -> str | None:
    """The ``license`` of the model card's front matter (the YAML between the first two lines of dashes).

    Where that is "other", as the hub has it for a licence that is not in its list: ``license_name``, and
    ``license_link`` in brackets. None where there is no card, or it names none.
    """
    card = folder / "README.md"
    if not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    front_matter = re.match(r"---\s*\n(.*?)\n---\s*(?:\n|$)", text, re.DOTALL)
    if front_matter is None:
        return None
    license = _value(front_matter[1], "license")
    if license != "other":
        return license
    name, link = _value(front_matter[1], "license_name") or license, _value(front_matter[1], "license_link")
    return f"{name} ({link})" if link else name


def _value(front_matter: str, key: str) -> str | None:
    found = re.search(rf"^{key}:[ \t]*[\"']?([^\"'\s#]+)", front_matter, re.MULTILINE)
    return found[1] if found else None
