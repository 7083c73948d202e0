"""The rate at work on small models: what one step does, and where a run arrives."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: training needs torch")

from bsexport.backslash import Epsilon, Rate, Weight, attach, gaussian  # noqa: E402
from bsexport.errors import RecipeError, SourceError, TargetError  # noqa: E402

PAPER = {"shape": "global", "epsilon": Epsilon(1.0, relative=False), "ramp": 0.0}


def model(*, scale=0.05, seed=1):
    """Two layers that take part (4096 and 2048 weights), and a head, biases and a small tensor that do not."""
    torch.manual_seed(seed)
    made = torch.nn.ModuleDict(
        {
            "first": torch.nn.Linear(32, 128),
            "second": torch.nn.Linear(128, 16, bias=False),
            "small": torch.nn.Linear(16, 16),
            "classifier": torch.nn.Linear(16, 128),
        }
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, scale)
    made.forward = lambda x: made.classifier(made.small(made.second(torch.tanh(made.first(x)))))
    return made


def parts(model):
    """The weights that take part, as float64."""
    return [model.first.weight.detach().double().numpy().copy(), model.second.weight.detach().double().numpy().copy()]


def train(model, recipe, steps, *, lr=1e-3, optimizer=torch.optim.AdamW, until=None, resume=None):
    """A loop of one's own. until: stop before this step. resume: a checkpoint that an earlier call returned."""
    made = optimizer(model.parameters(), lr=lr)
    if resume:
        model.load_state_dict(resume["model"])
        made.load_state_dict(resume["optimizer"])
    state = resume["constraint"] if resume else None
    first = state["done"] if state else 0
    constraint = attach(model, made, recipe, steps, state)
    for step in range(first, steps if until is None else until):
        x = torch.randn((64, 32), generator=torch.Generator().manual_seed(step))
        y = (x[:, 0] > 0).long()
        loss = torch.nn.functional.cross_entropy(model(x), y) + constraint.loss()
        made.zero_grad()
        loss.backward()
        made.step()
    checkpoint = {
        "model": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "optimizer": made.state_dict(),
        "constraint": constraint.state(),
    }
    constraint.detach()
    return constraint, checkpoint


def global_shape(tensors):
    flat = np.concatenate([tensor.ravel() for tensor in tensors])
    return float(gaussian.shape_of_ratio(torch.tensor(np.mean(flat**2) / np.mean(np.abs(flat)) ** 2)))


def test_one_step_of_the_decoupled_form_is_the_authors_update():
    trained = model()
    before = parts(trained)
    untouched = trained.classifier.weight.clone(), trained.small.weight.clone(), trained.first.bias.clone()
    train(trained, Rate(form="decoupled", weight=Weight("lambda", 20.0), **PAPER), 1, lr=0.0, optimizer=torch.optim.SGD)
    shape, count = global_shape(before), 4096 + 2048
    for weights, found in zip(before, parts(trained), strict=True):
        expected = weights - 20.0 * shape / count * np.sign(weights) * (np.abs(weights) + 1) ** (shape - 1)
        assert found == pytest.approx(expected, abs=1e-8)
    found = trained.classifier.weight, trained.small.weight, trained.first.bias
    assert all(torch.equal(a, b) for a, b in zip(untouched, found, strict=True))


def test_the_in_loss_form_is_equation_7_under_plain_gradient_descent():
    trained, plain = model(), model()
    before = parts(trained)
    train(trained, Rate(form="loss", weight=Weight("lambda", 20.0), **PAPER), 1, lr=0.1, optimizer=torch.optim.SGD)
    train(plain, Rate(form="none"), 1, lr=0.1, optimizer=torch.optim.SGD)
    shape, count = global_shape(before), 4096 + 2048
    for weights, without, found in zip(before, parts(plain), parts(trained), strict=True):
        gradient = 20.0 * shape / count * np.sign(weights) * (np.abs(weights) + 1) ** (shape - 1)
        assert found == pytest.approx(without - 0.1 * gradient, abs=3e-8)


def test_a_weight_per_weight_is_lambda_over_their_number():
    one, other = model(), model()
    train(one, Rate(weight=Weight("lambda", 6144 * 1e-3), **PAPER), 1, lr=0.0)
    train(other, Rate(weight=Weight("per-weight", 1e-3), **PAPER), 1, lr=0.0)
    for a, b in zip(parts(one), parts(other), strict=True):
        assert a == pytest.approx(b, abs=1e-9)


