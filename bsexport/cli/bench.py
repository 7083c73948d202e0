"""bsexport bench."""

from __future__ import annotations

from pathlib import Path

import click

from bsexport.bench.worker import MODES
from bsexport.cli.options import (
    batch_option,
    echo_json,
    json_option,
    length_option,
    package_argument,
    progress_bar,
    several,
    trust_option,
)


@click.command()
@package_argument
@click.option(
    "--modes",
    default="float32",
    show_default=True,
    callback=several(click.Choice(list(MODES))),
    metavar="MODE,...",
    help=f"Forms of the weights in memory to measure: {', '.join(MODES)}; int8 of packages made with pack --int8.",
)
@click.option(
    "--against",
    metavar="MODEL",
    help="Directory, hub id or .onnx file whose fp32 graph is the baseline.  [default: the package's decoded weights]",
)
@batch_option
@length_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads to use.  [default: all cores]")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    metavar="N",
    help="Fresh processes of each mode and baseline, in turn; figures are medians.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="How long a process runs each batch and length, at least 5 times.",
)
@click.option("--runs", type=click.IntRange(1), metavar="N", help="How often it runs them, in place of --seconds.")
@json_option
@trust_option
def bench(
    package: Path,
    modes: tuple[str, ...],
    against: str | None,
    batches: tuple[int, ...] | None,
    lengths: tuple[int, ...] | None,
    threads: int | None,
    rounds: int,
    seconds: float,
    runs: int | None,
    as_json: bool,
    trust_remote_code: bool,
) -> None:
    """Measure PACKAGE beside plain onnxruntime on the fp32 .onnx file.

    Load time, time to the first answer, latency, throughput, memory beyond the imports and bytes on disk, on made-up
    inputs. Each is also a ratio to onnxruntime, once with its default options (fp32) and once with those of the
    runtime (fp32*). Modes and baselines take turns, each time in a fresh process, and their outputs are compared.
    Examples:

    \b
        bsexport bench my-model-bsx
        bsexport bench my-model-bsx --against my-model --batch 1,8 --length 128 --threads 1
    """
    from bsexport.bench.run import Settings
    from bsexport.bench.run import bench as bench_package
    from bsexport.source import Source, is_onnx, open_source

    def open_model(task: str | None) -> Source:
        model = against or ""
        return open_source(model, task=None if is_onnx(Path(model)) else task, trust_remote_code=trust_remote_code)

    settings = Settings(modes, batches, lengths, threads, rounds, runs, seconds)
    with progress_bar(hidden=as_json) as progress:
        report = bench_package(package, settings, open_model if against is not None else None, progress)
    if as_json:
        echo_json(report.to_json())
    else:
        click.echo(report.to_text())
