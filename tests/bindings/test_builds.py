"""libclipedge by other compilers, under sanitizers, installed, its examples, and its parsers under attack."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from building import SOURCES, build, run
from numpy.typing import NDArray

import clipedge
from clipedge.retrieval.index import Index

HERE = Path(__file__).parent
CLANG = ("-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++")
HAS_CLANG = shutil.which("clang++") is not None
# ONNX Runtime is compiled without the sanitizer, which then misses how its threads wait for each other, and that it
# locks what it unlocks when it waits and at exit. libclipedge's own waits and locks are seen: races in it are found.
TSAN_IGNORED = """called_from_lib:libonnxruntime.so
race:libonnxruntime.so
mutex:std::condition_variable::wait
mutex:__run_exit_handlers
"""
FUZZ_SECONDS = os.environ.get("CLIPEDGE_FUZZ_SECONDS", "10")  # of each parser; `make bindings-fuzz` takes 600


@pytest.fixture(scope="module")
def index(clip_fp32: clipedge.Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    with Index.create(folder, clip_fp32.manifest.space_id, 128) as index:
        names = ["red circle", "blue star", "green ring", "a wall", "white square", "caf\u00e9"]
        index.add(names, clip_fp32.encode_text(names), [{"n": number} for number in range(len(names))])
    return folder


@pytest.fixture(scope="module")
def broken(demo_bundle_fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Bundles that have to be refused: no manifest, half a manifest, an altered graph."""
    folders = [tmp_path_factory.mktemp("broken") / name for name in ("empty", "half", "altered")]
    folders[0].mkdir()
    for folder in folders[1:]:
        shutil.copytree(demo_bundle_fp32, folder)
    manifest = folders[1] / "clipedge.json"
    manifest.write_bytes(manifest.read_bytes()[:500])
    next(folders[2].glob("image*.onnx")).write_bytes(b"no graph")
    return folders


def exercise(folder: Path, sanitizers: str, compiler: str, arguments: list[Path], **environment: str) -> None:
    """Compile exercise.cpp against the library in ``folder`` and run it. Raises AssertionError for any finding."""
    program = folder / "exercise"
    flags = ["-std=c++17", "-g", "-Wall", "-Wextra", "-Werror", *([f"-fsanitize={sanitizers}"] if sanitizers else [])]
    linked = [f"-L{folder}", "-lclipedge", f"-Wl,-rpath,{folder}", "-pthread"]
    run([compiler, *flags, f"-I{SOURCES / 'include'}", HERE / "exercise.cpp", "-o", program, *linked])
    assert run([program, *arguments], env=os.environ | environment) == "ok\n"


def test_the_cpp_interface(built: Path, demo_bundle_fp32: Path, index: Path, broken: list[Path]) -> None:
    exercise(built, "", "g++", [demo_bundle_fp32, index, *broken])


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CLANG, reason="clang is not installed")
def test_addresses_and_undefined_behaviour(demo_bundle_fp32: Path, index: Path, broken: list[Path]) -> None:
    """Built by clang: what gcc does not warn of, clang may, and warnings are errors."""
    folder = build("bindings-fuzz", "-DCLIPEDGE_SANITIZE=address,undefined", "-DCLIPEDGE_FUZZ=ON", *CLANG)
    arguments = [demo_bundle_fp32, index, *broken]
    exercise(folder, "address,undefined", "clang++", arguments, UBSAN_OPTIONS="halt_on_error=1")


@pytest.mark.slow
def test_races(demo_bundle_fp32: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "ignored").write_text(TSAN_IGNORED)
    folder = build("bindings-thread", "-DCLIPEDGE_SANITIZE=thread")
    options = f"suppressions={tmp_path / 'ignored'} halt_on_error=1"
    exercise(folder, "thread", "g++", [demo_bundle_fp32, index], TSAN_OPTIONS=options)


def seeds(parser: str, bundle: Path, index: Path) -> list[Path]:
    return {
        "manifest": [bundle / "clipedge.json"],
        "safetensors": [bundle / "prompts" / "default.safetensors"],
        "bank": [bundle / "prompts" / "default.safetensors"],
        "tokenizer": [bundle / "tokenizer.json"],
        "indexlog": [index / "entries-1.log"],
        "frame": [],
    }[parser]