def test_a_weight_in_bits_is_times_the_scale_of_the_bits():
    trained = model()
    before = parts(trained)
    recipe = Rate(form="decoupled", weight=Weight("bits", 3.0), **PAPER)
    train(trained, recipe, 1, lr=0.0, optimizer=torch.optim.SGD)
    shape, count = global_shape(before), 4096 + 2048
    sigma = math.sqrt(sum(np.sum(weights**2) for weights in before) / count)
    gamma = math.sqrt(math.gamma(3 / shape) / math.gamma(1 / shape)) / sigma
    for weights, found in zip(before, parts(trained), strict=True):
        pull = 3.0 * gamma**shape * math.log2(math.e) * shape / count * (np.abs(weights) + 1) ** (shape - 1)
        assert found == pytest.approx(weights - np.sign(weights) * pull, abs=5e-7)


@pytest.mark.parametrize("steps", [5, 50])
@pytest.mark.parametrize("ramp", [0.0, 0.4])
def test_a_pull_of_a_half_halves_a_weight_of_the_size_of_the_rms_whatever_the_steps(steps, ramp):
    trained = model()
    with torch.no_grad():  # all magnitudes alike: each is the rms, and the L1 pull the same all along
        for layer in (trained.first, trained.second):
            layer.weight.copy_(layer.weight.sign() * 0.04)
    before = parts(trained)
    train(trained, Rate(weight=Weight("pull", 0.5), shape=1.0, ramp=ramp), steps, lr=0.0, optimizer=torch.optim.SGD)
    for weights, found in zip(before, parts(trained), strict=True):
        assert found == pytest.approx(weights / 2, abs=1e-6)


def test_with_a_shape_per_tensor_each_is_pulled_by_its_own_rms():
    trained = model()
    with torch.no_grad():
        trained.second.weight.mul_(10)
    before = parts(trained)
    train(trained, Rate(weight=Weight("pull", 0.1), form="decoupled"), 1, lr=0.0, optimizer=torch.optim.SGD)
    moved = [np.abs(weights - found) for weights, found in zip(before, parts(trained), strict=True)]
    assert moved[1].mean() / moved[0].mean() == pytest.approx(10, rel=0.1)


def test_in_adams_metric_weights_with_small_gradients_are_pulled_more():
    trained = model()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.0, weight_decay=0.0)
    attach(trained, optimizer, Rate(weight=Weight("pull", 0.05), metric="adam", form="decoupled", shape=1.0), 1)
    before = trained.first.weight.detach().clone()
    x = torch.randn((64, 32)) * torch.tensor([4.0] * 16 + [1.0] * 16)  # inputs that differ give gradients that do
    torch.nn.functional.cross_entropy(trained(x), (x[:, 0] > 0).long()).backward()
    optimizer.step()
    moved = (trained.first.weight.detach() - before).abs().mean(0)
    assert float(moved[16:].mean()) > 2 * float(moved[:16].mean())


@pytest.mark.parametrize("form", ["proximal", "gradual", "oneshot"])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_target_sparsity_is_reached_and_stays(form, share):
    trained = model()
    recipe = Rate(form=form, weight=Weight("target-sparsity", share), settle=20, step=2**-9)
    constraint, _ = train(trained, recipe, 80)
    zeros = sum(np.sum(weights == 0) for weights in parts(trained)) / 6144
    assert zeros == pytest.approx(share, abs=0.02)
    assert constraint.measure().sparsity >= zeros - 1e-6


def test_pruning_in_adams_metric_takes_weights_by_magnitude_and_gradient():
    trained = model()
    optimizer = torch.optim.Adam(trained.parameters(), lr=0.0, betas=(0.0, 0.0))  # v is the last gradient's square
    recipe = Rate(form="oneshot", weight=Weight("target-sparsity", 0.5), metric="adam", shape="tensor", settle=1)
    before = parts(trained)
    attach(trained, optimizer, recipe, 2)
    torch.nn.functional.cross_entropy(trained(torch.randn((64, 32))), torch.randint(2, (64,))).backward()
    optimizer.step()
    scores = []
    for weights, parameter in zip(before, (trained.first.weight, trained.second.weight), strict=True):
        roots = parameter.grad.abs().numpy()
        scores.append(np.abs(weights) / np.minimum(roots.mean() / np.maximum(roots, 1e-30), 10))
    limit = np.median(np.concatenate([score.ravel() for score in scores]))
    agree = [(weights != 0) == (score >= limit) for weights, score in zip(parts(trained), scores, strict=True)]
    assert np.mean(np.concatenate([each.ravel() for each in agree])) > 0.995  # of a sample is the mean root


def test_target_bits_are_reached():
    trained = model()
    constraint, _ = train(trained, Rate(weight=Weight("target-bits", 2.0), step=2**-8, settle=0), 100)
    assert constraint.measure().bits == pytest.approx(2.0, rel=0.03)


