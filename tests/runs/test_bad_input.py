"""A user's mistakes: one clear line with the way out, exit code not 0, nothing lost."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from host_lines import LINE, needs_solo

from uic_plugin.hosts import HostError, find_host
from uic_plugin.report.progress import EpochReporter
from uic_plugin.runs.folder import find_resume, read_checkpoint
from uic_plugin.runs.training import pretrain

SMALL = [
    "pretrain",
    "--config-name",
    "digits/uic",
    "max_epochs=1",
    "backbone.kwargs.width=4",
    "data.num_workers=0",
    "data.fraction=0.5",
    "accelerator=cpu",
]


OVERRIDES = [
    "backbone.kwargs.width=8",
    "data.num_workers=0",
    "accelerator=cpu",
    "scheduler.name=none",
]


def one_line(done, *parts):
    """The process failed with one line on stderr that holds all parts."""
    assert done.returncode not in (0, None)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0], lines[0]


def copy_digits(digits, folder, step=40):
    for path in sorted(digits.glob("train/*/*.png"))[::step]:
        target = folder / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


def custom(folder, *more):
    return [
        *SMALL,
        "data.fraction=-1",
        "data.dataset=custom",
        f"data.train_path={folder}",
        "optimizer.batch_size=8",
        "method_kwargs.num_pseudo_classes=5",
        *more,
    ]


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (
            ["data.dataset=custom", "data.train_path=no/such"],
            ["data.train_path=no/such", "no such folder"],
        ),
        (["data.dataset=custom"], ["data.train_path is not set"]),
        (["data.dataset=mnist"], ["'mnist'", "custom"]),
        (["data.format=tar"], ["data.format must be one of image_folder", "'tar'"]),
        (["weights_allow_missing=fc6"], ["weights_allow_missing", "list of names", "'fc6'"]),
        (["method_kwargs.num_pseudo_classes=0"], ["num_pseudo_classes", "at least 2, got 0"]),
        (["method_kwargs.num_pseudo_classes=1"], ["num_pseudo_classes", "at least 2, got 1"]),
        (
            ["method_kwargs.num_pseudo_classes=1500"],
            ["721 images", "1500 pseudo classes", "at most 721"],
        ),
        (["method_kwargs.temprature=2"], ["method_kwargs.temprature", "did you mean temperature"]),
        (["optimiser.lr=1"], ["optimiser"]),
        (["optimizer.batch_size=5000"], ["5000", "721", "optimizer.batch_size"]),
        (["optimizer.batch_size=0"], ["optimizer.batch_size", "at least 1, got 0"]),
        (["optimizer.name=sdg"], ["optimizer.name", "'sdg'", "lars"]),
        (["optimizer.lr=fast"], ["optimizer.lr", "'fast'"]),
        (["optimizer.kwargs.nesterv=true"], ["nesterv", "optimizer.kwargs"]),
        (["scheduler.name=lineer"], ["scheduler.name", "'lineer'", "linear"]),
        (["precision=7"], ["precision"]),
        (["max_epochs=0"], ["max_epochs", "at least 1, got 0"]),
        (["method=uicc"], ["'uicc'", "simclr", "uic"]),
        (["backbone.name=alexnett"], ["'alexnett'", "conv4", "resnet18"]),
        (["backbone.kwargs.widht=3"], ["widht", "backbone.kwargs"]),
        (["resume_from_checkpoint=no.ckpt"], ["no.ckpt", "no such checkpoint"]),
        (["devices=two"], ["devices", "'two'"]),
        (["devices=0"], ["devices", "at least 1"]),
        (["accelerator=gpu"], ["accelerator=gpu", "accelerator=cpu"]),
        (["data.on_bad_image=ignore"], ["on_bad_image", "'ignore'"]),
    ],
)
def test_wrong_settings(uic, overrides, parts):
    one_line(uic(*SMALL, *overrides), *parts)


def test_a_typo_for_a_method_of_the_host(uic):
    command = [*SMALL[:2], "digits/simclr", *SMALL[3:]]
    one_line(uic(*command, "method_kwargs.temprature=2"), "method_kwargs.temprature", "proj_hidden")


def test_what_the_user_typed_counts_in_another_methods_recipe(uic, tmp_path):
    command = [*SMALL[:2], "digits/simclr", *SMALL[3:], "method=uic", "run_dir=run"]
    done = uic(*command, "method_kwargs.temperature=0.5", "method_kwargs.num_pseudo_classes=10")
    assert done.returncode == 0, done.stderr
    assert "leaves out options of another method's recipe: proj_hidden_dim" in done.stderr
    kept = (tmp_path / "run" / "config.yaml").read_text()
    assert "temperature: 0.5" in kept
    assert "num_pseudo_classes: 10" in kept


def test_wrong_recipe_and_folder(uic):
    one_line(uic("pretrain", "--config-name", "cifar/uic"), "'cifar/uic'", "cifar10/uic")
    one_line(uic(*SMALL, "--config-dir", "nowhere"), "nowhere", "no such folder")


def test_empty_folders(uic, tmp_path):
    (tmp_path / "empty").mkdir()
    one_line(uic(*custom("empty")), "empty", "the folder is empty")
    (tmp_path / "classes" / "cats").mkdir(parents=True)
    one_line(uic(*custom("classes")), "'cats' is empty")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    one_line(uic(*custom("text")), "no images there")
    (tmp_path / "file").write_text("x")
    one_line(uic(*custom("file")), "is a file")
    (tmp_path / "mixed" / "cats").mkdir(parents=True)
    (tmp_path / "mixed" / "cats" / "1.png").write_text("x")
    (tmp_path / "mixed" / "2.png").write_text("x")
    one_line(uic(*custom("mixed")), "holds images and subfolders (cats)")


def test_a_run_among_the_images(uic, digits, tmp_path):
    folder = copy_digits(digits, tmp_path / "images")
    settings = custom(folder, "method_kwargs.num_pseudo_classes=20", "run_dir=images/run")
    one_line(uic(*settings, "max_epochs=1"), "images/run lies in", "run_dir=FOLDER")


def test_a_run_among_the_images_of_the_home_folder(recipe, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"images/run lies in .*: give a folder elsewhere, run_dir"
    ):
        find_resume(recipe("data.train_path=~/images"), tmp_path / "images" / "run")


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_corrupted_image(uic, digits, tmp_path, workers):
    folder = copy_digits(digits, tmp_path / "images")
    victim = sorted(folder.rglob("*.png"))[7]
    victim.write_bytes(victim.read_bytes()[:50])
    settings = custom(folder, "method_kwargs.num_pseudo_classes=20", f"data.num_workers={workers}")
    one_line(uic(*settings, "max_epochs=5"), str(victim), "on_bad_image=skip")
    done = uic(*settings, "max_epochs=5", "data.on_bad_image=skip", "run_dir=skipping")
    assert done.returncode == 0, done.stderr
    assert f"skipped unreadable image {victim}" in done.stderr


def test_not_a_checkpoint(uic, tmp_path):
    (tmp_path / "a.ckpt").write_text("hello")
    one_line(uic(*SMALL, "resume_from_checkpoint=a.ckpt"), "a.ckpt is not a checkpoint")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "b.ckpt")
    one_line(
        uic(*SMALL, "resume_from_checkpoint=b.ckpt"), "b.ckpt is not a checkpoint of a training run"
    )
    one_line(uic("knn", "a.ckpt"), "config.yaml")
    one_line(uic("knn", "nowhere"), "nowhere", "no such run folder")
    (tmp_path / "run").mkdir()
    one_line(uic("linear", "run"), "no checkpoint there")


def test_checkpoint_of_another_network(uic, tmp_path):
    assert uic(*SMALL, "run_dir=run").returncode == 0
    one_line(uic("knn", "run", "backbone.kwargs.width=8"), "another network", "conv4")
    one_line(uic("knn", "run", "knn.k=0"), "knn.k", "got 0")
    one_line(uic("knn", "run", "knn.k=many"), "knn.k", "got 'many'")
    other = ["run_dir=other", "resume_from_checkpoint=run/last.ckpt", "backbone.kwargs.width=8"]
    one_line(uic(*SMALL, *other, "max_epochs=2", "scheduler.name=none"), "another network")
    one_line(uic("knn", "run", "knn.kk=3"), "'knn.kk' is no setting")
    one_line(uic("knn", "run", "nonsense"), "key=value")


def test_a_run_folder_of_other_settings_is_left_alone(uic, tmp_path):
    assert uic(*SMALL, "run_dir=run").returncode == 0
    before = (tmp_path / "run" / "last.ckpt").read_bytes()
    one_line(uic(*SMALL, "run_dir=run", "optimizer.lr=0.2"), "optimizer.lr: 0.1 there, 0.2 here")
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == before
    done = uic(*SMALL, "run_dir=run")
    assert done.returncode == 0
    assert "finished: 1 epochs" in done.stdout


@pytest.mark.slow
@pytest.mark.all_digits
def test_no_space_for_a_checkpoint_keeps_the_one_before(recipe, tmp_path):
    """A file-size limit stands for the full disk: the write fails half way, as there."""
    cfg = recipe("max_epochs=1", "scheduler.name=none")
    pretrain(cfg, reporter=EpochReporter("test"))
    kept = (tmp_path / "run" / "last.ckpt").read_bytes()
    command = ["uic", *SMALL[:3], *OVERRIDES, f"run_dir={tmp_path / 'run'}", "max_epochs=2"]
    program = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(kept) // 2}, {len(kept) // 2}))
sys.argv = {command!r}
from uic_plugin.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    one_line(done, "cannot write the checkpoint", "the checkpoint before it is whole")
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == kept
    assert not list((tmp_path / "run").glob("*.part"))
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == kept
    cfg = recipe("max_epochs=2", "scheduler.name=none")
    assert pretrain(cfg, reporter=EpochReporter("test")).resumed_from == 1


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
@pytest.mark.all_digits
def test_a_stopped_run_resumes(tmp_path, recipe, kind):
    settings = ["max_epochs=6", "backbone.kwargs.width=8", "data.num_workers=1", "accelerator=cpu"]
    command = [sys.executable, "-m", "uic_plugin.cli", "pretrain", "--config-name", "digits/uic"]
    command += [f"run_dir={tmp_path / 'stopped'}", *settings]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job, as this test may be, starts with Ctrl-C ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    limit = time.monotonic() + 100
    while not (tmp_path / "stopped" / "last.ckpt").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)
    if kind == signal.SIGINT:  # a terminal sends it to the workers too
        os.killpg(process.pid, kind)
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    if kind == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command resumes from there" in errors.strip().splitlines()[-1]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "epoch 1/6" not in done.stdout  # it did not start anew
    whole = recipe(*settings, f"run_dir={tmp_path / 'whole'}")
    pretrain(whole, reporter=EpochReporter("test"))
    one, two = (read_checkpoint(tmp_path / run / "last.ckpt") for run in ("stopped", "whole"))
    assert torch.equal(one["uic"]["bank"]["targets"], two["uic"]["bank"]["targets"])
    for name, weight in one["state_dict"].items():
        assert torch.equal(weight, two["state_dict"][name]), name


@needs_solo
def test_no_solo_learn(uic, monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name.split(".")[0] == "solo" else found(name, *rest),
    )
    one_line(uic(*SMALL), "solo-learn is not installed", "pip install")
    done = uic("doctor")
    assert done.returncode == 1
    assert 'pip install "uic-plugin[pypi]" && pip install --no-deps solo-learn==1.0.2' in (
        done.stdout.replace("\n", " ")
    )


@needs_solo
@pytest.mark.parametrize("version", ["1.0.3", "0.9", "1.0.5"])
def test_another_version_of_solo_learn(monkeypatch, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(HostError, match=f"solo-learn {version} is not supported.*1.0.2.*1.0.6"):
        find_host()


def test_doctor_is_content_here(uic):
    done = uic("doctor")
    assert done.returncode == 0, done.stdout
    assert "uic, deepcluster, selflabel" in done.stdout


def test_doctor_names_what_is_missing(monkeypatch):
    from uic_plugin.hosts.doctor import examine

    real = importlib.metadata.version
    missing, other, old, wanted = (
        ("timm", "hydra-core", "1.2.0", "hydra-core>=1.3,<2")
        if LINE == "lightly"
        else ("einops", "torchmetrics", "0.12.0", "torchmetrics>=0.11,<0.12")
    )

    def version(name):
        if name == missing:
            raise importlib.metadata.PackageNotFoundError
        return old if name == other else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings, healthy = examine()
    state = {finding.name: finding for finding in findings}
    assert not healthy
    assert state[missing].state == "missing"
    assert state[missing].remedy == f'pip install "{missing}"'
    assert state[other].remedy == f'pip install "{wanted}"'


def test_doctor_says_which_faiss(monkeypatch):
    from uic_plugin.hosts import doctor

    def found(*distributions):
        monkeypatch.setattr(
            importlib.metadata, "packages_distributions", lambda: {"faiss": list(distributions)}
        )
        return doctor._faiss()

    one = found("faiss-gpu")  # whichever brings it: no distribution is asked for by name
    assert (one.state, one.remedy) == ("ok", "")
    assert "of faiss-gpu, " in one.found
    two = found("faiss-gpu", "faiss-cpu")
    assert two.state == "two at once"
    assert "pip uninstall faiss-cpu faiss-gpu" in two.remedy
    monkeypatch.setitem(sys.modules, "faiss", None)
    none = found()
    assert (none.state, none.remedy) == ("missing", "pip install faiss-cpu, or faiss-gpu for GPUs")


def test_dali_is_refused_inside_the_host_too():
    from uic_plugin.hosts.attach import attach_method
    from uic_plugin.methods import UIC, RotNet

    class PretrainDALIDataModule:
        pass

    class Source:
        instance = PretrainDALIDataModule()

    for method in (UIC(), RotNet()):
        method.options = method.make_options({}, 10)
        message = rf"{method.name} needs every image .* which DALI does not allow.*image_folder"
        with pytest.raises(ValueError, match=message):
            attach_method(method, Source)


def test_classifiers_that_the_images_do_not_fill_are_left_out(uic, digits, tmp_path):
    """121 images, and a recipe with classifiers of 30, 10, 60 and 300 classes."""
    folder = copy_digits(digits, tmp_path / "images", step=12)
    (tmp_path / "mine.yaml").write_text(
        "defaults:\n  - /custom/uic\n  - _self_\nmethod_kwargs:\n  more_heads: [10, 60, 300]\n"
    )
    small = (
        *("pretrain", "--config-name", "mine", "--config-dir", tmp_path, "--no-page"),
        *(f"data.train_path={folder}", "method_kwargs.num_pseudo_classes=30", "max_epochs=1"),
        *("backbone.name=conv4", "+backbone.kwargs.width=4", "augmentations.0.crop_size=8"),
        *("optimizer.batch_size=8", "method_kwargs.head_width=16", "run_dir=run"),
        *("accelerator=cpu", "data.num_workers=0", "scheduler.name=none"),
    )
    done = uic(*small)
    assert done.returncode == 0, done.stderr
    said = "121 images: the classifier of 300 pseudo classes is left out"
    assert f"{said} (method_kwargs.more_heads=[10,60])" in done.stderr
    run = tmp_path / "run"
    assert "- 60\n" in (run / "config.yaml").read_text()
    assert "- 300\n" not in (run / "config.yaml").read_text()
    again = uic(*small)  # the same command finds its run
    assert again.returncode == 0, again.stderr
    longer = uic(*small, "max_epochs=2")
    assert longer.returncode == 0, longer.stderr
    one_line(uic(*small, "method_kwargs.more_heads=[10]"), "run with other settings")
    one_line(
        uic(*small, "method_kwargs.more_heads=[10,300]", "run_dir=typed"),
        "121 images are fewer than 300 pseudo classes: set method_kwargs.more_heads=[10]",
    )
