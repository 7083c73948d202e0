import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: training needs torch")

from bsexport.backslash import rate  # noqa: E402
from bsexport.backslash.quantile import Histogram  # noqa: E402


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_rate_is_the_mean_of_the_clipped_powers():
    # ((0.25 + 0.75)^0.5 + (3.25 + 0.75)^0.5) / 2
    assert float(rate.dggr(doubles(-0.25, 3.25), 0.5, 0.75)) == 1.5


def test_its_gradient_is_the_papers():
    weights = doubles(-0.25, 3.25, 0.0).requires_grad_()
    rate.dggr(weights, 0.5, 0.75).backward()
    # nu / N sign(w) (|w| + eps)^(nu - 1)
    assert weights.grad.tolist() == pytest.approx([-0.5 / 3 * 1.0, 0.5 / 3 * 0.5, 0.0])


def test_its_gradients_of_several_passes_add_up():
    weights = doubles(-0.25, 3.25, 0.0).requires_grad_()
    first = rate.dggr(weights, 0.5, 0.75)
    first.backward(retain_graph=True)
    first.backward()
    rate.dggr(weights, 0.5, 0.75).backward()  # the first of these made its gradient along with its value
    assert weights.grad.tolist() == pytest.approx([-0.5, 0.25, 0.0])


def test_its_gradient_of_weights_that_are_not_contiguous():
    every = doubles(-0.25, 9.0, 3.25, 9.0, 0.0, 9.0)
    weights = every[::2].requires_grad_()
    rate.dggr(weights, 0.5, 0.75).backward()
    assert weights.grad.tolist() == pytest.approx([-0.5 / 3 * 1.0, 0.5 / 3 * 0.5, 0.0])


@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 2.0])
def test_its_gradient_is_that_of_finite_differences(shape):
    weights = torch.linspace(-1.05, 1, 20, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: rate.dggr(w, shape, 0.1), (weights,))
    assert torch.autograd.gradgradcheck(lambda w: rate.dggr(w, shape, 0.1), (weights,))


def test_a_pull_is_the_factor_times_the_clipped_power():
    logs = math.log2(0.01), -0.5 * math.log2(math.e), 0.75
    law = [[doubles(value).squeeze()] for value in logs]
    (found,) = rate.pulls([doubles(0.25, 3.25)], *law)
    assert found.tolist() == pytest.approx([0.01, 0.005])


def test_a_decoupled_pull_crosses_zero_and_leaves_it():
    weights = doubles(0.5, -0.5, 0.01, 0.0)
    rate.decouple([weights], [doubles(0.1, 0.1, 0.1, 0.1)])
    assert weights.tolist() == pytest.approx([0.4, -0.4, -0.09, 0.0])


def test_a_proximal_pull_stops_at_zero():
    weights = doubles(0.5, -0.5, 0.01, -0.01, 0.0)
    rate.proximate([weights], [weights.abs()], [doubles(0.1, 0.1, 0.1, 0.1, 0.1)])
    assert weights.tolist() == pytest.approx([0.4, -0.4, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.8, 0.999])
def test_a_quantile_is_within_half_a_percent_of_numpys(share):
    numbers = np.random.default_rng(1).gamma(0.5, size=100_000).astype(np.float32)
    counted = Histogram(torch.device("cpu"))
    for part in np.array_split(numbers, 3):
        counted.add(torch.from_numpy(part))
    found = float(counted.quantile(share, lambda counts: counts))
    assert found == pytest.approx(np.quantile(numbers, share), rel=0.005)


def test_a_quantile_among_zeros_is_zero():
    counted = Histogram(torch.device("cpu"))
    counted.add(torch.tensor([0.0] * 90 + [1.0] * 10))
    assert float(counted.quantile(0.8, lambda counts: counts)) < 1e-30
    assert float(counted.quantile(0.95, lambda counts: counts)) == pytest.approx(1.0, rel=0.005)