def test_the_entropy_is_that_of_the_levels():
    trained = model()
    constraint = attach(trained, torch.optim.SGD(trained.parameters(), lr=0.1), Rate(), 1)
    expected = 0.0
    for weights in parts(trained):
        counts = np.unique(np.rint(weights / 2**-8), return_counts=True)[1]
        expected -= np.sum(counts * np.log2(counts / counts.sum())) / 6144
    found = constraint.measure()
    assert found.bits == pytest.approx(expected, abs=0.02)  # signs are taken for even
    assert found.sparsity == pytest.approx(np.mean(np.abs(np.concatenate([w.ravel() for w in parts(trained)])) < 2**-9))
    assert found.shape == pytest.approx(2.0, rel=0.06)  # normal weights


def test_a_target_out_of_reach_says_how_close_it_came():
    recipe = Rate(weight=Weight("target-bits", 1e-4), shape=0.05, settle=1)
    message = r"target-bits 0.0001 was not reached: the weights came to 0\.\d+ in 1 steps; give more steps"
    with pytest.raises(TargetError, match=message):
        train(model(), recipe, 2)


@pytest.mark.parametrize("target", [Weight("target-bits", 12.0), Weight("target-sparsity", 0.01)])
def test_a_target_that_lies_behind_is_refused(target):
    with pytest.raises(TargetError, match=r"cannot be reached: the weights are at \d\.\d+ already"):
        train(model(), Rate(weight=target), 2)


def test_a_settle_phase_that_leaves_no_step_is_refused():
    with pytest.raises(RecipeError, match="settle 5 leaves none of 5 steps for the rate"):
        train(model(), Rate(settle=5), 5)


def test_zeros_leak_in_the_settle_phase_unless_they_are_frozen():
    frozen, free = model(), model()
    recipe = {"weight": Weight("target-sparsity", 0.8), "settle": 10}
    train(frozen, Rate(**recipe), 40)
    train(free, Rate(freeze=False, **recipe), 40)
    assert np.mean(parts(frozen)[0] == 0) > 0.5
    assert np.mean(parts(free)[0] == 0) < 0.3


def test_a_rounding_settle_phase_shows_the_model_rounded_weights_and_trains_the_exact_ones():
    trained, seen = model(), []
    recipe = Rate(form="none", settle=3, round=True, step=0.01)
    trained.first.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    train(trained, recipe, 5)
    rounded = [torch.equal(weights, (weights / 0.01).round() * 0.01) for weights in seen]
    assert rounded == [False, False, True, True, True]
    assert not np.allclose(parts(trained)[0], np.rint(parts(trained)[0] / 0.01) * 0.01, atol=1e-6)


@pytest.mark.parametrize(
    "recipe",
    [
        Rate(weight=Weight("pull", 0.8), settle=6, round=True),
        Rate(weight=Weight("target-sparsity", 0.8), settle=6, metric="adam", shape="global"),
        Rate(weight=Weight("target-bits", 3.0), settle=6),
        Rate(form="loss", weight=Weight("lambda", 1.0), settle=6),
        Rate(form="gradual", weight=Weight("target-sparsity", 0.8), settle=6),
    ],
    ids=["pull", "sparsity", "bits", "loss", "gradual"],
)
@pytest.mark.parametrize("stop", [3, 13, 24, 27])
def test_a_resumed_run_ends_in_the_same_bits(recipe, stop):
    whole, part = model(), model()
    train(whole, recipe, 30)
    _, checkpoint = train(part, recipe, 30, until=stop)
    resumed = model(seed=7)
    train(resumed, recipe, 30, resume=checkpoint)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_tied_weights_take_part_once_and_globs_select():
    tied = model()
    tied["other"] = torch.nn.Linear(32, 128)
    tied["other"].weight = tied.first.weight
    optimizer = torch.optim.SGD(tied.parameters(), lr=0.1)
    assert attach(tied, optimizer, Rate(), 1).weights.names == ("first.weight", "second.weight")
    assert attach(tied, optimizer, Rate(exempt=("other.*",)), 1).weights.names == ("second.weight",)
    assert attach(tied, optimizer, Rate(only=("sec*",)), 1).weights.count == 2048
    assert "classifier.weight" in attach(tied, optimizer, Rate(exempt=("none",)), 1).weights.names


