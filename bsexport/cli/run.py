"""bsexport run."""

from __future__ import annotations

from pathlib import Path

import click

from bsexport.cli.options import echo_json, json_option, package_argument


@click.command()
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
        echo_json(answer)
    else:
        click.echo(to_text(answer))
