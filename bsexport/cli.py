"""The command line: thin commands over the Python API; heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from bsexport import __version__
from bsexport.errors import BsexportError
from bsexport.recipe import Recipe, parse_step


class Commands(click.Group):
    """A group whose commands end with one line and exit code 1 on an error that has a name."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a termination signal unwinds it, so that nothing half-made stays behind."""
        from bsexport_runtime.errors import BsexportRuntimeError

        signal.signal(signal.SIGTERM, _terminate)
        try:
            return super().invoke(ctx)
        except (BsexportError, BsexportRuntimeError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from bsexport_runtime import backend

        click.echo(f"bsexport {__version__}, codec {backend()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Show version and codec backend.",
)
def main() -> None:
    """Prune, quantise and exp-Golomb-code Hugging Face and ONNX models for small devices."""


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr that shows stage and share, if stderr is a terminal and quiet is not asked for."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, share: None
        return
    with click.progressbar(length=1000, file=sys.stderr, show_pos=False, width=40) as bar:

        def show(stage: str, share: float) -> None:
            if bar.label != stage:
                bar.label, bar.pos = stage, 0
            bar.update(int(1000 * share) - bar.pos)

        yield show


force_option = click.option("--force", is_flag=True, help="Replace what an earlier run wrote there.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
trust_option = click.option("--trust-remote-code", is_flag=True, help="Run model code that comes with the model.")
threads_option = click.option("--threads", type=click.IntRange(1), help="Threads to use; default: all cores.")


@main.command()
@click.argument("model")
@click.option(
    "--prune", type=float, default=0.0, show_default=True, help="Share of the weights to set to zero, 0 to below 1."
)
@click.option("--step", default="2^-8", show_default=True, help="Quantiser step, such as 1e-3 or 2^-8.")
@click.option(
    "--scope",
    default="global",
    show_default=True,
    help="Prune the smallest of all weights, per tensor or per row.",
    type=click.Choice(["global", "tensor", "row"]),
)
@click.option("--order", type=int, help="Force plain exp-Golomb codes of this order; default: the cheapest per tensor.")
@click.option("--keep", multiple=True, metavar="GLOB", help="Tensors to leave as they are. Repeatable.")
@click.option(
    "--protect",
    multiple=True,
    metavar="GLOB",
    help="Tensors to code but not to prune, besides the task head; 'none' prunes the head too. Repeatable.",
)
@click.option("--task", help="Export the model for this task; default: what its config.json says.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Package directory; default: ./NAME-bsx.")
@click.option("--dry-run", is_flag=True, help="Report what the package would be, and write nothing.")
@force_option
@json_option
@quiet_option
@threads_option
@trust_option
def pack(
    model: str,
    prune: float,
    step: str,
    scope: Any,
    order: int | None,
    keep: tuple[str, ...],
    protect: tuple[str, ...],
    task: str | None,
    out: Path | None,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
    threads: int | None,
    trust_remote_code: bool,
) -> None:
    """Prune, quantise and code MODEL into a package for devices.

    MODEL is a Hugging Face directory, a hub id or an .onnx file.

        bsexport pack my-model --prune 0.8 --step 1e-3
    """
    recipe = Recipe(prune=prune, scope=scope, step=parse_step(step), order=order, keep=keep, protect=protect)
    from bsexport.output import check_output
    from bsexport.package import is_package
    from bsexport.pipeline import pack as pack_model
    from bsexport.source import default_name, open_source
    from bsexport_runtime.session import available_cores

    out = out or Path(f"{default_name(model)}-bsx")
    if not dry_run:
        check_output(out, force=force, replaceable=is_package)
    with progress_bar(quiet=quiet or as_json) as progress:
        progress("reading", 0)
        source = open_source(model, task=task, trust_remote_code=trust_remote_code)
        report = pack_model(
            source,
            recipe,
            None if dry_run else out,
            force=force,
            threads=threads or available_cores(),
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps({"out": None if dry_run else str(out), **report.to_json()}, indent=1))
    elif not quiet:
        click.echo(f"{model} -> {'nothing written (dry run)' if dry_run else out}")
        click.echo(report.to_text())


@main.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--text", help="Text to run the model on.")
@click.option("--context", help="For question answering: the passage that the question --text is about.")
@click.option("--image", type=click.Path(path_type=Path), help="Image file to run the model on.")
@json_option
def run(package: Path, text: str | None, context: str | None, image: Path | None, as_json: bool) -> None:
    """Run PACKAGE on one text or image, and print its labels, or a summary of the embedding."""
    if (text is None) == (image is None):
        raise click.UsageError("give one of --text and --image")
    from bsexport import run as runner

    result = runner.run_image(package, image) if image else runner.run_text(package, text or "", context)
    click.echo(json.dumps(result, indent=1, ensure_ascii=False) if as_json else _run_lines(result))


def _run_lines(result: dict[str, Any]) -> str:
    if "embedding" in result:
        found = result["embedding"]
        values = " ".join(f"{value:+.4f}" for value in found["values"][:8])
        head = f"embedding of {found['dimensions']} dimensions, {found['pooling']}-pooled, norm {found['norm']:.4f}"
        return f"{head}: {values} ..."
    entries = [result["answer"]] if "answer" in result else next(iter(result.values()))
    rows = [
        (f"{entry['score']:.4f}", *(str(value) for key, value in entry.items() if key != "score")) for entry in entries
    ]
    return "\n".join("  ".join(row) for row in rows)


@main.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="NAME.onnx for a plain graph, or a directory that transformers loads.",
)
@force_option
@quiet_option
def unpack(package: Path, out: Path, force: bool, quiet: bool) -> None:
    """Turn PACKAGE back into a plain .onnx file, or into a directory with model.safetensors."""
    from bsexport.unpack import unpack as unpack_package

    unpack_package(package, out, force=force)
    if not quiet:
        click.echo(f"{package} -> {out}")


@main.command()
@click.argument("package", type=click.Path(path_type=Path))
@json_option
def inspect(package: Path, as_json: bool) -> None:
    """Show what PACKAGE holds: recipe, sizes, and every tensor with its layout and bits per weight."""
    import bsexport_runtime

    found = bsexport_runtime.inspect(package)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    from bsexport.report import manifest_text

    click.echo(f"{found['path']}: format version {found['version']}, made by {found['producer']}")
    click.echo(f"decoded here by {found['backend']}")
    click.echo(manifest_text(found))


@main.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--against", metavar="MODEL", help="Compare with the model that the package was made from.")
@trust_option
@json_option
@quiet_option
def verify(package: Path, against: str | None, trust_remote_code: bool, as_json: bool, quiet: bool) -> None:
    """Check every checksum of PACKAGE and decode every block; exit with 1 if anything is wrong."""
    from bsexport_runtime import Package

    opened = Package(package)
    wrong = list(opened.verify())
    result: dict[str, Any] = {"wrong": wrong, "tensors": len(opened.tensors), "files": len(opened.files)}
    if against and not wrong:
        from bsexport.source import open_source
        from bsexport.verify import compare

        with progress_bar(quiet=quiet or as_json) as progress:
            source = open_source(against, task=opened.manifest.get("task"), trust_remote_code=trust_remote_code)
            comparison = compare(package, source, progress)
        wrong.extend(comparison.wrong)
        result |= comparison.to_json()
    if as_json:
        click.echo(json.dumps(result, indent=1))
    elif not quiet or wrong:
        _print_verdict(package, result)
    if wrong:
        sys.exit(1)


def _print_verdict(package: Path, result: dict[str, Any]) -> None:
    for line in result["wrong"]:
        click.echo(f"Error: {line}", err=True)
    if not result["wrong"]:
        click.echo(f"{package}: sound, {result['tensors']} tensors and {result['files']} files checked")
    if "weight_error" in result:
        click.echo(f"largest weight error outside the pruned: {result['weight_error']:.4f} of step/2")
        for name, deviation in result["outputs"].items():
            click.echo(
                f"output {name}: deviates by at most {deviation:.3g} from the model's, whose largest value is "
                f"{result['output_scale'][name]:.3g}"
            )
        if result["why_no_outputs"]:
            click.echo(f"outputs were not compared: {result['why_no_outputs']}")


if __name__ == "__main__":
    main()
