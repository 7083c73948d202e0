"""From a Hugging Face model directory to an ONNX graph, without reading its weights.

The model is built and traced with tensors that have a shape and a type but no values, so that the memory it takes
does not grow with the model. Weights keep the checkpoint's names and orientation; they are read later, one by one.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from bsexport.checkpoint import Checkpoint, Stored, locate
from bsexport.errors import BsexportError, ExportError
from bsexport.graph import architecture, seq2seq
from bsexport.graph.architecture import Traced
from bsexport.graph.causal import over_slots, tell_if_unchecked
from bsexport.graph.clean import clean, fits_blob, is_weight
from bsexport.graph.heads import is_head
from bsexport.graph.match import Match, match
from bsexport.graph.rewrite import inline_constants
from bsexport.graph.skeleton import declare, declared_weights
from bsexport.quiet import quiet
from bsexport.source import InMemory, Source, Weight, default_name

OPSET = 20
"""The first operator set with Gelu as one operator."""


def export(directory: str | Path, task: str | None, *, trust_remote_code: bool = False) -> Source:
    """The graph and the lazily read weights of a Hugging Face model.

    directory: a model folder, or the id of a model on the Hub. A folder wins.
    task: one of `architecture.TASKS`, or None for that of config.json.
    Inputs and outputs are named as the model's own: input_ids, attention_mask and where there are several token types
    token_type_ids, all int64 [batch, sequence]; pixel_values float32 [batch, channels, height, width]; logits,
    start_logits, end_logits, last_hidden_state, pooler_output, float32. Those of language models are told in
    graph/causal.py and, of the two graphs of an encoder-decoder, in graph/seq2seq.py.
    Raises SourceError if the folder cannot be read or does not fit the task, ExportError if torch or transformers
    cannot make a graph of the model.
    """
    folder = locate(Path(directory), code=trust_remote_code)
    checkpoint = Checkpoint.open(folder)
    task = architecture.choose_task(checkpoint.config.get("architectures"), task)
    with quiet():
        config = architecture.read_config(folder, task, trust_remote_code)
        model = architecture.build(folder, config, task, trust_remote_code)
    matched = match(model, checkpoint, task)
    if task == "text-generation":
        tell_if_unchecked(model, directory)
    elif task in architecture.SEQ2SEQ:
        tell_if_unchecked(model, directory, seq2seq.CHECKED)
    constants: dict[str, npt.NDArray[Any]] = {}
    graphs = []
    with quiet():
        for trace in _traces(model, task):
            graphs.append(_simplify(_trace(model, trace, matched, folder), matched, checkpoint, constants))
    weights = _weights(graphs, checkpoint, matched, constants)
    stored = {each.name for each in matched.stored.values()}
    inline = dict.fromkeys(name for graph in graphs for name in inline_constants(graph) if name in stored)
    graph, encoder = (*graphs, None)[:2]
    name = default_name(str(directory))
    return Source(name, task, graph, weights, checkpoint.files(), tuple(inline), encoder, checkpoint.stores())


def _traces(model: Any, task: str) -> tuple[Callable[[Any, Path], Traced], ...]:
    """What makes the graphs of a model for a task: one, or of an encoder-decoder the decoder's and the encoder's."""
    if task in architecture.SEQ2SEQ:
        return seq2seq.decoder, seq2seq.encoder
    if task == "text-generation":
        return (over_slots,)
    return (seq2seq.encoder_alone if architecture.is_encoder_alone(model) else architecture.as_it_is,)


def _trace(model: Any, trace: Callable[[Any, Path], Traced], matched: Match, directory: Path) -> Any:
    """The model as an onnx_ir.Model whose weights have no values. Raises ExportError."""
    import torch

    try:
        _forget_values(model, matched)
        traced = trace(model, directory)
        with torch.no_grad():
            program = torch.onnx.export(
                traced.module,
                kwargs=traced.inputs,
                input_names=traced.names,
                dynamic_shapes=traced.axes,
                opset_version=OPSET,
                dynamo=True,
                optimize=False,  # it would merge weights that are equal, and rename them
                verbose=False,
            )
        for value, name in zip(program.model.graph.outputs, _output_names(program.exported_program), strict=True):
            value.name = name
        _check_types(program.model.graph, type(model).__name__, directory)
    except BsexportError:
        raise
    except Exception as error:  # whatever the model's code and the exporter raise
        raise ExportError(
            f"{directory}: torch cannot export {type(model).__name__} "
            f"({architecture.first_line(error)}{_raised_in(error, model)}); {architecture.INSTEAD}"
        ) from error
    return program.model


def _check_types(graph: Any, name: str, directory: Path) -> None:
    """Raise ExportError for what onnxruntime cannot compute: it would refuse the graph when it is loaded."""
    from onnxscript import ir

    for node in graph:
        if node.op_type != "Cast" and any(value.dtype == ir.DataType.BFLOAT16 for value in node.outputs):
            raise ExportError(
                f"{directory}: {name} computes {node.op_type} in bfloat16, whatever its weights are, which onnxruntime "
                f"does not on a CPU; {architecture.INSTEAD}"
            )


def _raised_in(error: BaseException, model: Any) -> str:
    """The innermost of the model's modules whose code led to an error; "" if that is the model itself, or none."""
    names = {id(module): f", in {name}, a {type(module).__name__}" for name, module in model.named_modules() if name}
    while error.__cause__ is not None:
        error = error.__cause__
    callers = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((names[id(caller)] for caller in reversed([*callers]) if id(caller) in names), "")


