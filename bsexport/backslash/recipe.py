"""How the rate constrains the weights while a model is trained: validated once, frozen, JSON in and out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from bsexport.errors import RecipeError
from bsexport.recipe import DEFAULT_STEP, fields_of, nearest_step

Form = Literal["proximal", "decoupled", "loss", "gradual", "oneshot", "none"]
Kind = Literal["pull", "lambda", "per-weight", "bits", "target-bits", "target-sparsity"]
Metric = Literal["plain", "adam"]
ShapeOf = Literal["tensor", "global"]

RIVALS = ("gradual", "oneshot")
SETTLE_SHARE = 0.25


@dataclass(frozen=True)
class Weight:
    """How strongly the rate constrains.

    kind, value:
    - "pull": how far in all a weight as large as the weights' rms is drawn towards zero over the run, in units of that
      rms. It transfers between model sizes and numbers of steps.
    - "lambda": the paper's lambda of equation 6. "per-weight": lambda / N, N the number of weights that take part.
    - "bits": loss in nats per bit/weight of the rate in bits, which is equation 5 times gamma^nu log2(e).
    - "target-bits": entropy in bits/weight at the recipe's step, "target-sparsity": share of zeros at that step; each
      step's pull is the one that leads there along a schedule. For the proximal form.

    Raises RecipeError for a value that cannot be used.
    """

    kind: Kind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise RecipeError(f"weight {self.kind!r} is unknown: expected one of {', '.join(get_args(Kind))}")
        if self.kind == "target-bits" and self.value == 0:
            raise RecipeError("target-bits 0 cannot be used: nothing would be left of the model")
        if not (math.isfinite(self.value) and self.value >= 0):
            raise RecipeError(f"{self.kind} {self.value} cannot be used: expected a finite number from 0 up")
        if self.kind == "target-sparsity" and self.value >= 1:
            raise RecipeError(f"target-sparsity {self.value} cannot be used: expected a share from 0 to below 1")

    @property
    def is_target(self) -> bool:
        """Whether the value says where to arrive, and not how hard to pull."""
        return self.kind.startswith("target")


@dataclass(frozen=True)
class Epsilon:
    """The soft clip of the rate's gradient: (|w| + epsilon)^(nu - 1).

    value: above 0. relative: in units of the rms of the weights, instead of absolute (the paper's code: 1).
    """

    value: float
    relative: bool

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and self.value > 0):
            raise RecipeError(f"epsilon {self.value} cannot be used: expected a finite number above 0")

    @classmethod
    def parse(cls, text: str) -> Epsilon:
        """ "1" is absolute, "0.1rms" relative. Raises RecipeError."""
        number = text.removesuffix("rms")
        try:
            return cls(float(number), relative=number != text)
        except ValueError:
            raise RecipeError(f"epsilon {text!r} cannot be used: expected a number such as 1, or 0.1rms") from None


PULLING: dict[str, Any] = {"shape": "tensor", "metric": "plain", "epsilon": Epsilon(0.1, relative=True)}
TOWARDS_TARGET: dict[str, Any] = {"shape": 0.1, "metric": "adam", "epsilon": Epsilon(0.02, relative=True)}
"""The law with the shape that the weights are to have, not the one they have: what is large is hardly pulled, from the
start, and keeps its size (docs/results.md, Training under a rate)."""

_BY_WEIGHT: Any = None  # of a field whose default follows from the weight


@dataclass(frozen=True)
class Rate:
    """How the rate constrains the weights.

    form: "loss": added to the task's loss (equation 7); "decoupled": a pull after each optimizer step (the authors'
        code); "proximal": the same, but what would cross zero stops there; "gradual" and "oneshot": magnitude pruning
        to the target sparsity, little by little or at once before the settle phase; "none": neither.
    weight: see Weight.
    shape: of the rate's generalized Gaussian: estimated before each step, for each "tensor" or for all of them
        together ("global", the paper's), or a fixed number: 0.5, 1 and 2 make it an L0.5, L1 or L2 penalty.
    metric: "plain", or "adam": pulled, or pruned, in the metric of Adam's second moments, so that weights whose
        gradients are small go first.
    epsilon: see Epsilon.
    These three are, if they are not given, those of TOWARDS_TARGET for a rate with a target, else those of PULLING.
    ramp: share of the rate's steps over which it rises to its full strength, 0 to 1.
    settle: number of last steps without the rate; None: a quarter of the run's.
    freeze: whether weights that are zero at `step` when the settle phase begins stay zero.
    round: whether the forward pass of the settle phase sees weights rounded to `step` (straight-through gradients).
    step: the quantiser step that pack will use: |w| < step / 2 is zero.
    only, exempt: globs on parameter names that take part, and that do not. Task heads and 1-D tensors are exempt;
        "none" in exempt lets heads take part.

    Raises RecipeError for a value that cannot be used.
    """

    form: Form = "proximal"
    weight: Weight = Weight("pull", 1.0)
    shape: ShapeOf | float = _BY_WEIGHT
    metric: Metric = _BY_WEIGHT
    epsilon: Epsilon = _BY_WEIGHT
    ramp: float = 0.1
    settle: int | None = None
    freeze: bool = True
    round: bool = False
    step: float = DEFAULT_STEP
    only: tuple[str, ...] = ("*",)
    exempt: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        towards = isinstance(self.weight, Weight) and self.weight.is_target and self.form not in RIVALS
        usual = TOWARDS_TARGET if towards else PULLING
        for name, value in usual.items():
            if getattr(self, name) is _BY_WEIGHT:
                object.__setattr__(self, name, value)
        for field, kind in ((self.weight, Weight), (self.epsilon, Epsilon)):
            if not isinstance(field, kind):
                raise RecipeError(f"{field!r} cannot be used: expected {kind.__name__}(...)")
        for what, value, known in (
            ("form", self.form, Form),
            ("metric", self.metric, Metric),
        ):
            if value not in get_args(known):
                raise RecipeError(f"{what} {value!r} is unknown: expected one of {', '.join(get_args(known))}")
        if isinstance(self.shape, str):
            if self.shape not in get_args(ShapeOf):
                raise RecipeError(f"shape {self.shape!r} is unknown: expected tensor, global or a number above 0")
        elif not (math.isfinite(self.shape) and self.shape > 0):
            raise RecipeError(f"shape {self.shape} cannot be used: expected a finite number above 0")
        if not 0 <= self.ramp <= 1:
            raise RecipeError(f"ramp {self.ramp} cannot be used: expected a share from 0 to 1")
        if self.settle is not None and self.settle < 0:
            raise RecipeError(f"settle {self.settle} cannot be used: expected a number of steps from 0 up")
        if self.form in RIVALS and self.weight.kind != "target-sparsity":
            raise RecipeError(f"form {self.form} prunes to a share of zeros: give a target-sparsity")
        if self.form == "loss" and (self.weight.kind == "pull" or self.metric != "plain"):
            raise RecipeError("form loss takes a weight per loss: give lambda, per-weight or bits, and metric plain")
        if self.weight.is_target and self.form not in ("proximal", *RIVALS):
            raise RecipeError(f"a target is held by weights that stop at zero: form {self.form} has none; use proximal")
        object.__setattr__(self, "step", nearest_step(self.step))

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)

    def rate_steps(self, steps: int) -> int:
        """How many of a run's steps are the rate's; the settle phase follows. Raises RecipeError if none is left."""
        settle = round(SETTLE_SHARE * steps) if self.settle is None else self.settle
        if settle >= steps:
            raise RecipeError(f"settle {settle} leaves none of {steps} steps for the rate: take fewer")
        return steps - settle

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Rate:
        """The recipe that to_json gave. Raises RecipeError if it has other fields than this version knows."""
        made = fields_of("the rate's recipe", cls, value)
        return cls(**made | {"weight": Weight(**value["weight"]), "epsilon": Epsilon(**value["epsilon"])})
