import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="NOT TESTED: training needs torch")
stats = pytest.importorskip("scipy.stats", reason="NOT TESTED against scipy: it is not installed")

from bsexport.backslash import gaussian  # noqa: E402


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def reference(shape, sigma):
    """scipy's distribution, whose scale is 1 / gamma."""
    return stats.gennorm(shape, scale=sigma * math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape)))


@pytest.mark.parametrize(
    ("shape", "ratio"), [(0.10, 216.8), (0.5, 10 / 3), (1, 2), (2, math.pi / 2)], ids=["0.1", "0.5", "Laplace", "Gauss"]
)
def test_the_ratio_of_moments_has_the_papers_values(shape, ratio):
    found = float(gaussian.ratio(tensor(shape)))
    assert found == pytest.approx(ratio, rel=3e-4 if shape == 0.10 else 1e-12)


def test_the_shape_is_found_to_a_millionth_over_the_whole_range():
    shapes = torch.exp(torch.linspace(math.log(0.05), math.log(10), 10_001, dtype=torch.float64))
    found = gaussian.shape_of_ratio(gaussian.ratio(shapes))
    assert float((found / shapes - 1).abs().max()) < 1e-6


@pytest.mark.parametrize(("ratio", "shape"), [(1.0, 10.0), (1e30, 0.05), (math.nan, 0.05)])
def test_a_ratio_beyond_the_range_gives_its_nearest_end(ratio, shape):
    assert float(gaussian.shape_of_ratio(tensor(ratio))) == pytest.approx(shape)


@pytest.mark.parametrize("shape", [0.3, 1.0, 1.36, 2.0, 5.0])
def test_the_density_is_that_of_scipy(shape):
    x = np.linspace(-3, 3, 41)
    found = gaussian.density(torch.from_numpy(x), tensor(shape), tensor(0.7))
    assert found.numpy() == pytest.approx(reference(shape, 0.7).pdf(x), rel=1e-10)


@pytest.mark.parametrize("shape", [0.3, 1.0, 2.0, 5.0])
def test_the_moments_are_those_of_scipy(shape):
    mean, square = gaussian.moments(tensor(shape), tensor(0.7))
    assert float(mean) == pytest.approx(reference(shape, 0.7).expect(abs), rel=1e-5)
    assert float(square) == pytest.approx(0.49)
    assert float(gaussian.shape_by_moments(mean, square)) == pytest.approx(shape)


def test_the_rate_of_a_laplace_is_what_equation_4_gives():
    # f(0) = 1 / (sqrt(2) sigma): with sigma = 1/sqrt(2) and a step of 1/4, -log2(1/4) = 2 bits; log2(e) more per 1/2.
    found = gaussian.rate(tensor(0.0, 0.5), tensor(1.0), tensor(math.sqrt(0.5)), 0.25)
    assert found.tolist() == pytest.approx([2.0, 2.0 + math.log2(math.e)])


def test_the_part_of_the_rate_that_depends_on_the_weight_is_the_bits_scale():
    x, shape, sigma = tensor(0.01, 0.2), tensor(0.6), tensor(0.05)
    rates = gaussian.rate(x, shape, sigma, 0.001)
    parts = gaussian.bits_scale(shape, sigma) * x**0.6
    assert float(rates[1] - rates[0]) == pytest.approx(float(parts[1] - parts[0]))


@pytest.mark.parametrize("shape", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("fit", [gaussian.fit, gaussian.fit_likelihood])
def test_both_fits_find_the_distribution_that_a_sample_came_from(fit, shape):
    sample = reference(shape, 0.05).rvs(200_000, random_state=1)
    found, sigma = fit(torch.from_numpy(sample))
    assert found == pytest.approx(shape, rel=0.03)
    assert sigma == pytest.approx(0.05, rel=0.03)


def test_maximum_likelihood_is_at_least_as_likely_as_scipys_fit():
    sample = reference(0.8, 0.05).rvs(2_000, random_state=2)
    found, sigma = gaussian.fit_likelihood(torch.from_numpy(sample))
    theirs, _, scale = stats.gennorm.fit(sample, floc=0)
    ours = float(gaussian.log_density(torch.from_numpy(sample), tensor(found), tensor(sigma)).sum())
    assert ours >= stats.gennorm(theirs, scale=scale).logpdf(sample).sum() - 1e-3