def _forget_values(model: Any, matched: Match) -> None:
    """Replace what the checkpoint holds by fake tensors, one per tensor of the checkpoint: tied names share one."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = {stored.name: torch.empty(stored.shape) for stored in matched.stored.values()}
        parameters = {name: torch.nn.Parameter(fake, requires_grad=False) for name, fake in fakes.items()}
    for name, stored in matched.stored.items():
        prefix, _, member = name.rpartition(".")
        module = model.get_submodule(prefix)
        if member in module._parameters:
            module._parameters[member] = parameters[stored.name]
        else:
            module._buffers[member] = fakes[stored.name]


def _output_names(program: Any) -> list[str]:
    """The fields of the model's output, in order. Raises ValueError if they are not named."""
    spec = program.call_spec.out_spec
    names = spec.context
    if not isinstance(names, list) or len(names) != spec.num_leaves:
        raise ValueError(f"its outputs are {spec}, expected named tensors")
    return names


def _simplify(
    model: Any, matched: Match, checkpoint: Checkpoint, constants: dict[str, npt.NDArray[Any]]
) -> onnx.ModelProto:
    """The cleaned graph with its weights declared but empty.

    constants: large ones of the model's own code, by name; those of this graph are added, unless they are there.
    Weights are inputs of the graph while the optimiser runs, so that it can neither fold nor merge them. Those that no
    blob can hold, such as a scalar, are read and stay in the graph.
    """
    from onnxscript import ir, optimizer

    weights = _weights_to_inputs(model.graph, matched.stored)
    optimizer.optimize(model)
    for name, value in weights.items():
        model.graph.inputs.remove(value)
        _rename(model.graph, value, name)
    taken = _take_constants(model.graph, constants)
    proto = ir.to_proto(model)
    for name in weights:
        proto.graph.initializer.append(_initializer(checkpoint, name))
    for name in taken:
        array = constants[name]
        proto.graph.initializer.append(declare(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    return clean(proto)


def _initializer(checkpoint: Checkpoint, name: str) -> onnx.TensorProto:
    """The declaration of a weight of the checkpoint, or with its values if no blob can hold it."""
    stored = checkpoint.tensors[name]
    data_type = helper.np_dtype_to_tensor_dtype(stored.dtype)
    if fits_blob(data_type, stored.shape):
        return declare(name, data_type, stored.shape)
    return numpy_helper.from_array(checkpoint.read(name), name)


def _weights_to_inputs(graph: Any, stored: dict[str, Stored]) -> dict[str, Any]:
    """Turn initializers into inputs, tied ones into one. Returns them by their names in the checkpoint."""
    weights: dict[str, Any] = {}
    for initializer, value in list(graph.initializers.items()):
        if initializer in stored:
            del graph.initializers[initializer]
            value.const_value = None
            weight = weights.setdefault(stored[initializer].name, value)
            if weight is value:
                graph.inputs.append(value)
            else:
                value.replace_all_uses_with(weight)
    return weights


def _rename(graph: Any, weight: Any, name: str) -> None:
    """Give `weight` its name in the checkpoint; a computed value of that name gets another."""
    for node in graph:
        for value in node.outputs:
            if value.name == name:
                value.name = f"{name}.computed"
    weight.name = name


def _take_constants(graph: Any, constants: dict[str, npt.NDArray[Any]]) -> list[str]:
    """Take the constants out of the graph that are too large to stay inline, such as sinusoidal position tables.

    They are added to `constants`, unless equal ones are there. Returns the names under which they stand there.
    """
    taken: dict[str, Any] = {}
    for name, value in list(graph.initializers.items()):
        if not is_weight(value.dtype.value, tuple(value.shape)):
            continue
        array = value.const_value.numpy()
        known = next((other for other, there in constants.items() if _equal(array, there)), None)
        own = known or (f"{name}.{len(constants)}" if name in constants else name)
        constants.setdefault(own, array)
        del graph.initializers[name]
        if own in taken:
            value.replace_all_uses_with(taken[own])
        else:
            taken[own] = value
            _rename(graph, value, own)
    return list(taken)


def _equal(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


def _weights(
    graphs: Sequence[onnx.ModelProto],
    checkpoint: Checkpoint,
    matched: Match,
    constants: dict[str, npt.NDArray[Any]],
) -> tuple[Weight, ...]:
    """The tensors that the graphs use: the checkpoint's, in the order in which they are stored, then constants."""
    used = {tensor.name for graph in graphs for tensor in declared_weights(graph)}
    weights = []
    for name, stored in checkpoint.tensors.items():
        if name in used and name not in constants:  # old checkpoints hold position ids that the model now makes itself
            ties = matched.ties.get(name, ())
            head = any(map(is_head, (name, *ties)))
            weights.append(Weight(name, stored.shape, stored.dtype, partial(checkpoint.read_part, name), ties, head))
    for name, array in constants.items():
        if name in used:
            weights.append(Weight(name, array.shape, array.dtype, InMemory(array), constant=True))
    return tuple(weights)
