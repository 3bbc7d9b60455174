"""The command line that trains every model. Given: there is nothing to fill in here.

python train.py mlp-vae | mlp-gan | vae | ldm, and --help for the options. What a step of training is for each model is
in recipes.py, the loop around it in loop.py.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataset import DatasetError
from options import OneLineParser, count, finite, multiple_of_8, positive, share
from recipes import train
from runs import Run, RunError

PLACEHOLDER = re.compile(r"\d\.\d[a-z]?")  # what an empty block raises
DEFAULTS = {
    "mlp-vae": {"dataset": "glyphs", "epochs": 12, "batch_size": 128, "lr": 1e-3, "lr_schedule": "cosine"},
    "mlp-gan": {"dataset": "glyphs", "epochs": 50, "batch_size": 100},
    "vae": {"dataset": "shapes", "epochs": 20},
    "ldm": {"dataset": "shapes", "epochs": 50},
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of the command line; those of a run that is resumed come from its configuration."""
    parser = OneLineParser(description="Train a model of the assignment.")
    parser.add_argument("model", choices=DEFAULTS)
    parser.add_argument("--dataset", help="shapes, glyphs, mnist, cifar10 or folder:PATH")
    parser.add_argument("--limit", type=count, help="train on the first so many images only")
    parser.add_argument("--epochs", type=count, help="how often to go through the images")
    parser.add_argument("--steps", type=count, help="number of steps, instead of --epochs")
    parser.add_argument("--batch-size", type=count, default=64)
    parser.add_argument("--lr", type=positive, default=3e-4, help="learning rate of Adam")
    parser.add_argument("--lr-schedule", choices=["constant", "cosine"], default="constant")
    parser.add_argument("--grad-clip", type=positive, help="largest norm of the gradients of a network")
    parser.add_argument("--z-dim", type=count, default=20, help="mlp-vae, mlp-gan: number of latent variables")
    parser.add_argument("--hidden-dim", type=count, default=500, help="mlp-vae, mlp-gan: width of the hidden layers")
    parser.add_argument("--kl-weight", type=finite, default=1e-3, help="vae: weight of the KL divergence")
    parser.add_argument("--gan-weight", type=finite, default=0.0, help="vae: weight of the adversarial loss")
    parser.add_argument("--gan-loss-start", type=int, default=0, help="vae: step at which it sets in")
    parser.add_argument("--z-channels", type=count, default=3, help="vae: channels of the latents")
    parser.add_argument("--num-channels", type=multiple_of_8, default=32, help="vae, ldm: width of the networks")
    parser.add_argument("--vae", type=Path, help="ldm: run directory of the auto-encoder")
    parser.add_argument(
        "--num-timesteps", type=count, default=1000, help="ldm: steps of the diffusion; needs --schedule"
    )
    parser.add_argument("--schedule", choices=["linear", "cosine"], help="ldm: for any number of steps (3.1)")
    parser.add_argument("--label-dropout", type=share, default=0.0, help="ldm: share of labels dropped (3.3)")
    parser.add_argument("--average-decay", type=share, help="ldm: keep an average of the weights, 0.9999 say (3.4)")
    parser.add_argument("--prediction", choices=["noise", "velocity", "flow"], default="noise", help="ldm: (3.5, 3.6)")
    parser.add_argument("--min-snr", type=positive, help="ldm: gamma of the loss's weights, 5 say (3.5)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--compile", action="store_true", help="compile the networks first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run-dir", type=Path, help="where the run goes")
    parser.add_argument("--resume", action="store_true", help="continue the run in --run-dir, with its options")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --run-dir")
    parser.set_defaults(**DEFAULTS[parser.parse_args(arguments).model])
    options = parser.parse_args(arguments)
    options.run_dir = options.run_dir or Path("runs") / f"{options.model}-{options.dataset.partition(':')[0]}"
    if options.resume:
        config = Run(options.run_dir).config()
        if config["model"] != options.model:
            raise RunError(f"{options.run_dir} holds a {config['model']}; continue it with train.py {config['model']}.")
        parser.set_defaults(**config["options"])
        options = parser.parse_args(arguments)
    return options


def ending(folder: Path) -> str:
    """Where a run is, and its newest picture, as a sentence."""
    pictures = sorted(folder.glob("*-*.png"), key=lambda path: path.stat().st_mtime)
    return f"The run is in {folder}" + (f"; its newest picture is {pictures[-1]}." if pictures else ".")


def main() -> None:
    """Train as the command line says. Exit status 2, with one line, where that cannot be done."""
    with errors_in_one_line():
        options = parse()
        try:
            train(options)
        except KeyboardInterrupt:
            print(f"Stopped. Continue with: python train.py {options.model} --run-dir {options.run_dir} --resume")
            sys.exit(130)
    print(ending(options.run_dir))


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Exit with status 2 and one line where a data set, a run or a block is not there."""
    try:
        yield
    except (DatasetError, RunError) as error:
        said = str(error)
    except NotImplementedError as error:
        if not PLACEHOLDER.fullmatch(str(error)):  # PyTorch's own, of an operation that a device lacks
            raise
        said = f"This needs question {error}, which is not filled in yet."
    else:
        return
    print(f"error: {said}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
