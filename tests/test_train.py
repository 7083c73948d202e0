"""bsexport train, run in this process on tiny models: what comes out, for each task, and what bad input is told."""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import bsexport, names, refused
from hf_models import WORDS, save_bert, save_gpt2, save_t5, torch, transformers

pytest.importorskip("accelerate", reason="NOT TESTED: training needs accelerate")
pytest.importorskip("datasets", reason="NOT TESTED: training needs datasets")
pytest.importorskip("matplotlib", reason="NOT TESTED: training needs matplotlib")

from safetensors.numpy import load_file, save_file

from bsexport.backslash import Epsilon, Rate, Weight
from bsexport.checkpoint import Checkpoint
from bsexport.cli.train import train as command
from bsexport.train.record import EXPONENTS, coded_figures
from bsexport.train.trainer import Progress

TEXTS = ["the film was fine", "a fine one", "the film was a film", "who wrote it ; ada", "ada did", "it was it"] * 6
LABELS = ["good", "good", "bad", "bad", "bad", "bad"] * 6
SHORT = ("--steps", "4", "--batch-size", "4", "--lr", "1e-3")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of bad, so-so and good."""
    return save_bert(tmp_path_factory.mktemp("models") / "bert", "text-classification")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Texts and their labels."""
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
    return write_jsonl(tmp_path / "data.jsonl", rows)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "backslash.json").read_text())
    return found


# what comes out


def test_a_run_leaves_a_directory_for_transformers_and_pack(bert: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ("--pull", "0.7", "--settle-steps", "10", "--step", "2^-5", "--seed", "3", "--weight-decay", "0.01")
    result = bsexport(
        "train", bert, "--data", data, "--eval-data", data, "-o", out, "--steps", 120, "--lr", "5e-3", *options
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{bert} -> {out}\nsteps                   120\n")
    assert names(tmp_path) == ["data.jsonl", "out"]
    assert {"backslash.json", "backslash.svg", "config.json", "model.safetensors", "tokenizer.json"} <= set(names(out))
    assert "training_args.bin" not in names(out)

    model = transformers.AutoModelForSequenceClassification.from_pretrained(out)
    assert model.config.id2label == {0: "bad", 1: "so-so", 2: "good"}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    record = record_of(out)
    assert Rate.from_json(record["rate"]) == Rate(weight=Weight("pull", 0.7), settle=10, step=2**-5)
    assert (record["steps"], record["seed"], record["task"]) == (120, 3, "text-classification")
    assert record["arguments"]["weight_decay"] == 0.01
    assert (record["data"]["rows"], record["data"]["columns"]) == (36, {"text": "text", "label": "label"})
    assert [row["step"] for row in record["curve"]] == [1, *range(2, 121, 2)]  # each hundredth of the run, rounded up
    assert {"loss", "shape", "sparsity", "bits", "learning_rate"} <= set(record["curve"][0])
    assert record["curve"][-1]["sparsity"] > record["curve"][0]["sparsity"] + 0.1
    assert record["final"]["accuracy"] == record["evaluations"][-1]["accuracy"] > 0.9
    before, after = load_file(bert / "model.safetensors"), load_file(out / "model.safetensors")
    word = "bert.embeddings.word_embeddings.weight"
    assert np.abs(after["classifier.weight"]).mean() > 0.8 * np.abs(before["classifier.weight"]).mean()
    intermediate = "bert.encoder.layer.0.intermediate.dense.weight"
    assert np.abs(after[intermediate]).mean() < 0.7 * np.abs(before[intermediate]).mean()
    assert before[word].size < 1024 and np.abs(after[word]).mean() > 0.8 * np.abs(before[word]).mean()
    packed = bsexport("pack", out, "-o", tmp_path / "package")
    assert "\nstep 0.03125, which the model was trained for\n" in packed.stdout
    manifest = json.loads((tmp_path / "package" / "bsexport.json").read_text())
    assert manifest["recipe"]["step"] == 2**-5
    coded = sum(math.prod(tensor["shape"]) for tensor in manifest["tensors"] if not tensor["why"])
    assert coded == record["final"]["coded"]["weights"]


def test_figures_are_those_of_the_weights_that_pack_codes(bert: Path) -> None:
    weights = load_file(bert / "model.safetensors")
    coded = [array for array in weights.values() if sum(dim > 1 for dim in array.shape) > 1 and array.size >= 1024]
    found = coded_figures(Checkpoint.open(bert), 2**-3)
    assert found["weights"] == sum(array.size for array in coded) == 10496

    def entropy(step: float) -> float:
        bits = 0.0
        for array in coded:
            counts = np.unique(np.rint(array / step), return_counts=True)[1]
            bits -= float((counts * np.log2(counts / array.size)).sum())
        return bits / found["weights"]

    assert found["entropy"] == pytest.approx({f"2^{n}": entropy(2.0**n) for n in EXPONENTS} | {"step": entropy(2**-3)})
    assert found["sparsity"] == sum(int((np.abs(array) <= 2**-4).sum()) for array in coded) / found["weights"]


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("token-classification", [{"tokens": ["ada", "wrote", "it"], "tags": ["good", "bad", "so-so"]}]),
        ("question-answering", [{"question": "who wrote it", "context": "it was ada", "answer": "ada"}]),
        ("fill-mask", [{"text": "the film was a fine one ; who wrote it"}]),
        ("text-classification", [{"sentence1": "ada", "sentence2": "did", "label": n} for n in (0, 2)]),
    ],
)  # fmt: skip
def test_every_task_of_an_encoder(tmp_path: Path, task: str, rows: list[dict[str, Any]]) -> None:
    model, data = save_bert(tmp_path / "m", task), write_jsonl(tmp_path / "d.jsonl", rows * 12)
    result = bsexport(
        "train", model, "--data", data, "--eval-data", data, "-o", tmp_path / "out", *SHORT, "--max-length", 12
    )
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path / "out")
    assert record["task"] == task
    assert 0 <= record["final"]["accuracy"] <= 1
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["architectures"]
        == json.loads((model / "config.json").read_text())["architectures"]
    )


