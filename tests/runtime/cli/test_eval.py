"""clipedge eval with models beside one another, groups, worse pictures, and its page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest

from clipedge.calibration.scenes import write_folder
from clipedge.cli import main

Cli = Callable[..., tuple[int, str, str]]
PICTURES = 20


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["eval", *map(str, arguments)])
        return code, *capfd.readouterr()

    return call


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    write_folder(folder, "test", PICTURES, width=96, height=80, by_label=True)
    return folder


@pytest.fixture(scope="module")
def groups(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures by their number, all but the last; "<odd>" is a name that HTML has to escape."""
    paths = sorted(labelled.rglob("*.png"))[:-1]
    rows = [f"{path.relative_to(labelled)},{'even' if int(path.name[:5]) % 2 == 0 else '<odd>'}" for path in paths]
    table = tmp_path_factory.mktemp("groups") / "groups.csv"
    table.write_text("\n".join(["path,number", *rows]) + "\n", encoding="utf-8")
    return table


def test_everything_as_json_and_as_a_page(
    cli: Cli, demo_bundle: Path, demo_bundle_fp32: Path, labelled: Path, groups: Path, tmp_path: Path
) -> None:
    page_file = tmp_path / "report.html"
    options = ("--against", demo_bundle_fp32, "--groups", groups, "--corruptions", "--bank", "default", "--json")
    code, out, err = cli(demo_bundle, labelled, *options, "--report", page_file)
    assert (code, err) == (0, "")
    document = json.loads(out)
    names = ["demo-int8 int8.x86", "demo-fp32 fp32"]
    (other,) = document["against"]
    assert [document["model"], other["model"]] == names
    assert document["pictures"] == other["pictures"] == PICTURES
    assert other["difference"]["value"] == pytest.approx(document["top1"] - other["top1"])
    audit = document["groups"]["number"]
    assert set(audit["groups"]) == {"<odd>", "even"}
    assert audit["ungrouped"] == 1
    assert sum(item["pictures"] for item in audit["groups"].values()) == PICTURES - 1
    assert len(document["corruptions"]) == 18
    for item in document["corruptions"]:
        assert list(item["accuracies"]) == names
        int8, fp32 = (found["share"] for found in item["accuracies"].values())
        assert item["differences"][names[1]]["value"] == pytest.approx(int8 - fp32)
    worst = [item for item in document["corruptions"] if item["corruption"] == "noise"][-1]
    assert worst["accuracies"][names[0]]["share"] < document["top1"]

    page = page_file.read_text(encoding="utf-8")
    assert page.count("<svg ") == 1 + 1 + 6  # classes, groups, corruptions
    assert "&lt;odd&gt;" in page and "<odd>" not in page
    for name in names:
        assert name in page
    assert list(tmp_path.iterdir()) == [page_file]


def test_everything_as_text(cli: Cli, demo_bundle: Path, demo_bundle_fp32: Path, labelled: Path, groups: Path) -> None:
    options = ("--against", demo_bundle_fp32, "--groups", groups, "--corruptions", "--bank", "default")
    code, out, err = cli(demo_bundle, labelled, *options)
    assert (code, err) == (0, "")
    assert "demo-int8 int8.x86 minus it: " in out
    assert "demo-int8 int8.x86, number: from " in out
    assert "demo-fp32 fp32, number: from " in out
    assert "in no group: 1 pictures" in out
    assert sum(line.startswith("    jpeg      ") for line in out.splitlines()) == 3


def test_a_variant_of_the_same_bundle_is_named_by_its_name(
    cli: Cli, demo_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    """A copy of the bundle under the same folder name stands for another bundle; a variant has no folder."""
    twin = tmp_path / "elsewhere" / demo_bundle.name
    shutil.copytree(demo_bundle, twin)
    code, out, _ = cli(demo_bundle, labelled, "--against", twin, "--bank", "default", "--json")
    document = json.loads(out)
    assert code == 0
    assert [document["model"], document["against"][0]["model"]] == [f"{demo_bundle} int8.x86", f"{twin} int8.x86"]
    assert document["against"][0]["difference"]["value"] == 0
    code, out, err = cli(demo_bundle, labelled, "--against", "int8.x86", "--bank", "default")
    assert (code, out) == (2, "")
    assert "one is there twice" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "fp64"], "expected a variant of"),
        (["--groups", "no.csv"], "there is no such file"),
        (["--report", "report.png"], "the name has to end in .html"),
        (["--against", "{labelled}"], "clipedge.json"),
    ],
)
def test_a_wrong_call_is_one_line(
    cli: Cli, demo_bundle: Path, labelled: Path, arguments: list[str], message: str
) -> None:
    words = [argument.replace("{labelled}", str(labelled)) for argument in arguments]
    code, out, err = cli(demo_bundle, labelled, "--bank", "default", *words)
    assert code in (1, 2)
    assert out == ""
    (line,) = err.splitlines()
    assert message in line


def test_one_unreadable_picture_among_many_is_left_out(
    cli: Cli, demo_bundle: Path, labelled: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    shutil.copytree(labelled, folder)
    first = sorted(folder.rglob("*.png"))[0]
    first.write_bytes(first.read_bytes()[:100])
    PIL.Image.new("L", (100_000, 1)).save(first.with_name("line.png"))  # beyond what resizing may make of it
    code, out, _ = cli(demo_bundle, folder, "--bank", "default", "--corruptions", "--json")
    assert code == 0
    document = json.loads(out)
    assert (document["pictures"], len(document["unreadable"])) == (PICTURES - 1, 2)
    assert all(
        item["accuracies"][document["model"]]["pictures"] == document["pictures"] for item in document["corruptions"]
    )
