"""The built-in template sets: what every template has to be."""

from __future__ import annotations

import pytest

from clipedge.errors import UsageError
from clipedge.prompts.templates import TEMPLATE_SETS, template_set
from clipedge.text import fill_template


@pytest.mark.parametrize("name", TEMPLATE_SETS)
def test_every_template_takes_a_label_once_and_differs_from_the_others(name: str) -> None:
    templates = template_set(name)
    assert len(set(templates)) == len(templates) >= 8
    for template in templates:
        assert fill_template(template, "LABEL").count("LABEL") == 1
        assert "{" not in fill_template(template, "LABEL")


def test_there_is_a_set_for_each_place() -> None:
    assert set(TEMPLATE_SETS) == {"photos", "surveillance", "drones", "robots"}


def test_another_name_is_refused_and_the_sets_are_named() -> None:
    with pytest.raises(UsageError, match="no template set 'boats'; the sets are: photos, surveillance, drones, robots"):
        template_set("boats")