def test_causal_language_modelling_from_a_configuration(tmp_path: Path) -> None:
    model = save_gpt2(tmp_path / "m")
    (model / "model.safetensors").unlink()
    (tmp_path / "text.txt").write_text("the film was a fine one ; who wrote it\n" * 60)
    options = ("--steps", "60", "--lr", "1e-2", "--max-length", "12", "--form", "none")
    text = tmp_path / "text.txt"
    result = bsexport(
        "train", model / "config.json", "--data", text, "--eval-data", text, "-o", tmp_path / "out", *options
    )
    assert result.exit_code == 0, result.output
    assert record_of(tmp_path / "out")["final"]["accuracy"] > 0.95
    assert json.loads((tmp_path / "out" / "config.json").read_text())["use_cache"] is True


def test_translation(tmp_path: Path) -> None:
    rows = [{"en": "the film", "de": "fine one"}, {"en": "ada", "de": "it"}] * 8
    data = write_jsonl(tmp_path / "d.jsonl", rows)
    options = ("--source", "en", "--target", "de", "--eval-data", data, *SHORT)
    assert bsexport("train", save_t5(tmp_path / "m"), "--data", data, "-o", tmp_path / "out", *options).exit_code == 0
    assert record_of(tmp_path / "out")["task"] == "translation"


def test_a_new_head_takes_its_classes_from_the_data(tmp_path: Path, data: Path) -> None:
    model = save_bert(tmp_path / "m", "fill-mask")
    result = bsexport("train", model, "--task", "text-classification", "--data", data, "-o", tmp_path / "out", *SHORT)
    assert result.exit_code == 0
    assert "began at random: bert.pooler.dense.bias, bert.pooler.dense.weight, classifier.bias" in result.stdout
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "bad", "1": "good"}
    assert config["label2id"] == {"bad": 0, "good": 1}


