"""Downloading from a hub on this machine: what is fetched, what is kept, and a clear line for whatever goes wrong."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import huggingface_hub
import pytest
from huggingface_hub import constants
from safetensors.torch import save_file

from clipedge.errors import CheckpointError, UsageError
from clipedge.export.checkpoints import DEMO_CHECKPOINT, ModelSource, load_checkpoint
from clipedge.export.checkpoints.hub import HubModel, fetch, needed_files, parse_hub_name
from clipedge.export.package import make_manifest


def _load_server() -> ModuleType:
    """The file beside this one; with pytest's importlib mode tests are no package."""
    specification = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["hub_server"] = module
    specification.loader.exec_module(module)
    return module


server = _load_server()

NEEDED = [
    "LICENSE",
    "README.md",
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
OTHERS = {
    "LICENSE": b"MIT",
    "pytorch_model.bin": b"a pickle",
    "flax_model.msgpack": b"flax",
    "tf_model.h5": b"tensorflow",
    "onnx/model.onnx": b"onnx",
    "training_args.bin": b"a pickle",
    "photo.jpg": b"a picture",
}
DEMO = HubModel("shop/demo")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[server.Hub]:
    """A hub with the demonstration checkpoint under "shop/demo", and an empty cache; what HF_ENDPOINT and HF_HOME set
    when the library is imported."""
    files = {name: data for name, data in server.files_of(DEMO_CHECKPOINT).items() if not name.endswith(".py")}
    with server.serving(server.Hub("shop/demo", {**files, **OTHERS})) as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.utils.close_session()


def refuse(model: HubModel = DEMO) -> str:
    """The message of the refusal, in one line."""
    with pytest.raises(CheckpointError) as caught:
        fetch(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "revision", "expected"),
    [
        ("openai/clip-vit-base-patch32", None, HubModel("openai/clip-vit-base-patch32")),
        ("openai/clip@v1.0", None, HubModel("openai/clip", "v1.0")),
        ("openai/clip@refs/pr/3", None, HubModel("openai/clip", "refs/pr/3")),
        ("openai/clip", "main", HubModel("openai/clip", "main")),
        ("openai/clip@main", "main", HubModel("openai/clip", "main")),
        ("clip", None, None),
        ("./models/clip", None, None),
        ("../clip", None, None),
        ("/models/clip", None, None),
        ("a/b/c", None, None),
    ],
)
def test_a_hubs_name_is_owner_and_name_and_perhaps_a_revision(
    name: str, revision: str | None, expected: HubModel | None
) -> None:
    assert parse_hub_name(name, revision) == expected


def test_two_revisions_that_differ_are_refused() -> None:
    with pytest.raises(UsageError, match="names the revision 'v1', --revision 'v2'"):
        parse_hub_name("openai/clip@v1", "v2")


# ---- which files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (["model.safetensors", "pytorch_model.bin", "onnx/model.onnx"], {"model.safetensors"}),
        (["pytorch_model.bin", "flax_model.msgpack"], {"pytorch_model.bin"}),
        (["open_clip_model.safetensors", "model.safetensors"], {"open_clip_model.safetensors"}),
        (["open_clip_pytorch_model.bin", "model.safetensors"], {"model.safetensors"}),
        (["open_clip_pytorch_model.bin", "notes.txt"], {"open_clip_pytorch_model.bin"}),
        (
            ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
            {"model.safetensors.index.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"},
        ),
        (["adapter_model.safetensors", "training_args.bin", "optimizer.pt"], {"adapter_model.safetensors"}),
        (["mobileclip_s0.pt", "notes.txt"], {"mobileclip_s0.pt"}),
        (["one.pt", "two.pt"], set()),
        (["onnx/model.onnx", "tf_model.h5", "folder/model.safetensors"], set()),
    ],
)  # fmt: skip
def test_one_set_of_weights_is_picked_and_pickles_only_where_there_is_nothing_else(
    names: list[str], weights: set[str]
) -> None:
    assert set(needed_files(names)) == weights
    with_more = {*names, "config.json", "tokenizer.json", "LICENSE_MODELS", "eval.csv"}
    if weights:
        assert set(needed_files(with_more)) == weights | {"config.json", "tokenizer.json", "LICENSE_MODELS"}


