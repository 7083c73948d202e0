import json

import numpy as np
import pytest

from bsexport.errors import RecipeError
from bsexport.recipe import Recipe, parse_step


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("2^-8", 0.00390625),
        ("1e-3", 0.0010000000474974513),
        ("0.25", 0.25),
        ("2^3", 8.0),
        ("1e-40", float(np.float32(1e-40))),
    ],
)
def test_a_step_is_the_nearest_float32(text, step):
    assert parse_step(text) == step


@pytest.mark.parametrize(
    "text", ["0", "-1e-3", "nan", "inf", "1e-60", "1e60", "abc", "", "2^", "0^-1", "(-8)^0.5", "-8^0.5"]
)
def test_a_step_that_is_no_positive_finite_number_is_refused(text):
    with pytest.raises(RecipeError, match=r"step .* cannot be used: expected a number above 0"):
        parse_step(text)


@pytest.mark.parametrize("prune", [1.0, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_0_to_1_is_refused(prune):
    with pytest.raises(RecipeError, match="expected a ratio from 0 up to, but not including, 1"):
        Recipe(prune=prune)


@pytest.mark.parametrize("order", [-1, 16])
def test_an_order_outside_0_to_15_is_refused(order):
    with pytest.raises(RecipeError, match="expected 0 to 15"):
        Recipe(order=order)


def test_heads_are_protected_unless_none_is_said():
    assert Recipe().protects(["classifier.weight"], head=True)
    assert not Recipe().protects(["layer.weight"], head=False)
    assert Recipe(protect=("layer.*",)).protects(["layer.weight"], head=False)
    assert Recipe(protect=("layer.*",)).protects(["classifier.weight"], head=True)
    assert not Recipe(protect=("none",)).protects(["classifier.weight"], head=True)
    assert Recipe(protect=("none", "classifier.*")).protects(["classifier.weight"], head=True)


def test_a_tie_may_be_named_as_well():
    assert Recipe(keep=("lm_head.*",)).keeps(["embedding.weight", "lm_head.weight"])
    assert not Recipe(keep=("lm_head.*",)).keeps(["embedding.weight"])


def test_a_recipe_survives_json_and_foreign_fields_are_refused():
    recipe = Recipe(prune=0.8, scope="row", step=1e-3, family="eg", order=3, keep=("a*",), protect=("none",))
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    with pytest.raises(RecipeError, match="colour"):
        Recipe.from_json({**recipe.to_json(), "colour": "red"})
