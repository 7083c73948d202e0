"""The command line: thin commands over the Python API; heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from bsexport import __version__
from bsexport.errors import BsexportError
from bsexport.recipe import NO_PROTECTION, Recipe, parse_step

INTERRUPTED = 130  # what shells make of a Ctrl-C


class Commands(click.Group):
    """A group whose commands end with one line on stderr and exit code 1 on an error that has a name."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a termination signal unwinds it, so that nothing half-made stays behind."""
        from bsexport_runtime.errors import BsexportRuntimeError

        signal.signal(signal.SIGTERM, _terminate)
        try:
            with _one_line_warnings():
                return super().invoke(ctx)
        except (BsexportError, BsexportRuntimeError) as error:
            raise click.ClickException(_one_line(error)) from error
        except KeyboardInterrupt:
            click.echo("Aborted!", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


def _terminate(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Stands in for warnings.showwarning, without the place in the source and the line of code."""
    click.echo(f"Warning: {_one_line(message)}", err=True)


class _LogLines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _show_warning(record.getMessage())


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Python's warnings, and what bsexport logs, become lines on stderr that begin with "Warning:"."""
    logger, handler = logging.getLogger("bsexport"), _LogLines(logging.WARNING)
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def _be_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    if value:
        warnings.simplefilter("ignore")
        logging.getLogger("bsexport").setLevel(logging.ERROR)
    return value


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from bsexport_runtime import backend

        with _one_line_warnings():
            click.echo(f"bsexport {__version__}, codec {backend()}")
        ctx.exit()


@contextmanager
def progress_bar(*, hidden: bool) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr that shows stage and share, if stderr is a terminal."""
    if hidden or not sys.stderr.isatty():
        yield lambda stage, share: None
        return
    with click.progressbar(length=1000, file=sys.stderr, show_pos=False, width=40) as bar:

        def show(stage: str, share: float) -> None:
            if bar.label != stage:
                bar.label, bar.pos = stage, 0
            bar.update(int(1000 * share) - bar.pos)

        yield show


package_argument = click.argument("package", type=click.Path(path_type=Path))
force_option = click.option("--force", is_flag=True, help="Replace what an earlier run wrote there.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
quiet_option = click.option("-q", "--quiet", is_flag=True, callback=_be_quiet, help="Print nothing but errors.")
trust_option = click.option("--trust-remote-code", is_flag=True, help="Run model code that comes with the model.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    callback=_print_version,
    expose_value=False,
    is_eager=True,
    help="Show the version and which codec is in use, and exit.",
)
def main() -> None:
    """Prune, quantise and exp-Golomb-code Hugging Face and ONNX models for small devices.

    Exit codes: 0 done; 1 bad input or a failed check, one line on stderr says which; 2 wrong usage.
    """


@main.command()
@click.argument("model")
@click.option(
    "--prune", type=float, default=0.0, show_default=True, help="Share of the weights to set to zero, 0 to below 1."
)
@click.option("--step", default="2^-8", show_default=True, help="Quantiser step: a number such as 1e-3, or 2^-8.")
@click.option(
    "--scope",
    default="global",
    show_default=True,
    help="Among which weights the smallest are pruned: of the whole model, of each tensor or of each row.",
    type=click.Choice(["global", "tensor", "row"]),
)
@click.option(
    "--layout",
    type=click.Choice(["eg", "bm", "rl"]),
    help="Force a layout: codewords alone, zero bitmap, or zero runs.  [default: the one of least cost per tensor]",
)
@click.option(
    "--family",
    type=click.Choice(["eg", "rice"]),
    help="Force a code family: exp-Golomb (the paper's) or Golomb-Rice.  [default: the one of least cost per stream]",
)
@click.option(
    "--order",
    type=int,
    help="Force plain exp-Golomb codes of this order, 0 to 15.  [default: orders of least cost]",
)
@click.option("--keep", multiple=True, metavar="GLOB", help="Tensors to leave as they are. Repeatable.")
@click.option(
    "--protect",
    multiple=True,
    metavar="GLOB",
    help=f"Tensors to code but not to prune, besides the task head; '{NO_PROTECTION}' prunes the head too. Repeatable.",
)
@click.option("--task", help="Export the model for this task.  [default: what its config.json says]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Package directory.  [default: ./NAME-bsx]")
@click.option("--dry-run", is_flag=True, help="Report what the package would be, and write nothing.")
@force_option
@json_option
@quiet_option
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads to use.  [default: all cores]")
@trust_option
def pack(
    model: str,
    prune: float,
    step: str,
    scope: Any,
    layout: Any,
    family: Any,
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

    MODEL is a Hugging Face directory, a hub id or an .onnx file. Example:

    \b
        bsexport pack my-model --prune 0.8 --step 1e-3
    """
    recipe = Recipe(
        prune=prune,
        scope=scope,
        step=parse_step(step),
        layout=layout,
        family=family,
        order=order,
        keep=keep,
        protect=protect,
    )
    from bsexport.output import check_output
    from bsexport.package import is_package
    from bsexport.pipeline import pack as pack_model
    from bsexport.source import default_name, open_source
    from bsexport.table import report_text
    from bsexport_runtime.session import available_cores

    out = out or Path(f"{default_name(model)}-bsx")
    if not dry_run:
        check_output(out, force=force, replaceable=is_package)
    with progress_bar(hidden=quiet or as_json) as progress:
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
        _echo_json({"out": None if dry_run else str(out), **report.to_json()})
    elif not quiet:
        click.echo(f"{click.format_filename(model)} -> {'nothing written (dry run)' if dry_run else out}")
        click.echo(report_text(report))


@main.command()
@package_argument
@click.option("--text", help="Text to run the model on.")
@click.option(
    "--context", metavar="TEXT", help="For question answering: the passage that the question --text is about."
)
@click.option("--image", type=click.Path(path_type=Path), help="Image file to run the model on.")
@json_option
def run(package: Path, text: str | None, context: str | None, image: Path | None, as_json: bool) -> None:
    """Run PACKAGE on one text or image.

    It prints labels, tokens, an answer, fills or a summary of the embedding, and takes the tokenizer or image processor
    that the model's folder had. Examples:

    \b
        bsexport run my-model-bsx --text "A fine film."
        bsexport run my-vit-bsx --image cat.png --json
    """
    if (text is None) == (image is None):
        raise click.UsageError("give one of --text and --image")
    if context is not None and text is None:
        raise click.UsageError("--context goes with --text")
    from bsexport.run import run_image, run_text, to_text

    answer = run_image(package, image) if image is not None else run_text(package, text or "", context)
    if as_json:
        _echo_json(answer)
    else:
        click.echo(to_text(answer))


@main.command()
@package_argument
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="NAME.onnx for a plain graph, any other name for a directory that transformers loads.",
)
@force_option
@quiet_option
def unpack(package: Path, out: Path, force: bool, quiet: bool) -> None:
    """Turn PACKAGE back into a plain .onnx file, or into a directory with model.safetensors.

    The weights are the decoded ones, in float32. Examples:

    \b
        bsexport unpack my-model-bsx -o my-model.onnx
        bsexport unpack my-model-bsx -o my-model-decoded
    """
    from bsexport.unpack import unpack as unpack_package

    unpack_package(package, out, force=force)
    if not quiet:
        click.echo(f"{package} -> {out}")


@main.command()
@package_argument
@json_option
def inspect(package: Path, as_json: bool) -> None:
    """Show what PACKAGE holds.

    Its recipe, sizes, and every tensor with its layout, zeros and bits per weight. Example:

    \b
        bsexport inspect my-model-bsx
    """
    import bsexport_runtime

    found = bsexport_runtime.inspect(package)
    if as_json:
        _echo_json(found)
        return
    from bsexport.table import manifest_text

    click.echo(f"{found['path']}: format version {found['version']}, made by {found['producer']}")
    click.echo(f"decoded here by {found['backend']}")
    click.echo(manifest_text(found))


@main.command()
@package_argument
@click.option("--against", metavar="MODEL", help="Compare with the model that the package was made from.")
@json_option
@quiet_option
@trust_option
def verify(package: Path, against: str | None, as_json: bool, quiet: bool, trust_remote_code: bool) -> None:
    """Check PACKAGE, or compare it with its model.

    Every checksum is checked and every block decoded; the exit code is 1 if anything is wrong.

    With --against, prune the model again, hold every weight against the decoded one (half a step apart at most), and
    say how far the outputs are from the model's. Example:

    \b
        bsexport verify my-model-bsx --against my-model
    """
    from bsexport.source import Source, open_source
    from bsexport.verify import check

    def open_model(task: str | None) -> Source:
        return open_source(against or "", task=task, trust_remote_code=trust_remote_code)

    with progress_bar(hidden=quiet or as_json) as progress:
        verdict = check(package, open_model if against is not None else None, progress)
    for line in verdict.wrong:
        click.echo(f"Error: {_one_line(line)}", err=True)
    if as_json:
        _echo_json(verdict.to_json())
    elif not quiet:
        click.echo(verdict.to_text())
    if verdict.wrong:
        sys.exit(1)


def _echo_json(value: dict[str, Any]) -> None:
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    main()
