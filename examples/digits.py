"""The main job on real data, offline: train a small vision transformer on handwritten digits, once as usual and once
under BackSlash's rate, prune and pack both, and run them.

The data are the 1,797 scanned digits (8 x 8 pixels) that ship with scikit-learn; every fifth is held out.
Usage: python examples/digits.py [OUTPUT_DIRECTORY]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from sklearn.datasets import load_digits
from transformers import ViTConfig, ViTForImageClassification

import bsexport_runtime
from bsexport.backslash import Constraint, Rate, Weight, attach
from bsexport.quiet import quiet

RATES = {"normal": Rate(form="none"), "backslash": Rate(weight=Weight("target-sparsity", 0.9))}
RECIPES = (("0", "2^-8"), ("0.5", "2^-8"), ("0.8", "2^-8"), ("0.9", "2^-8"), ("0.9", "2^-6"))
EPOCHS = 30
BATCH = 64

Floats = npt.NDArray[np.float32]


def main() -> None:
    """Train both, pack each in several ways, and print sizes and accuracies of what the runtime answers."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ".demo")
    pixels, labels = read_digits()
    held_out = np.arange(len(labels)) % 5 == 0
    models = {name: out / name for name in RATES}
    for name, directory in models.items():
        if not (directory / "model.safetensors").is_file():
            save(fit(RATES[name], pixels[~held_out], labels[~held_out], 0, name)[0], directory)
    fp32 = (models["normal"] / "model.safetensors").stat().st_size
    print(f"\nweights, and accuracy on {held_out.sum()} digits that were held out")
    print(f"{'prune':>6} {'step':>6}" + "".join(f"  {name:>10} {'of fp32':>8} {'accuracy':>9}" for name in models))
    with quiet():
        dense = [ViTForImageClassification.from_pretrained(directory) for directory in models.values()]
    shares = [right(model, pixels[held_out], labels[held_out]) for model in dense]
    print(f"{'':>6} {'fp32':>6}" + "".join(f"  {fp32:>10,} {1:>8.1%} {share:>9.1%}" for share in shares) + "   PyTorch")
    for prune, step in RECIPES:
        line = f"{prune:>6} {step:>6}"
        for name, directory in models.items():
            package = out / f"{name}-p{prune}-s{step}"
            bsexport("pack", str(directory), "--prune", prune, "--step", step, "-o", str(package), "--force", "--quiet")
            size = (package / "weights.bsx").stat().st_size
            share = accuracy(package, pixels[held_out], labels[held_out])
            line += f"  {size:>10,} {size / fp32:>8.1%} {share:>9.1%}"
        print(f"{line}   bsexport-runtime", flush=True)
    image = out / f"digit-{labels[0]}.png"
    Image.fromarray(load_digits().images[0].astype(np.uint8) * 15).resize((64, 64)).save(image)
    print(f"\n$ bsexport run {package} --image {image}", flush=True)
    bsexport("run", str(package), "--image", str(image))
    print(f"\n$ bsexport verify {package} --against {directory}", flush=True)
    bsexport("verify", str(package), "--against", str(directory))


def read_digits() -> tuple[Floats, npt.NDArray[np.int64]]:
    """The images as the model takes them, float32 [n, 3, 8, 8] in -1..1, and their digits, int64 [n]."""
    digits = load_digits()
    grey = np.floor(digits.images) * 15 / 255  # 0..16 in the data, 0..240 in an image file
    return np.repeat((grey[:, None] - 0.5) / 0.5, 3, axis=1).astype(np.float32), digits.target


def fit(
    rate: Rate, pixels: Floats, labels: npt.NDArray[np.int64], seed: int, name: str = ""
) -> tuple[ViTForImageClassification, Constraint]:
    """Train from nothing under a rate, half a minute on one core; with a name, say how it goes."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # so small a model gains nothing from more
    digits = [str(digit) for digit in range(10)]
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        hidden_dropout_prob=0.1,
        id2label=dict(enumerate(digits)),
        label2id={name: digit for digit, name in enumerate(digits)},
    )
    model = ViTForImageClassification(config)
    steps = EPOCHS * -(-len(labels) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    constraint = attach(model, optimizer, rate, steps)
    inputs, targets = torch.from_numpy(pixels), torch.from_numpy(labels)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = model(pixel_values=inputs[batch], labels=targets[batch]).loss + constraint.loss()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        if name and epoch % 10 == 9:
            now = constraint.measure()
            print(
                f"{name:>9}: epoch {epoch + 1} of {EPOCHS}, loss {loss.item():.4f}, {now.sparsity:.0%} zeros, "
                f"shape {now.shape:.2f}, {now.bits:.2f} bits/weight",
                flush=True,
            )
    return model, constraint


def save(model: ViTForImageClassification, directory: Path) -> None:
    """Save as transformers does, with the image processor that makes the model's inputs of files."""
    with quiet():
        from transformers import ViTImageProcessor  # which tells at once that it could be faster with torchvision

        model.save_pretrained(directory)
        ViTImageProcessor(size={"height": 8, "width": 8}).save_pretrained(directory)


def accuracy(package: Path, pixels: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Share of the digits that the package reads rightly, in a session of the device runtime."""
    session = bsexport_runtime.load(package)
    (logits,) = session.run(["logits"], {"pixel_values": pixels})
    return float((logits.argmax(axis=1) == labels).mean())


def right(model: ViTForImageClassification, pixels: Floats, labels: npt.NDArray[np.int64]) -> float:
    """The same, of a model in PyTorch."""
    with torch.no_grad():
        return float((model.eval()(torch.from_numpy(pixels)).logits.argmax(1).numpy() == labels).mean())


def bsexport(*arguments: str) -> None:
    """Run the command line, as a user would."""
    subprocess.run([sys.executable, "-m", "bsexport.cli", *arguments], check=True)


if __name__ == "__main__":
    main()
