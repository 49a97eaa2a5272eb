"""Names of a hub: which names are looked up, what comes back, and the one line where nothing does."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from paddlealign.arguments import parse
from paddlealign.arguments.hub import fetch_checkpoints, is_hub_id, say_if_offline
from paddlealign.arguments.paths import check_paths
from paddlealign.data.sources import pieces, row_of
from paddlealign.errors import UserError
from tests.unit.test_row_files import found, refused


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The library's own loading of a folder, under a hub's name; the names that were asked for."""
    monkeypatch.chdir(tmp_path)
    for name, count in {"alpha/train": 3, "alpha/test": 2, "beta/train": 1}.items():
        path = tmp_path / "away" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps({"src": f"{name} {n}", "tgt": "x"}) + "\n" for n in range(count)))
    configs = "".join(f"- config_name: {name}\n  data_dir: {name}\n" for name in ("alpha", "beta"))
    (tmp_path / "away/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    asked: list[tuple[str, str | None]] = []
    load = datasets.load_dataset

    def stand_in(path: str, name: str | None = None, keep_in_memory: bool | None = None):
        asked.append((path, name))
        return load(str(tmp_path / "away"), name, cache_dir=str(tmp_path / "cache"), keep_in_memory=keep_in_memory)

    monkeypatch.setattr(datasets, "load_dataset", stand_in)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["alpha", "beta"])
    return asked


def sources(files: list[str]) -> list[str]:
    return [row_of(piece)[0]["src"] for name in files for piece in pieces(Path(name))]


def test_rows_of_a_hub_are_files_like_any(hub):
    train, dev = found("--dataset_name_or_path=org/rows-a", "--subset=alpha", "--do_eval")
    assert all(name.endswith(".arrow") for name in (*train, *dev))
    assert sources(train) == [f"alpha/train {n}" for n in range(3)] and sources(dev) == ["alpha/test 0", "alpha/test 1"]
    assert sources(found("--dataset_name_or_path=org/rows-a", "--subset=alpha", "--split=test")[0]) == sources(dev)
    assert hub == [("org/rows-a", "alpha")]  # once a run
    assert len(sources(found("--dataset_name_or_path=org/rows-a", "--subset=all")[0])) == 4
    assert len(sources(found("--dataset_name_or_path=org/rows-a", "--subset=beta,alpha")[0])) == 4


def test_a_split_or_subset_that_a_hubs_data_set_has_not_is_named(hub):
    assert "split: the data set org/rows-b, subset beta, has no split test; there are: train." in refused(
        "--dataset_name_or_path=org/rows-b", "--subset=beta", "--split=test"
    )
    assert "dev_split: the data set org/rows-b, subset beta, has no split dev" in refused(
        "--dataset_name_or_path=org/rows-b", "--subset=beta", "--do_eval"
    )
    assert "no split train[:1]; there are: train, test." in refused(
        "--dataset_name_or_path=org/rows-b", "--subset=alpha", "--split=train[:1]"
    )  # the library would cut there, and its file has all rows
    assert "cannot be had (Config name is missing. Please pick one" in refused("--dataset_name_or_path=org/rows-b")


def test_only_two_words_that_are_nothing_here_are_asked_of_a_hub(hub):
    Path("here/rows").mkdir(parents=True)
    for name in ("rows", "./here/none", "/a/b", "a/b/c", "here/rows", "a/", "~/x", "a b/c"):
        assert not is_hub_id(name), name
    assert is_hub_id("here/none") and is_hub_id("Qwen/Qwen2.5-1.5B-Instruct")
    assert "neither" in refused("--dataset_name_or_path=here/none.jsonl") and not hub


def test_without_network_one_line_says_both_what_is_not_here_and_what_to_do():
    message = refused("--dataset_name_or_path=data/sft2")
    assert "\n" not in message and message.startswith("dataset_name_or_path: data/sft2 is neither a folder nor a file here, and as a hub's")
    assert (
        "OfflineModeIsEnabled" in message and "--repo-type dataset --local-dir DIR, or modelscope download --dataset data/sft2" in message
    )
    arguments = parse("dpo", ["--model_name_or_path=output/sft2", "--ref_model_name_or_path=org/ref", "--output_dir=o", "--do_train",
                              "--train_dataset_path=t"], {})  # fmt: skip
    with pytest.raises(UserError) as caught:
        fetch_checkpoints(arguments)
    _, *lines = str(caught.value).split("\n")
    assert [line.split(":")[0].strip() for line in lines] == ["model_name_or_path", "ref_model_name_or_path"]
    assert "there is no folder output/sft2 here, and as a hub's id it cannot be had (Cannot find" in lines[0]
    assert "modelscope download --model output/sft2 --local_dir DIR" in lines[0]


class Answer(BaseHTTPRequestHandler):
    """A hub that refuses, and is there."""

    def do_HEAD(self):
        self.send_error(503)

    def log_message(self, *words):
        pass


def test_the_libraries_are_told_that_a_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("no_proxy", "*")
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        say_if_offline()
        thread.join(timeout=20)
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    say_if_offline()  # nobody listens there any more
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize("endpoint", ["https://a b", "a.b", "https://[a"])
def test_what_is_no_address_of_a_hub_is_one_that_cannot_be_reached(monkeypatch, endpoint):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    say_if_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_hub_is_asked_for_rows_when_the_rest_is_right(hub):
    Path("m").mkdir()
    Path("m/config.json").write_text("{}")
    Path("o").write_text("a file in the way")
    words = ["--model_name_or_path=m", "--output_dir=o", "--do_train", "--dataset_name_or_path=org/rows-c", "--subset=alpha"]
    with pytest.raises(UserError, match="output_dir: o is a file"):
        check_paths(parse("sft", words, {}))
    assert not hub
    Path("o").unlink()
    check_paths(parse("sft", words, {}))
    assert hub == [("org/rows-c", "alpha")]


def test_a_checkpoint_is_fetched_without_what_is_not_read(monkeypatch, tmp_path):
    asked = []

    def stand_in(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        files = ["config.json", "model.safetensors", "pytorch_model.bin", "consolidated.safetensors", "original/params.json", "README.md"]
        asked.append(list(huggingface_hub.utils.filter_repo_objects(files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)))
        return str(tmp_path / name.split("/")[1])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", stand_in)
    words = ["--model_name_or_path=org/one", "--tokenizer_name_or_path=org/two", "--lora_path=org/three", "--data_file=rows"]
    told = fetch_checkpoints(parse("predict", words, {}))
    assert (told.model.model_name_or_path, told.adapter.lora_path) == (str(tmp_path / "one"), str(tmp_path / "three"))
    assert told.model.tokenizer_name_or_path == str(tmp_path / "two") and len(told.notes) == 3
    assert f"model_name_or_path: org/one is read from {tmp_path / 'one'}." in told.notes
    assert asked[0] == ["config.json", "model.safetensors"]
    fetch_checkpoints(parse("predict", [words[0], words[3], "--allow_pickle=true"], {}))
    assert asked[-1] == ["config.json", "model.safetensors", "pytorch_model.bin"]
    fetch_checkpoints(parse("predict", [words[0], words[3]], {}), config_only=True)
    assert asked[-1] == ["config.json"]
    local = parse("predict", ["--model_name_or_path=m", "--data_file=rows"], {})
    assert fetch_checkpoints(local) is local