def test_a_download_has_the_needed_files_and_no_others(hub: server.Hub) -> None:
    snapshot = fetch(DEMO)
    assert (snapshot.commit, snapshot.path.name) == (server.COMMIT, server.COMMIT)
    assert sorted(path.name for path in snapshot.path.iterdir()) == NEEDED
    assert hub.downloaded == NEEDED
    assert all((snapshot.path / name).read_bytes() == hub.files[name] for name in NEEDED)


def test_a_model_of_one_file_is_that_file(hub: server.Hub) -> None:
    hub.files = {"mobileclip_s0.pt": b"weights", "README.md": b"---\nlicense: apple-amlr\n---\n"}
    snapshot = fetch(DEMO)
    assert (snapshot.path.name, snapshot.path.read_bytes()) == ("mobileclip_s0.pt", b"weights")
    assert snapshot.commit == server.COMMIT


def test_what_is_cached_is_not_fetched_again(hub: server.Hub) -> None:
    first = fetch(DEMO)
    hub.requests.clear()
    assert fetch(DEMO) == first
    assert hub.downloaded == []


def test_a_revision_is_pinned(hub: server.Hub) -> None:
    assert fetch(HubModel("shop/demo", "v1")).commit == server.OLD_COMMIT
    assert fetch(HubModel("shop/demo", server.OLD_COMMIT)).commit == server.OLD_COMMIT
    assert fetch(DEMO).commit == server.COMMIT


def test_a_repository_without_weights_is_refused_with_what_it_has(hub: server.Hub) -> None:
    hub.files = {"config.json": b"{}", "model.onnx": b"onnx"}
    message = refuse()
    assert "expected adapter_model.safetensors" in message
    assert "found config.json, model.onnx" in message
    assert hub.downloaded == []


# ---- transfers that break --------------------------------------------------------------------------------------


def test_a_broken_transfer_is_taken_up_where_it_broke(hub: server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)  # what is kept of a broken transfer is whole chunks
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    hub.cuts = {"model.safetensors": 1}
    snapshot = fetch(DEMO)
    assert (snapshot.path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    first, second = hub.ranges("model.safetensors")
    assert first is None
    assert second is not None
    kept = int(second.removeprefix("bytes=").rstrip("-"))
    assert 0 < len(hub.files["model.safetensors"]) // 2 - kept < 2**16


def test_a_transfer_that_keeps_breaking_is_reported_and_the_next_call_fetches_the_rest(
    hub: server.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda seconds: None)
    hub.cuts = {"model.safetensors": 100}
    assert "call again: files that arrived whole are kept" in refuse()
    hub.cuts.clear()
    hub.requests.clear()
    snapshot = fetch(DEMO)
    assert (snapshot.path / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    assert "model.safetensors" in hub.downloaded
    assert len(hub.downloaded) < len(NEEDED)


def test_a_full_disk_is_named(hub: server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub.file_download, "http_get", full)
    message = refuse()
    assert message.startswith(f"the disk is full ({constants.HF_HUB_CACHE})")
    assert "HF_HOME" in message


# ---- refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "no model shop/demo on http://127.0.0.1"),
        (401, "RepoNotFound", "set HF_TOKEN"),
        (401, "", "set HF_TOKEN"),
        (403, "GatedRepo", "shop/demo is gated: accept its licence on http://127.0.0.1"),
        (403, "", "refuses access to shop/demo"),
        (500, "", "shop/demo cannot be fetched"),
        (200, "", "shop/demo cannot be fetched"),
    ],
)
def test_a_refusal_says_what_to_do(hub: server.Hub, status: int, code: str, message: str) -> None:
    hub.refusal = (status, code)
    assert message in refuse()


def test_a_gated_model_lists_its_files_and_gives_none(hub: server.Hub) -> None:
    hub.gated = True
    message = refuse()
    assert message.startswith("shop/demo is gated")
    assert "HF_TOKEN" in message


def test_a_name_that_no_hub_has(hub: server.Hub) -> None:
    assert refuse(HubModel("shop--old/demo")).startswith("there is no folder shop--old/demo, and no hub has a model of")
    assert hub.requests == []


def test_a_revision_that_does_not_exist_is_named(hub: server.Hub) -> None:
    assert "shop/demo has no revision 'v9'" in refuse(HubModel("shop/demo", "v9"))