@pytest.mark.slow
@pytest.mark.parametrize("parser", ["manifest", "safetensors", "bank", "tokenizer", "indexlog", "frame"])
def test_a_parser_under_attack(parser: str, demo_bundle_fp32: Path, index: Path, tmp_path: Path) -> None:
    """With libFuzzer for a time, where clang has it; with other compilers a number of mutations."""
    settings = ["-DCLIPEDGE_SANITIZE=address,undefined", "-DCLIPEDGE_FUZZ=ON", *(CLANG if HAS_CLANG else ())]
    folder = build("bindings-fuzz", *settings)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for path in seeds(parser, demo_bundle_fp32, index):
        shutil.copy(path, corpus)
    if parser == "tokenizer":
        (corpus / "text").write_text("tA photo of Ångström's 12 <|e|> \u1112\u1161", encoding="utf-8")
    if parser == "frame":
        for format in range(1, 10):  # 40 x 30, with strides that suffice for each
            (corpus / str(format)).write_bytes(bytes([format, 40, 30, 100, 100, 100, 1, 15]) + bytes(range(200)))
    program = folder / "fuzz" / f"fuzz_{parser}"
    limits = [f"-max_total_time={FUZZ_SECONDS}", "-max_len=65536", "-rss_limit_mb=1024"]
    # By a shell that starts it as a process of its own: a program counts the memory of the process that it was forked
    # from as its own peak, and these tests take gigabytes.
    command = ["sh", "-c", '"$@" 2>&1; exit $?', "sh", program, *(limits if HAS_CLANG else ["20000"]), corpus]
    told = run(command, cwd=tmp_path).splitlines()
    summary = [line for line in told if "DONE" in line or line.startswith("Done")]
    print(*summary, sep="\n")  # executions, coverage, seconds


def ppm(picture: NDArray[np.uint8], path: Path) -> Path:
    PIL.Image.fromarray(picture).save(path, format="PPM")
    return path


def test_examples_answer_as_python(
    built: Path,
    demo_bundle_fp32: Path,
    clip_fp32: clipedge.Clip,
    index: Path,
    tmp_path: Path,
    pictures: list[NDArray[np.uint8]],
) -> None:
    check_examples(built / "examples", demo_bundle_fp32, clip_fp32, index, ppm(pictures[3], tmp_path / "p.ppm"))


def check_examples(folder: Path, bundle: Path, clip: clipedge.Clip, index: Path, picture: Path) -> None:
    zero_shot = clip.classifier(clip.saved_bank("default"))
    label, probability = zero_shot.predict([picture])[0], zero_shot.predict_proba([picture]).max()
    found = run([folder / "classify", bundle, "default", picture])
    assert found.rsplit(" ", 1)[0] == label and float(found.rsplit(" ", 1)[1]) == pytest.approx(probability, abs=2e-4)

    [hits] = Index.open(index, clip.manifest.space_id).search(clip.encode_text("a star"), 2)
    lines = run([folder / "search", bundle, index, "a star", "2"]).splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [f'{hit.key} {{"n":{hit.metadata["n"]}}}' for hit in hits]


def test_an_example_says_what_went_wrong(built: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(AssertionError, match="is not a bundle: it has no"):
        run([built / "examples" / "classify", tmp_path, "default", ppm(pictures[0], tmp_path / "p.ppm")])


@pytest.mark.slow
def test_what_is_installed_is_found_by_cmake_and_pkg_config(
    built: Path,
    demo_bundle_fp32: Path,
    clip_fp32: clipedge.Clip,
    index: Path,
    tmp_path: Path,
    pictures: list[NDArray[np.uint8]],
) -> None:
    prefix = tmp_path / "prefix"
    run(["cmake", "--install", built, "--prefix", prefix])
    run(["cmake", "-S", SOURCES / "examples", "-B", tmp_path / "examples", f"-DCMAKE_PREFIX_PATH={prefix}"])
    run(["cmake", "--build", tmp_path / "examples"])
    picture = ppm(pictures[3], tmp_path / "p.ppm")
    check_examples(tmp_path / "examples", demo_bundle_fp32, clip_fp32, index, picture)

    libraries = next(prefix.rglob("pkgconfig"))
    flags = run(["pkg-config", "--cflags", "--libs", "clipedge"], env=os.environ | {"PKG_CONFIG_PATH": str(libraries)})
    source = SOURCES / "examples" / "classify.c"
    strict = ["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror"]
    where = [f"-Wl,-rpath,{libraries.parent}", f"-Wl,-rpath-link,{libraries.parent}"]
    run(["gcc", *strict, source, "-o", tmp_path / "classify", *flags.split(), *where])
    assert run([tmp_path / "classify", demo_bundle_fp32, "default", picture])