def test_a_teacher_changes_what_is_learnt(bert: Path, data: Path, tmp_path: Path) -> None:
    def trained(name: str, *options: object) -> dict[str, Any]:
        assert bsexport("train", bert, "--data", data, "-o", tmp_path / name, *SHORT, *options).exit_code == 0
        return dict(load_file(tmp_path / name / "model.safetensors"))

    alone, taught = trained("alone"), trained("taught", "--teacher", bert, "--distil", "1", "--temperature", "1")
    assert any((alone[name] != taught[name]).any() for name in alone)
    assert record_of(tmp_path / "taught")["teacher"]["distil"] == 1
    assert record_of(tmp_path / "taught")["teacher"]["sha256"] == record_of(tmp_path / "taught")["model"]["sha256"]


def test_json_is_all_of_stdout_and_quiet_says_nothing(bert: Path, data: Path, tmp_path: Path) -> None:
    printed = bsexport("train", bert, "--data", data, "-o", tmp_path / "a", *SHORT, "--json")
    assert json.loads(printed.stdout) == {"out": str(tmp_path / "a"), **record_of(tmp_path / "a")}
    assert bsexport("train", bert, "--data", data, "-o", tmp_path / "b", *SHORT, "-q").output == ""
    assert (
        load_file(tmp_path / "a" / "model.safetensors").keys() == load_file(tmp_path / "b" / "model.safetensors").keys()
    )
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b  # the same seed, the same bits
    assert (tmp_path / "a" / "backslash.svg").read_bytes() == (tmp_path / "b" / "backslash.svg").read_bytes()