def test_access_that_was_withdrawn_is_not_covered_up_by_the_cache(hub: server.Hub) -> None:
    fetch(DEMO)
    hub.refusal = (404, "RepoNotFound")
    assert "no model shop/demo" in refuse()


# ---- without a connection --------------------------------------------------------------------------------------


def no_network(hub: server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens on port 1."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")


def test_no_network_and_nothing_in_the_cache(hub: server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(hub, monkeypatch)
    message = refuse()
    assert message.startswith("shop/demo cannot be fetched from http://127.0.0.1:1 (")
    assert "check the connection" in message


def test_no_network_and_a_model_in_the_cache(hub: server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = fetch(DEMO)
    no_network(hub, monkeypatch)
    with pytest.warns(UserWarning, match=f"using shop/demo as it was fetched before, commit {server.COMMIT}"):
        assert fetch(DEMO) == snapshot


def test_offline_without_a_cache(hub: server.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    go_offline(monkeypatch)
    message = refuse()
    assert "shop/demo is not in the cache" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert hub.requests == []


def test_offline_with_a_cache(
    hub: server.Hub, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    snapshot = fetch(DEMO)
    hub.requests.clear()
    go_offline(monkeypatch)
    assert fetch(DEMO) == snapshot
    assert fetch(HubModel("shop/demo", server.COMMIT)) == snapshot
    assert hub.requests == []
    assert not recwarn.list
    assert "HF_HUB_OFFLINE is set" in refuse(HubModel("shop/demo", "v1"))


# ---- the whole way ---------------------------------------------------------------------------------------------


def test_a_model_of_a_hub_loads_like_its_folder(hub: server.Hub, tmp_path: Path) -> None:
    (tmp_path / "golden.safetensors").touch()
    checkpoint = load_checkpoint("shop/demo@v1")
    local = load_checkpoint(DEMO_CHECKPOINT)
    assert (checkpoint.name, checkpoint.revision) == ("shop/demo", server.OLD_COMMIT)
    assert make_manifest(tmp_path, checkpoint, (), None).provenance.source_model == f"shop/demo@{server.OLD_COMMIT}"
    assert (checkpoint.space_id, checkpoint.source_sha256) == (local.space_id, local.source_sha256)
    assert checkpoint.tokenizer_json == local.tokenizer_json
    hub.requests.clear()
    assert load_checkpoint(checkpoint.source).space_id == local.space_id
    assert hub.requests == [], "what another process loads again is the folder"


def test_the_revision_may_stand_beside_the_name(hub: server.Hub) -> None:
    assert load_checkpoint(ModelSource("shop/demo", revision="v1")).revision == server.OLD_COMMIT


def test_a_revision_of_a_folder_is_refused() -> None:
    with pytest.raises(UsageError, match="a revision is of a model on a hub"):
        load_checkpoint(ModelSource(str(DEMO_CHECKPOINT), revision="v1"))


def test_the_base_of_an_adapter_may_be_on_the_hub(hub: server.Hub, tmp_path: Path) -> None:
    """An adapter without matrices: the model as it is."""
    config = {"peft_type": "LORA", "base_model_name_or_path": "shop/demo", "revision": "v1"}
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    save_file({}, tmp_path / "adapter" / "adapter_model.safetensors")
    checkpoint = load_checkpoint(tmp_path / "adapter")
    assert checkpoint.space_id == load_checkpoint(DEMO_CHECKPOINT).space_id
    assert (checkpoint.name, checkpoint.revision) == ("adapter", None)
    assert any(server.OLD_COMMIT in request.path for request in hub.requests)
    hub.refusal = (404, "RepoNotFound")
    with pytest.raises(
        CheckpointError, match="base_model_name_or_path is shop/demo: there is no folder shop/demo, and"
    ):
        load_checkpoint(tmp_path / "adapter")


@pytest.mark.slow
def test_endpoint_token_and_cache_are_those_of_the_environment(hub: server.Hub, tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_secret",
    }
    command = [sys.executable, "-m", "clipedge", "inspect", "shop/demo"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "no progress bars where nobody watches"
    assert done.stdout.startswith(f"shop/demo@{server.COMMIT}")
    assert hub.downloaded == NEEDED
    assert {request.token for request in hub.requests if "shop/demo" in request.path} == {"Bearer hf_secret"}
    assert (tmp_path / "home" / "hub" / "models--shop--demo" / "refs" / "main").read_text() == server.COMMIT
