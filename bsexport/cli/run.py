"""bsexport run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bsexport.cli.options import echo_json, json_option, mode_option, package_argument


@click.command()
@package_argument
@click.option("--text", help="Text to run the model on; an encoder-decoder makes another text of it.")
@click.option(
    "--context", metavar="TEXT", help="For question answering: the passage that the question --text is about."
)
@click.option("--image", type=click.Path(path_type=Path), help="Image file to run the model on.")
@click.option("--prompt", metavar="TEXT", help="Text that a language model goes on with.")
@click.option(
    "--max-new-tokens",
    type=int,
    metavar="N",
    help="Tokens to go on for, at most.  [default: 64, or as many as the model has positions left for]",
)
@click.option(
    "--temperature",
    type=float,
    default=0.0,
    metavar="T",
    help="Draw tokens, the more freely the higher; 0: the likeliest.  [default: 0]",
)
@click.option("--top-k", type=int, metavar="K", help="Draw from the K likeliest tokens only.")
@click.option("--top-p", type=float, metavar="P", help="Draw from the likeliest tokens that are P of the probability.")
@click.option(
    "--repetition-penalty",
    type=float,
    default=1.0,
    metavar="X",
    help="Above 1: tokens that were there get less likely.  [default: 1]",
)
@click.option(
    "--seed", type=int, metavar="N", help="Of the draws; the same gives the same text.  [default: another each time]"
)
@mode_option
@json_option
def run(
    package: Path,
    text: str | None,
    context: str | None,
    image: Path | None,
    prompt: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run PACKAGE on one text or image, or have it go on with a text.

    With --text or --image it prints labels, tokens, an answer, fills or a summary of the embedding. With --prompt, and
    with --text for an encoder-decoder, it prints new text as it comes, and then on stderr how fast; the options after
    --prompt are for that. It takes the tokenizer or image processor that the model's folder had. Examples:

    \b
        bsexport run my-model-bsx --text "A fine film."
        bsexport run my-vit-bsx --image cat.png --json
        bsexport run my-gpt2-bsx --prompt "Once upon a time" --temperature 0.8 --top-p 0.95
        bsexport run my-marian-bsx --text "A fine film."
    """
    if [text, image, prompt].count(None) != 2:
        raise click.UsageError("give one of --text, --image and --prompt")
    if context is not None and text is None:
        raise click.UsageError("--context goes with --text")
    from bsexport.run import is_encoder_decoder, run_image, run_text, to_text

    if text is not None and is_encoder_decoder(package):
        if context is not None:
            raise click.UsageError("--context is for question answering; an encoder-decoder takes all of it as --text")
        prompt = text
    given = click.get_current_context().get_parameter_source
    for name in options:
        if prompt is None and given(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --prompt")
    if prompt is not None:
        _go_on(package, prompt, as_json, **options)
        return
    answer = run_image(package, image) if image is not None else run_text(package, text or "", context)
    if as_json:
        echo_json(answer)
    else:
        click.echo(to_text(answer))


def _go_on(package: Path, prompt: str, as_json: bool, *, mode: str, max_new_tokens: int | None, **options: Any) -> None:
    from bsexport.generation import run_prompt

    def show(text: str) -> None:
        if not as_json:
            click.echo(text, nl=False)

    made = run_prompt(package, prompt, mode=mode, max_new_tokens=max_new_tokens, options=options, show=show)
    if as_json:
        echo_json(made.to_dict())
    else:
        click.echo()
        click.echo(made.speed, err=True)
