"""Every verb as a user calls it: what it prints where, its exit codes, and one clear line for whatever is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from calling import Cli

from clipedge.calibration.scenes import CLASS_NAMES, write_folder
from clipedge.cli import print_json


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_folder(tmp_path_factory.mktemp("pictures"), "test", 4, width=120, height=90)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    write_folder(folder, "test", 24, width=80, height=80, by_label=True)
    return folder


@pytest.fixture
def copy(demo_bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_bundle, tmp_path / "copy")


# ---- classify ------------------------------------------------------------------------------------------------


def test_classify_prints_a_line_for_each_picture(clipedge: Cli, demo_bundle: Path, pictures: list[Path]) -> None:
    outcome = clipedge("classify", demo_bundle, *pictures, "--labels", "red circle,blue star, green heart")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(map(str, pictures))
    for line in lines:
        assert sum(float(item.rsplit(" ", 1)[1]) for item in line.partition(": ")[2].split(", ")) == pytest.approx(
            1, abs=2e-3
        )


def test_classify_uses_the_only_bank_when_no_labels_are_given(
    clipedge: Cli, demo_bundle: Path, pictures: list[Path]
) -> None:
    document = clipedge("classify", demo_bundle, *pictures, "--json", "--top", "5").document
    assert [entry["image"] for entry in document] == list(map(str, pictures))
    right = 0
    for entry, path in zip(document, pictures, strict=True):
        probabilities = [answer["probability"] for answer in entry["answers"]]
        assert len(probabilities) == 5
        assert probabilities == sorted(probabilities, reverse=True)
        assert {answer["label"] for answer in entry["answers"]} <= set(CLASS_NAMES)
        right += any(answer["label"].replace(" ", "-") in path.stem for answer in entry["answers"])
    assert right >= 2


def test_labels_may_come_from_a_file_and_templates_be_several(
    clipedge: Cli, demo_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "labels.txt").write_text("red circle\n\n  blue star  \n", encoding="utf-8-sig")
    templates = ("--template", "a photo of a {}.", "--template", "{}")
    arguments = ("classify", demo_bundle, pictures[0], "--json", *templates, "--labels")
    from_file = clipedge(*arguments, tmp_path / "labels.txt").document
    assert from_file == clipedge(*arguments, "red circle,blue star").document
    assert from_file != clipedge(*arguments[:4], "--labels", "red circle,blue star").document


def test_a_long_list_of_labels_is_no_file_name(clipedge: Cli, demo_bundle: Path, pictures: list[Path]) -> None:
    outcome = clipedge(
        "classify", demo_bundle, pictures[0], "--labels", ",".join(CLASS_NAMES), "--json", "--top", "999"
    )
    assert {answer["label"] for answer in outcome.document[0]["answers"]} == set(CLASS_NAMES)


def test_a_saved_bank_is_found_by_name_and_by_path(clipedge: Cli, demo_bundle: Path, pictures: list[Path]) -> None:
    by_name = clipedge("classify", demo_bundle, pictures[0], "--bank", "default", "--json").document
    path = demo_bundle / "prompts" / "default.safetensors"
    assert clipedge("classify", demo_bundle, pictures[0], "--bank", path, "--json").document == by_name


def test_one_damaged_picture_does_not_keep_the_others_from_an_answer(
    clipedge: Cli, demo_bundle: Path, pictures: list[Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(pictures[0].read_bytes()[:200])
    outcome = clipedge("classify", demo_bundle, damaged, pictures[1], "--json")
    assert outcome.code == 1
    assert [entry["image"] for entry in outcome.document] == [str(pictures[1])]
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"clipedge: {damaged}: the picture is damaged or cut off")


def test_fast_reaches_the_decoder(clipedge: Cli, demo_bundle: Path, tmp_path: Path) -> None:
    (scene,) = write_folder(tmp_path, "test", 1, width=640, height=640, by_label=True)
    PIL.Image.open(scene).save(scene.with_suffix(".jpg"), quality=90)
    scene.unlink()
    arguments = ("classify", demo_bundle, scene.with_suffix(".jpg"), "--json")
    exact, fast = (clipedge(*arguments, *more).document[0]["answers"] for more in ((), ("--fast",)))
    assert exact[0]["label"] == fast[0]["label"]
    assert exact[0]["probability"] == pytest.approx(fast[0]["probability"], abs=0.1)
    assert exact != fast
    assert clipedge("eval", demo_bundle, tmp_path, "--fast", "--bank", "default").code == 0


# ---- eval ----------------------------------------------------------------------------------------------------


def test_eval_prints_the_accuracy_and_its_interval(clipedge: Cli, demo_bundle: Path, labelled: Path) -> None:
    outcome = clipedge("eval", demo_bundle, labelled)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("24 pictures, ")
    assert "top-1 accuracy" in outcome.out


def test_eval_as_json_counts_every_picture(clipedge: Cli, demo_bundle: Path, labelled: Path) -> None:
    document = clipedge("eval", demo_bundle, labelled, "--json", "--bank", "default").document
    right = sum(item["right"] for item in document["per_class"].values())
    assert document["pictures"] == sum(item["pictures"] for item in document["per_class"].values()) == 24
    assert document["top1"] == pytest.approx(right / 24)
    assert document["interval"][0] <= document["top1"] <= document["interval"][1]
    assert document["top5"] >= document["top1"] > 0.4
    assert sum(count for _, _, count in document["confusions"]) == 24 - right


# ---- inspect -------------------------------------------------------------------------------------------------


def test_inspect_says_what_the_bundle_holds_and_that_it_is_right_here(clipedge: Cli, demo_bundle: Path) -> None:
    outcome = clipedge("inspect", demo_bundle)
    assert (outcome.code, outcome.err) == (0, "")
    for expected in ("int8.x86", "prompt banks      default", "here: image", "here: text", "onnxruntime"):
        assert expected in outcome.out


def test_inspect_as_json_holds_the_manifest(clipedge: Cli, demo_bundle: Path) -> None:
    document = clipedge("inspect", demo_bundle, "--json").document
    manifest = json.loads((demo_bundle / "clipedge.json").read_text(encoding="utf-8"))
    assert {key: document[key] for key in manifest} == manifest
    assert document["prompt_banks"] == ["default"]
    assert {tower: result["device"] for tower, result in document["tested_here"].items()} == {
        "image": "cpu",
        "text": "cpu",
    }
    assert all(result["lowest_centred_cosine"] > 0.9 for result in document["tested_here"].values())


@pytest.mark.parametrize("pattern", ["image.*.onnx", "text.*.onnx", "tokenizer.json", "golden.*", "prompts/*"])
def test_inspect_notices_a_changed_byte_in_any_file(clipedge: Cli, copy: Path, pattern: str) -> None:
    (path,) = copy.glob(pattern)
    data = bytearray(path.read_bytes())
    data[20] ^= 0x10
    path.write_bytes(data)
    outcome = clipedge("inspect", copy)
    assert (outcome.code, outcome.out) == (1, "")
    assert path.name in outcome.err


def test_numbers_that_json_lacks_become_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"drop": float("nan"), "all": [1.5, float("inf"), ("é", None, True)]})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"drop": None, "all": [1.5, None, ["é", None, True]]}


# ---- as a process --------------------------------------------------------------------------------------------


def test_the_installed_command_and_the_module_are_the_same(demo_bundle: Path, pictures: list[Path]) -> None:
    command = Path(sys.executable).with_name("clipedge")
    calls = ([str(command)], [sys.executable, "-m", "clipedge"])
    arguments = ["classify", str(demo_bundle), str(pictures[0]), "--json"]
    first, second = (subprocess.run([*call, *arguments], check=True, capture_output=True) for call in calls)
    assert first.stdout == second.stdout
    assert len(json.loads(first.stdout)) == 1


@pytest.mark.skipif(os.name != "posix", reason="pipes there tell it differently")
@pytest.mark.parametrize("times", [1, 400])
def test_a_reader_that_has_read_enough_is_no_error(demo_bundle: Path, pictures: list[Path], times: int) -> None:
    """As in `clipedge classify ... | head -1`, for an output that fits the buffer and for one that does not."""
    command = [sys.executable, "-m", "clipedge", "classify", str(demo_bundle), *[str(pictures[0])] * times]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate()
    assert err == b""


@pytest.mark.skipif(os.name != "posix", reason="only there a file name may be any bytes")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_file_name_that_is_no_text_is_printed_all_the_same(demo_bundle: Path, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9 \xe5\x9b\xb3.png")  # Latin-1, then UTF-8
    PIL.Image.new("RGB", (9, 9)).save(path)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for option in ("--json", "--top=1"):
        command = [sys.executable, "-m", "clipedge", "classify", str(demo_bundle), str(path), option]
        outcome = subprocess.run(command, capture_output=True, env=environment)
        assert outcome.returncode == 0, outcome.stderr
        if option == "--json":
            assert json.loads(outcome.stdout)[0]["image"] == str(path)
