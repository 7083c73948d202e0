"""The tables of the study of training, made from the figures of its runs."""

import json

import pytest
from bench import training


def run(name, seed, *points, limit=None):
    """The figures of a run: of each point, the pruning ratio, the texts and the share of right answers."""
    return {
        "run": name,
        "seed": seed,
        "data": "imdb",
        "limit": limit,
        "taking_part": {"shape": 0.5},
        "points": [
            {
                "prune": prune,
                "step": 2**-8,
                "sparsity": 0.75,
                "entropy_bits": 1.5,
                "eg0_bits": 2.5,
                "eg_bits": 2.25,
                "bits_per_weight": 1.625,
                "examples": texts,
                "figures": {"accuracy": {"value": share, "low": share - 0.01, "high": share + 0.01}},
            }
            for prune, texts, share in points
        ],
    }


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_seeds_are_averaged_and_numbers_of_texts_kept_apart():
    found = [
        run("normal", 0, (0, 25_000, 0.8), (0.8, 5_000, 0.5)),
        run("normal", 1, (0, 25_000, 0.9), (0.8, 5_000, 0.6)),
        run("normal", 2, (0, 5_000, 0.7)),
    ]
    sizes = ["0.500", "75.0%", "1.500", "2.500", "2.250", "1.625"]
    assert cells(training.report(found)) == [
        ["imdb, normal", "0%", "0.003906", "25,000", "85.00%", "84.0%-86.0%", "2: 80.0%-90.0%", *sizes],
        ["imdb, normal", "80%", "0.003906", "5,000", "55.00%", "54.0%-56.0%", "2: 50.0%-60.0%", *sizes],
        ["imdb, normal", "0%", "0.003906", "5,000", "70.00%", "69.0%-71.0%", "1", *sizes],
    ]


def test_runs_are_compared_seed_by_seed_on_as_many_texts():
    found = [
        run("normal", 0, (0, 10_000, 0.8), (0.8, 5_000, 0.5)),
        run("normal", 1, (0, 10_000, 0.9)),
        run("normal", 2, (0, 5_000, 0.9)),
        *(run("backslash-steep-early-80", seed, (0.8, 10_000, 0.8)) for seed in range(4)),
    ]
    # Variances of the differences: (0.16 + 0.16) and (0.09 + 0.16) over 10,000; the root of their mean is 0.53 points.
    expected = ["imdb, backslash-steep-early-80", "normal", "-5.0", "-6.0 to -4.0", "+0.0, -10.0"]
    assert cells(training.differences(found)) == [expected]


@pytest.mark.parametrize(
    ("had", "asked", "over"),
    [
        ({"limit": 5000, "texts": 5000}, 5000, True),
        ({"limit": 5000, "texts": 5000}, 4000, True),
        ({"limit": 5000, "texts": 5000}, 6000, False),
        ({"limit": 5000, "texts": 5000}, None, False),
        ({"limit": 5000, "texts": 3873}, None, True),  # all there are
        ({"limit": None, "texts": 25000}, None, True),
    ],
)
def test_a_run_is_over_if_it_was_measured_on_enough_texts(tmp_path, had, asked, over):
    path = tmp_path / "run.json"
    assert not training.is_over(path, asked)
    path.write_text(json.dumps(run("normal", 0, (0, had["texts"], 0.8), (0.8, 100, 0.5), limit=had["limit"])))
    assert training.is_over(path, asked) is over


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"form": "none", "weight": {"kind": "pull", "value": 0.5}}, (0, 0.8, 0.9)),
        ({"form": "proximal", "weight": {"kind": "target-bits", "value": 2}}, (0,)),
        ({"form": "gradual", "weight": {"kind": "target-sparsity", "value": 0.9}}, (0.9,)),
        ({"form": "decoupled", "weight": {"kind": "pull", "value": 0.5}}, (0, 0.8)),
    ],
)
def test_a_run_is_measured_where_its_recipe_leads(options, expected):
    assert training.ratios(options) == expected


def test_the_figures_of_the_study_are_those_of_known_runs():
    assert training.read_runs()
    assert {name for pair in training.AGAINST for name in pair} <= set(training.ROWS)
