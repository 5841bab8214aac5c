"""Students of timm where open_clip and timm are not installed, as here: torchvision, which they need, is not.

What they are with both stands in tests/origin/test_timm_students.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clipedge.cli import main
from clipedge.errors import UsageError
from clipedge.export.distillation.spec import StudentSpec, parse_spec


def test_a_name_of_timms_is_a_specification() -> None:
    written = "timm:MobileNetV3_small_100"
    assert parse_spec(written) == StudentSpec("timm", written, name="mobilenetv3_small_100")


@pytest.mark.parametrize("name", ["", "resnet18.a1_in1k", "hf-hub:timm/resnet18", "../resnet18", "resnet 18"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected the name of an architecture of timm.*without a tag"):
        parse_spec(f"timm:{name}")


def test_without_open_clip_the_error_says_what_to_install(
    folder_of: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["distill", "--student", "timm:resnet18", "--data", str(folder_of(4)), "--output", str(tmp_path / "out")]
    assert main(command) == 2
    printed = capsys.readouterr()
    assert 'pip install "clipedge[open-clip]"' in printed.err and printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
