"""How large the experiments are: tiny (minutes), small (an hour or two on two cores) or as in the paper (GPUs)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from bsexport.errors import RecipeError
from bsexport.reproduce.sets import Set, from_folder, from_hub
from bsexport.reproduce.tiny import write_model, write_sets
from bsexport.source import default_name

PROFILES = ("tiny", "small", "paper")

# The paper's code: the pull comes after each step of the optimizer, goes on through zero, with one shape for all
# weights and a soft clip of 1, and nothing keeps zeros as they are in the steps without the rate.
PAPER_FORM = ("--form", "decoupled", "--shape", "global", "--epsilon", "1", "--no-freeze")
_LAMBDAS = ("1", "10", "100", "1000")


@dataclass(frozen=True)
class Profile:
    """name: of the profile. models: by the paper's names, what train takes; the first is that of all experiments but
    table 4. language_model: that of next-token sets; None: they are left out. sets: by the paper's names.

    strengths: by the paper's lambda, the options that give the like here; the last is what "BackSlash" means in tables
    with one column of it. regularised: the options of table 6, where the shape is fixed. training: options of every
    run. limit: examples that accuracies are of; None: all. ratios, steps: of the pruning and quantisation experiments.
    """

    name: str
    models: dict[str, str]
    language_model: str | None
    sets: dict[str, Set]
    strengths: dict[str, tuple[str, ...]]
    regularised: tuple[str, ...]
    training: tuple[str, ...]
    max_length: int
    limit: int | None
    ratios: str = "0:0.9:0.1"
    steps: str = "2^-2,2^-3,2^-4,2^-5,2^-6,2^-8,2^-12"


def choose(name: str, out: Path, data: Path | None, model: str | None, language_model: str | None) -> Profile:
    """The profile of a name, with the data and models that the user gave in place of its own.

    out: a folder for what tiny makes up. Raises RecipeError if small lacks what it needs, DataError for foreign data.
    """
    if name == "small":
        if data is None or model is None:
            raise RecipeError("profile small takes its model and data from files: give --model DIR and --data DIR")
        chosen = _small(model, from_folder(data))
    else:
        chosen = _tiny(out / "made") if name == "tiny" else _paper()
        if model is not None:
            chosen = replace(chosen, models={_name(model): model})
        if data is not None:
            chosen = replace(chosen, sets={**chosen.sets, **from_folder(data)})
    return chosen if language_model is None else replace(chosen, language_model=language_model)


def _name(model: str) -> str:
    """Of a directory or hub id its last part; of a configuration file its folder's."""
    return default_name(str(Path(model).parent) if model.endswith(".json") else model)


def _tiny(folder: Path) -> Profile:
    """A made-up language of a few words, a model of one layer from its configuration, 60 steps."""
    write_sets(folder)
    return Profile(
        name="tiny",
        models={"BERT": str(write_model(folder / "classifier", decoder=False))},
        language_model=str(write_model(folder / "language-model", decoder=True)),
        sets=from_folder(folder),
        strengths=_by_pull("0.25", "0.5", "1", "2"),
        regularised=("--pull", "1"),
        training=("--steps", "60", "--batch-size", "16", "--lr", "3e-3"),
        max_length=16,
        limit=100,
        ratios="0:0.9:0.3",
        steps="2^-2,2^-4,2^-8",
    )


def _small(model: str, sets: dict[str, Set]) -> Profile:
    """A small encoder on the real sets, 300 steps of 8 texts of 64 tokens."""
    return Profile(
        name="small",
        models={"BERT": model},
        language_model=None,
        sets=sets,
        strengths=_by_pull("0.1", "0.25", "0.5", "0.75"),
        regularised=("--pull", "1"),
        training=("--steps", "300", "--batch-size", "8", "--lr", "2e-4"),
        max_length=64,
        limit=1000,
    )


def _paper() -> Profile:
    """The paper's models and sets from the hub. What the paper does not state (optimizer, batch, epochs) is as in its
    code's example: AdamW, learning rate 3e-4, weight decay 0.1, batch 16."""
    return Profile(
        name="paper",
        models={
            "BERT": "google-bert/bert-base-uncased",
            "GPT-2": "openai-community/gpt2-large",
            "Llama-3": "meta-llama/Llama-3.2-1B",
            "Gemma-2": "google/gemma-2-2b",
        },
        language_model="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
        sets=from_hub(),
        strengths={lam: ("--lambda", lam, *PAPER_FORM) for lam in _LAMBDAS},
        regularised=("--lambda", "1000", "--form", "decoupled", "--no-freeze"),
        training=("--steps", "3000", "--settle-steps", "1000", "--lr", "3e-4", "--weight-decay", "0.1", "--bf16"),
        max_length=256,
        limit=None,
    )


def _by_pull(*pulls: str) -> dict[str, tuple[str, ...]]:
    """Total pulls for the paper's four strengths: its lambda means nothing for a model of another size."""
    return {lam: ("--pull", pull, *PAPER_FORM) for lam, pull in zip(_LAMBDAS, pulls, strict=True)}
