"""A training loop under a rate, in one process or, under torchrun, in several: `loop.py FORM OUT`.

FORM: "single", "ddp" or "fsdp2". Saves the final weights, whole, and what the constraint measures, as OUT.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import distributed, nn

from bsexport.backslash import Epsilon, Rate, Weight, attach

STEPS, BATCH = 12, 32
RECIPES = {
    "pull": Rate(weight=Weight("pull", 0.5), settle=4, round=True),
    "paper": Rate(
        form="decoupled", weight=Weight("lambda", 5.0), shape="global", epsilon=Epsilon(1.0, relative=False), settle=4
    ),
    "loss": Rate(form="loss", weight=Weight("lambda", 5.0), settle=4),
    "sparsity": Rate(weight=Weight("target-sparsity", 0.8), metric="adam", shape="global", settle=4),
    "bits": Rate(weight=Weight("target-bits", 3.0), settle=4),
    "gradual": Rate(form="gradual", weight=Weight("target-sparsity", 0.7), settle=4),
    "language": Rate(weight=Weight("target-sparsity", 0.6), settle=4),
}
"""Name of a recipe -> what is trained: a classifier, and by the last a Llama whose embeddings are tied."""


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    if name == "language":
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True))
    made = nn.Sequential(nn.Linear(32, 65), nn.Tanh(), nn.Linear(65, 48, bias=False), nn.Tanh(), nn.Linear(48, 8))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.2)
    return made


def wrap(model: nn.Module, form: str) -> nn.Module:
    if form == "ddp":
        return nn.parallel.DistributedDataParallel(model)
    if form == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        for layer in model.model.layers if hasattr(model, "model") else model:
            if any(True for _ in layer.parameters()):
                fully_shard(layer)
        fully_shard(model)
    return model


def train(name: str, recipe: Rate, form: str, rank: int, world: int) -> dict[str, Any]:
    model = wrap(build(name), form)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    constraint = attach(model, optimizer, recipe, STEPS)
    for step in range(STEPS):
        loss = loss_of(model, name, step, rank, world) + constraint.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    weights = [getattr(parameter, "full_tensor", lambda p=parameter: p)().detach() for parameter in model.parameters()]
    measured = constraint.measure()
    return {"weights": weights, "shape": measured.shape, "sparsity": measured.sparsity, "bits": measured.bits}


def loss_of(model: nn.Module, name: str, step: int, rank: int, world: int) -> torch.Tensor:
    """Of this process's share of a step's batch."""
    mine, random = slice(rank * BATCH // world, (rank + 1) * BATCH // world), torch.Generator().manual_seed(step)
    if name == "language":
        ids = torch.randint(0, 40, (BATCH, 10), generator=random)[mine]
        return model(input_ids=ids, labels=ids).loss
    x = torch.randn((BATCH, 32), generator=random)[mine]
    return nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())


def main() -> None:
    form, out = sys.argv[1:]
    rank, world = 0, 1
    if form != "single":
        distributed.init_process_group("gloo")
        rank, world = distributed.get_rank(), distributed.get_world_size()
    results = {name: train(name, recipe, form, rank, world) for name, recipe in RECIPES.items()}
    if rank == 0:
        torch.save(results, out)
        print(json.dumps({"world": world}))
    if form != "single":
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