def test_every_option_of_the_rate_reaches_the_record(bert: Path, data: Path, tmp_path: Path) -> None:
    options = (
        *("--form", "decoupled", "--bits-weight", "0.5", "--shape", "global", "--metric", "adam", "--epsilon", "1"),
        *("--ramp", "0.25", "--settle-steps", "1", "--no-freeze", "--round", "--step", "1e-2"),
        *("--only", "bert.encoder*", "--exempt", "*query*", "--exempt", "none"),
    )
    assert bsexport("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT, *options).exit_code == 0
    assert Rate.from_json(record_of(tmp_path / "out")["rate"]) == Rate(
        form="decoupled", weight=Weight("bits", 0.5), shape="global", metric="adam",
        epsilon=Epsilon(1.0, relative=False), ramp=0.25, settle=1, freeze=False, round=True, step=1e-2,
        only=("bert.encoder*",), exempt=("*query*", "none"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "weight", "form"),
    [
        ("--lambda=100", Weight("lambda", 100.0), "loss"),
        ("--lambda-per-weight=1e-4", Weight("per-weight", 1e-4), "proximal"),
        ("--target-bits=4", Weight("target-bits", 4.0), "proximal"),
        ("--target-sparsity=0.5", Weight("target-sparsity", 0.5), "gradual"),
    ],
)
def test_every_way_to_say_how_strong(
    bert: Path, data: Path, tmp_path: Path, option: str, weight: Weight, form: str
) -> None:
    options = ("--steps", "30", "--lr", "1e-3", option, "--form", form)
    result = bsexport("train", bert, "--data", data, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    rate = Rate.from_json(record_of(tmp_path / "out")["rate"])
    assert (rate.weight, rate.form) == (weight, form)


def test_the_help_names_the_defaults_of_the_rate() -> None:
    rate = Rate()
    defaults = {
        "pull": f"{rate.weight.value}", "form": rate.form, "shape": rate.shape,
        "metric": rate.metric, "epsilon": f"{rate.epsilon.value:g}rms", "ramp": f"{rate.ramp:g}",
        "settle_steps": "a quarter", "step": f"2^{math.log2(rate.step):g}", "only": "*",
    }  # fmt: skip
    assert rate.weight.kind == "pull" and rate.epsilon.relative and rate.freeze and not rate.round and not rate.exempt
    assert rate.rate_steps(100) == 75
    helps = {option.name: option.help for option in command.params if hasattr(option, "help")}
    target = Rate(weight=Weight("target-sparsity", 0.8))
    for name, other in {
        "shape": f"{target.shape:g}", "metric": target.metric, "epsilon": f"{target.epsilon.value:g}rms",
    }.items():  # fmt: skip
        defaults[name] += f"; to a target {other}"
    for name, default in defaults.items():
        assert f"[default: {default}]" in str(helps[name]), name


# replacing


def test_force_replaces_what_train_wrote_and_only_that(bert: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("train", bert, "--data", data, "-o", out, *SHORT)
    assert bsexport(*arguments).exit_code == 0
    first = (out / "model.safetensors").read_bytes()
    assert (
        refused(*arguments, "--seed", "1")
        == f"{out}: exists already; choose another place with -o, or replace it with --force"
    )
    assert bsexport(*arguments, "--seed", "1", "--force").exit_code == 0
    assert (out / "model.safetensors").read_bytes() != first
    line = refused("train", bert, "--data", data, "-o", bert, "--force", *SHORT)
    assert line == f"{bert}: was not made by this command, so --force does not replace it; choose another place with -o"
    assert names(tmp_path) == ["data.jsonl", "out"]


# bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lr", "-1"), "lr -1.0 cannot be used: expected a finite number above 0"),
        (("--lr", "inf"), "lr inf cannot be used"),
        (("--pull", "-1"), "pull -1.0 cannot be used: expected a finite number from 0 up"),
        (("--lambda", "inf"), "lambda inf cannot be used"),
        (("--target-sparsity", "1"), "target-sparsity 1.0 cannot be used: expected a share from 0 to below 1"),
        (("--steps", "0"), "steps 0 cannot be used: expected 1 or more"),
        (("--batch-size", "0"), "batch-size 0 cannot be used"),
        (("--teacher", "x", "--distil", "2"), "distil 2.0 cannot be used: expected a share of the loss from 0 to 1"),
        (("--seed", "-1"), "seed -1 cannot be used"),
        (("--shape", "round"), "shape 'round' is unknown: expected tensor, global or a number above 0"),
        (("--epsilon", "x"), "epsilon 'x' cannot be used"),
        (("--step", "0"), "step 0 cannot be used"),
        (("--form", "loss"), "form loss takes a weight per loss"),
        (("--settle-steps", "4"), "settle 4 leaves none of 4 steps for the rate: take fewer"),
        (("--eval-steps", "2"), "eval-steps needs data to evaluate on: give eval-data"),
        (("--max-length", "41"), "max-length 41 cannot be used: "),
        (("--only", "nothing*"), "'nothing*' matches no parameter; their names are like bert.embeddings"),
        (("--label", "stars"), "has no column 'stars'; its columns are text, label"),
        (("--task", "song"), "--task song: not a task to train for"),
        (("--data", "none.csv"), "none.csv: no such file or folder"),
        (("--warmup-steps", "-3"), "transformers does not take these options: "),
        (("--resume",), "so there is no run to resume; leave out --resume"),
        (("--teacher", "nowhere/at/all"), "nowhere/at/all: no such folder"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(
    bert: Path, data: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    assert message in refused("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT, *options)
    assert names(tmp_path) == ["data.jsonl"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lambda", "1", "--pull", "1"), "give one of --pull and --lambda"),
        (("--epochs", "1"), "give one of --epochs and --steps"),
        (("--bf16", "--fp16"), "give one of --bf16 and --fp16"),
        (("--distil", "0.5"), "--distil goes with --teacher"),
        (("--temperature", "3"), "--temperature goes with --teacher"),
        (("--eopchs", "3"), "no such option: --eopchs; did you mean --epochs?"),
        (("--weight-decya", "3"), "no such option: --weight-decya; did you mean --weight-decay?"),
        (("--weight-decay", "much"), "invalid float value: 'much'"),
        (("--learning-rate", "1"), "--learning-rate is --lr here"),
        (("--push-to-hub", "True"), "--push-to-hub is not for bsexport train"),
        (("stray",), "no such option: stray"),
    ],
)
def test_wrong_usage_exits_with_2(
    bert: Path, data: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    result = bsexport("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr and "Traceback" not in result.stderr
    assert names(tmp_path) == ["data.jsonl"]


def test_an_option_of_transformers_before_the_model(bert: Path, data: Path, tmp_path: Path) -> None:
    result = bsexport("train", "--weight-decay", "0.1", bert, "--data", data, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "no such option: --weight-decay, or it stands before MODEL, which must come first" in result.stderr


def test_labels_that_do_not_match_the_head(bert: Path, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "d.jsonl", [{"text": "a", "label": "great"}, {"text": "it", "label": "good"}])
    assert refused("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT) == (
        f"{data}: column 'label' holds 'good', 'great', but the model's head has the classes 'bad', 'so-so', 'good'; "
        "give data with these, or a model without this head"
    )


def test_models_that_cannot_be_trained(bert: Path, data: Path, tmp_path: Path) -> None:
    def told(model: Path, *options: object) -> str:
        return refused("train", model, "--data", data, "-o", tmp_path / "out", *SHORT, *options)

    adapter = save_bert(tmp_path / "adapter", "text-classification")
    (adapter / "adapter_config.json").write_text("{}")
    assert f"{adapter}: is an adapter (LoRA, PEFT)" in told(adapter)
    quantised = save_bert(
        tmp_path / "quantised", "text-classification", quantization_config={"quant_method": "bitsandbytes"}
    )
    assert f"{quantised}: is a quantised model" in told(quantised)
    small = save_bert(tmp_path / "small", "text-classification", hidden_size=4, intermediate_size=4)
    assert "no parameter takes part: of" in told(small)
    bare = save_bert(tmp_path / "bare", "text-classification", tokenizer=False)
    assert f"{bare}: the tokenizer in {bare} has no words; save the model's tokenizer there" in told(bare)
    (tmp_path / "x.onnx").touch()
    assert "is an ONNX file; training takes a Hugging Face directory" in told(tmp_path / "x.onnx")
    other = save_bert(tmp_path / "other", "text-classification")
    save_file(
        {f"x.{name}": array for name, array in load_file(other / "model.safetensors").items()},
        other / "model.safetensors",
        {"format": "pt"},
    )
    assert "its weights lack most of BertForSequenceClassification, such as bert.embeddings" in told(other)
    narrow = save_bert(tmp_path / "narrow", "text-classification", vocab_size=len(WORDS) - 1)
    assert "its tokenizer has 17 tokens, but the model knows 16" in told(narrow)
    assert "is no trained model for text-classification, which a teacher has to be" in told(
        bert, "--teacher", save_bert(tmp_path / "mlm", "fill-mask")
    )
    apart = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    teacher = save_bert(tmp_path / "teacher", "text-classification", **apart)
    assert "the teacher has the classes 'a', 'b', and the model 'bad', 'so-so', 'good'" in told(
        bert, "--teacher", teacher
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_checkpoint(
    bert: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--steps", "40", "--lr", "1e30", "--save-steps", "1")
    line = refused("train", bert, "--data", data, "-o", out, *options)
    assert line == (
        f"step 3: the loss or a weight is not a finite number; the checkpoint of step 2 is kept in {out}.partial; "
        "begin anew with a smaller --lr or a weaker rate"
    )
    assert names(tmp_path) == ["data.jsonl", "out.partial"]
    assert (tmp_path / "out.partial" / "checkpoint-2" / "model.safetensors").is_file()
    assert not (tmp_path / "out.partial" / "checkpoint-3").exists()


def test_weights_that_are_no_numbers_are_not_published(bert: Path, data: Path, tmp_path: Path) -> None:
    line = refused("train", bert, "--data", data, "-o", tmp_path / "out", "--steps", "2", "--lr", "1e39")
    assert line.startswith("step 2: the loss or a weight is not a finite number; the checkpoint of step 1 is kept in ")
    assert names(tmp_path) == ["data.jsonl", "out.partial"]
    kept = load_file(tmp_path / "out.partial" / "checkpoint-1" / "model.safetensors")
    assert all(np.isfinite(array).all() for array in kept.values())


def test_half_the_bits_in_between_and_the_weights_stay_whole(bert: Path, data: Path, tmp_path: Path) -> None:
    result = bsexport("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT, "--bf16")
    assert result.exit_code == 0, result.output
    assert {str(array.dtype) for array in load_file(tmp_path / "out" / "model.safetensors").values()} == {"float32"}
    assert record_of(tmp_path / "out")["arguments"]["bf16"] is True


def test_a_model_that_sees_what_it_is_to_predict_is_refused(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert", "fill-mask")
    (tmp_path / "lines.txt").write_text("the film was fine\n" * 40)
    line = refused(
        *("train", folder, "--data", tmp_path / "lines.txt", "-o", tmp_path / "out"),
        *("--task", "text-generation", "--max-length", "8", "--steps", "2"),
    )
    assert line.endswith(
        "BertLMHeadModel sees the words that it is to predict; set is_decoder to true in its config.json, or train "
        "with --task fill-mask"
    )
    assert names(tmp_path) == ["bert", "lines.txt"]


def test_the_evaluation_can_be_limited_too(bert: Path, data: Path, tmp_path: Path) -> None:
    options = ("--eval-data", data, "--limit", "8", "--eval-limit", "5")
    assert bsexport("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT, *options).exit_code == 0
    record = record_of(tmp_path / "out")
    assert (record["data"]["examples"], record["eval_data"]["examples"]) == (8, 5)


def test_others_may_read_what_comes_out_and_the_next_command_is_named(bert: Path, data: Path, tmp_path: Path) -> None:
    result = bsexport("train", bert, "--data", data, "-o", tmp_path / "out", *SHORT, "--target-sparsity", "0.5")
    os.umask(mask := os.umask(0))
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir() if file.is_file()} == {0o666 & ~mask}
    last = result.stdout.splitlines()[-1]
    assert last == f"next: bsexport pack {tmp_path / 'out'} --prune 0.5 --step 2^-8"


def test_a_target_out_of_reach_says_how_near_it_came(bert: Path, data: Path, tmp_path: Path) -> None:
    line = refused(
        "train",
        bert,
        "--data",
        data,
        "-o",
        tmp_path / "out",
        *SHORT,
        "--target-bits",
        "0.01",
        "--metric",
        "adam",
        "--save-steps",
        "1",
        "--settle-steps",
        "1",
    )
    assert "target-bits 0.01 was not reached: the weights came to" in line


# the line of progress


def test_the_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 10.0, 10.01, 100.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    terminal, state = io.StringIO(), transformers.TrainerState(global_step=0, max_steps=400)
    progress = Progress(terminal)
    progress.on_train_begin(None, state, None)
    state.global_step = 1
    progress.on_log(None, state, None, logs={"loss": 0.5, "bits": 2.25, "shape": 0.4, "sparsity": 0.805})
    progress.on_step_end(None, state, None)
    state.global_step = 2
    progress.on_step_end(None, state, None)  # too soon to draw again
    state.global_step = 400
    progress.on_step_end(None, state, None)
    progress.on_train_end(None, state, None)
    figures = "loss 0.5000  2.250 bits/weight  shape 0.400  zeros 80.5%"
    assert terminal.getvalue() == (
        f"\r\033[Kstep 1/400  1:06:30 left  {figures}\r\033[Kstep 400/400  0:00 left  {figures}\n"
    )