def test_models_that_no_rate_reaches_are_refused():
    frozen = model().requires_grad_(False)
    optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
    with pytest.raises(SourceError, match=r"no parameter takes part: of 7, none is trainable"):
        attach(frozen, optimizer, Rate(), 1)
    with pytest.raises(SourceError, match=r"first.weight: is bfloat16, too coarse to add up small pulls"):
        coarse = model().to(torch.bfloat16)
        attach(coarse, torch.optim.SGD(coarse.parameters(), lr=0.1), Rate(), 1)


def test_low_rank_adapters_are_refused():
    adapted = model()
    adapted.first.add_module("lora_A", torch.nn.Linear(32, 128))
    with pytest.raises(SourceError, match=r"first.lora_A.weight: a low-rank adapter; .* merge the adapter"):
        attach(adapted, torch.optim.SGD(adapted.parameters(), lr=0.1), Rate(), 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weight("pull", -1), "pull -1 cannot be used: expected a finite number from 0 up"),
        (lambda: Weight("lambda", math.inf), "lambda inf cannot be used"),
        (lambda: Weight("target-sparsity", 1.0), "target-sparsity 1.0 cannot be used: expected a share"),
        (lambda: Weight("strength", 1.0), "weight 'strength' is unknown: expected one of pull, lambda"),
        (lambda: Weight("target-bits", 0), "target-bits 0 cannot be used: nothing would be left of the model"),
        (lambda: Rate(weight=0.8), "0.8 cannot be used: expected Weight(...)"),
        (lambda: Rate(epsilon="0.1rms"), "'0.1rms' cannot be used: expected Epsilon(...)"),
        (lambda: Epsilon.parse("0"), "epsilon 0.0 cannot be used"),
        (lambda: Epsilon.parse("rms"), "epsilon 'rms' cannot be used: expected a number such as 1, or 0.1rms"),
        (lambda: Rate(form="gradual"), "form gradual prunes to a share of zeros: give a target-sparsity"),
        (
            lambda: Rate(form="decoupled", weight=Weight("target-bits", 1.0)),
            "a target is held by weights that stop at zero: form decoupled has none; use proximal",
        ),
        (lambda: Rate(form="loss"), "form loss takes a weight per loss: give lambda, per-weight or bits"),
        (lambda: Rate(shape="each"), "shape 'each' is unknown"),
        (lambda: Rate(shape=0.0), "shape 0.0 cannot be used"),
        (lambda: Rate(ramp=2.0), "ramp 2.0 cannot be used"),
        (lambda: Rate(settle=-1), "settle -1 cannot be used"),
        (lambda: Rate(step=0.0), "step 0.0 cannot be used"),
        (lambda: Rate(metric="sgd"), "metric 'sgd' is unknown: expected one of plain, adam"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(RecipeError) as caught:
        make()
    assert message in str(caught.value)


def test_a_target_has_a_law_of_its_own_unless_one_is_given():
    towards, pulling = Rate(weight=Weight("target-sparsity", 0.8)), Rate(weight=Weight("pull", 0.5))
    assert (towards.shape, towards.metric, towards.epsilon) == (0.1, "adam", Epsilon(0.02, relative=True))
    assert (pulling.shape, pulling.metric, pulling.epsilon) == ("tensor", "plain", Epsilon(0.1, relative=True))
    given = Rate(weight=Weight("target-bits", 2.0), shape="tensor", metric="plain")
    assert (given.shape, given.metric, given.epsilon) == ("tensor", "plain", Epsilon(0.02, relative=True))


def test_a_recipe_goes_through_json():
    recipe = Rate(weight=Weight("target-bits", 2.0), epsilon=Epsilon.parse("0.2rms"), exempt=("a.*", "none"), shape=0.5)
    assert Rate.from_json(recipe.to_json()) == recipe
    assert Epsilon.parse("1") == Epsilon(1.0, relative=False)


@pytest.mark.parametrize("form", ["proximal", "decoupled"])
@pytest.mark.parametrize("metric", ["plain", "adam"])
def test_a_tensor_that_begins_as_zeros_stays_finite(form, metric):
    trained = model()
    with torch.no_grad():
        trained.second.weight.zero_()
    train(trained, Rate(form=form, metric=metric, weight=Weight("pull", 0.01), settle=0), 8)
    assert all(np.isfinite(weights).all() for weights in parts(trained))
    assert np.any(parts(trained)[1] != 0)


def test_weights_that_are_not_finite_or_all_zero_are_refused():
    damaged, empty = model(), model()
    with torch.no_grad():
        damaged.second.weight[3, 4] = math.nan
        empty.first.weight.zero_()
        empty.second.weight.zero_()
    with pytest.raises(SourceError, match=r"second.weight: holds NaN or infinities; repair the model"):
        train(damaged, Rate(), 1)
    with pytest.raises(SourceError, match="all weights that take part are zero"):
        train(empty, Rate(), 1)


def test_adams_metric_without_gradients_is_the_plain_one():
    trained, plain = model(), model()
    for each, metric in ((trained, "adam"), (plain, "plain")):
        optimizer = torch.optim.AdamW(each.parameters(), lr=0.0, weight_decay=0.0)
        attach(each, optimizer, Rate(weight=Weight("pull", 0.1), metric=metric), 1)
        for parameter in each.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for a, b in zip(parts(trained), parts(plain), strict=True):
        assert a == pytest.approx(b)


@pytest.mark.parametrize(
    "recipe",
    [Rate(metric="adam"), Rate(form="oneshot", weight=Weight("target-sparsity", 0.8), metric="adam")],
    ids=["proximal", "oneshot"],
)
def test_adams_metric_needs_an_optimizer_that_has_it(recipe):
    """And that is told after the first step, also where the metric is needed much later."""
    with pytest.raises(RecipeError, match=r"metric adam takes the second moments .* SGD has none: use metric plain"):
        train(model(), recipe, 100, optimizer=torch.optim.SGD, until=1)


def test_parameters_that_the_optimizer_does_not_have_take_no_part():
    whole = model()
    optimizer = torch.optim.AdamW(whole.first.parameters(), lr=1e-3)
    assert attach(whole, optimizer, Rate(), 1).weights.names == ("first.weight",)


def test_globs_see_the_names_of_a_compiled_model_and_must_match():
    optimizer = torch.optim.SGD((whole := model()).parameters(), lr=0.1)
    compiled = torch.compile(whole)
    assert attach(compiled, optimizer, Rate(exempt=("first.*",)), 1).weights.names == ("second.weight",)
    with pytest.raises(RecipeError, match=r"'third.\*' matches no parameter; their names are like first.weight"):
        attach(whole, optimizer, Rate(exempt=("third.*",)), 1)


def test_a_step_that_is_too_fine_to_count_levels_is_refused():
    with pytest.raises(RecipeError, match=r"step 1e-06 is too fine: the weights have an rms of up to 0.05"):
        train(model(), Rate(step=1e-6), 1)


def test_a_row_shaped_tensor_takes_no_part_as_in_pack():
    odd = model()
    odd["row"] = torch.nn.Module()
    odd.row.weight = torch.nn.Parameter(torch.randn(1, 1, 2048))
    names = attach(odd, torch.optim.SGD(odd.parameters(), lr=0.1), Rate(), 1).weights.names
    assert names == ("first.weight", "second.weight")


def test_steps_that_a_scaler_leaves_out_are_not_pulled_but_count():
    trained = model()
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.0, weight_decay=0.0)
    constraint = attach(trained, optimizer, Rate(weight=Weight("pull", 0.5), form="decoupled"), 4)
    before = parts(trained)
    optimizer.found_inf = torch.tensor(1.0)  # what torch.amp.GradScaler tells a fused optimizer
    optimizer.step()
    del optimizer.found_inf
    assert all((a == b).all() for a, b in zip(before, parts(trained), strict=True))
    constraint.skip()  # and what a loop says of a step that was not taken
    assert constraint.done == 2
    optimizer.step()
    assert all((a != b).any() for a, b in zip(before, parts(trained), strict=True))


def test_a_sample_is_not_of_one_column():
    trained = model()
    with torch.no_grad():
        trained.first.weight.normal_(0, 0.05)[:, 0] = 0
    from bsexport.backslash.weights import sample

    assert float((sample(trained.first.weight, 32) == 0).float().mean()) == pytest.approx(1 / 32, abs=0.03)


def test_a_loss_that_nobody_asks_for_any_more_is_said():
    trained = model()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    constraint = attach(trained, optimizer, Rate(form="loss", weight=Weight("lambda", 1.0)), 4)
    constraint.loss().backward()
    optimizer.step()
    with pytest.raises(RecipeError, match="nobody has asked for it"):
        optimizer.step()


def test_a_loss_that_nobody_asks_for_is_said():
    trained = model()
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    attach(trained, optimizer, Rate(form="loss", weight=Weight("lambda", 1.0)), 4)
    with pytest.raises(RecipeError, match=r"nobody has asked for it: add the constraint's loss\(\) to the loss"):
        optimizer.step()


def test_a_target_that_was_missed_leaves_no_hook_behind():
    trained = model()
    with pytest.raises(TargetError, match="was not reached"):
        train(trained, Rate(weight=Weight("target-bits", 1e-4), shape=0.05, settle=1), 2)
    assert not trained._forward_pre_hooks
