"""UIC once more, as plainly as it can be written: what the package trains is compared with this.

Lists of images per class, loops over batches, torch's SGD; no bank, no sampler, no fixer, no
Lightning. Only the network's first weights and the host's dataset are shared with the package, and
the rule that turns (seed, purpose, epoch, ...) into the seed of a draw.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from uic_plugin.augmentation import Pixels, RandomViews
from uic_plugin.data.raw import with_transform
from uic_plugin.hosts import backbone_of
from uic_plugin.hosts.attach import centered
from uic_plugin.hosts.pipelines import center_views_of, pipelines_of
from uic_plugin.runs.datasets import pretrain_dataset
from uic_plugin.runs.settings import build_method, prepare_config
from uic_plugin.seeding import derive_seed, make_generator


@dataclass
class Epoch:
    """What an epoch left behind: the mean loss of its steps, and the labels of the next one."""

    loss: float
    labels: list[int]


def train_plainly(recipe):
    """UIC of a composed recipe, one process, labels of the training view or of centered ones."""
    cfg, source = prepare_config(recipe)
    dataset = pretrain_dataset(cfg, source)
    method = build_method(cfg).train()
    network, head = backbone_of(method), method.head
    options, seed, size = cfg.method_kwargs, cfg.seed, cfg.optimizer.batch_size
    num_classes = options.num_pseudo_classes
    rate = cfg.optimizer.lr * size / 256
    optimizer = torch.optim.SGD(
        [*network.parameters(), *head.parameters()],
        lr=rate,
        momentum=0.9,
        weight_decay=cfg.optimizer.weight_decay,
    )
    generator = make_generator(seed, "initial labels")
    labels = torch.randint(
        num_classes, (len(dataset),), generator=generator, dtype=torch.int16
    ).tolist()
    fill_empty_classes(labels, num_classes, make_generator(seed, "empty classes", 0))
    epochs = []
    for epoch in range(cfg.max_epochs):
        done = epoch / cfg.max_epochs
        is_linear = cfg.scheduler.name == "linear"
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - done if is_linear else (1 + math.cos(math.pi * done)) / 2)
        order = balanced_order(labels, num_classes, seed, epoch)
        num_steps = len(dataset) // size
        losses, new_labels = [], list(labels)
        for step in range(num_steps):
            drawn = order[step * size : (step + 1) * size]
            views = [
                one_view(cfg, dataset, image, epoch, step * size + place)
                for place, image in enumerate(drawn)
            ]
            torch.manual_seed(derive_seed(seed, "step", epoch, 0, step))
            logits = head(network(torch.stack(views)))[1]
            loss = F.cross_entropy(
                logits / options.temperature, torch.tensor([labels[image] for image in drawn])
            )
            if options.label_view == "train":
                for image, answer in zip(drawn, logits.argmax(1).tolist(), strict=True):
                    new_labels[image] = answer
            elif step == num_steps - 1:
                new_labels = labels_of_centered_views(
                    network, head, centered_views(cfg, dataset), size
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        fill_empty_classes(
            new_labels, num_classes, make_generator(seed, "empty classes", epoch + 1)
        )
        labels = new_labels
        epochs.append(Epoch(sum(losses) / len(losses), list(labels)))
    return epochs


def one_view(cfg, dataset, image, epoch, position):
    """The first view of an image, made alone by whichever engine the recipe asks for."""
    if cfg.augmentation.engine == "host":
        return seeded_view(dataset, image, derive_seed(cfg.seed, "view", epoch, position))
    return made_alone(
        RandomViews(pipelines_of(dataset.transform), cfg.seed), dataset, image, epoch, position
    )


def made_alone(views, dataset, image, epoch=0, position=0):
    """The first view of a batch of one image."""
    _, pixels, _ = with_transform(dataset, np.array)[image]
    return views(Pixels.of([pixels]), np.array([epoch]), np.array([position]))[0][0]


def centered_views(cfg, dataset):
    """A centered view of each image."""
    if cfg.augmentation.engine == "host":
        views = [item[1] for item in centered(dataset)]
        return [view if isinstance(view, torch.Tensor) else view[0] for view in views]
    views = center_views_of(dataset.transform)
    return [made_alone(views, dataset, image) for image in range(len(dataset))]


def seeded_view(dataset, image, seed):
    """The first view that the host's augmentation makes of an image."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    _, views, _ = dataset[image]
    return views if isinstance(views, torch.Tensor) else views[0]


def labels_of_centered_views(network, head, views, size):
    """The answers to centered views, network in eval mode, in batches of nearly equal size."""
    network.eval()
    head.eval()
    answers = []
    count = math.ceil(len(views) / size)
    for part in np.array_split(np.arange(len(views)), count):
        with torch.no_grad():
            answers += head(network(torch.stack([views[i] for i in part])))[1].argmax(1).tolist()
    network.train()
    head.train()
    return answers


def members_of(labels, num_classes, rng):
    """For each class, the places of its images in a random order; `rng` is drawn from once."""
    keys = rng.integers(0, (1 << 64) - 1, len(labels), dtype=np.uint64, endpoint=True).tolist()
    # class and image take some of 64 bits, the others order the images of a class
    low, high = (len(labels) - 1).bit_length(), 64 - (num_classes - 1).bit_length()
    keys = [key % (1 << high) >> low for key in keys]
    members = [[] for _ in range(num_classes)]
    for place, label in enumerate(labels):
        members[label].append(place)
    for places in members:
        places.sort(key=lambda place: (keys[place], place))
    return members


def balanced_order(labels, num_classes, seed, epoch):
    """`N // K + 1` images of each class, shuffled together, cut to N."""
    quota = len(labels) // num_classes + 1
    rng = np.random.default_rng(derive_seed(seed, "members", epoch))
    members = members_of(labels, num_classes, rng)
    short = [places for places in members if len(places) <= quota]
    draws = rng.random((len(short), quota)).tolist()
    repeated = {
        id(places): [places[int(draw * len(places))] for draw in row]
        for places, row in zip(short, draws, strict=True)
    }
    selected = [image for places in members for image in repeated.get(id(places), places[:quota])]
    generator = make_generator(seed, "order", epoch)
    shuffle = torch.randperm(len(selected), generator=generator, dtype=torch.int32).tolist()
    return [selected[place] for place in shuffle][: len(labels)]


def fill_empty_classes(labels, num_classes, generator):
    """Give each empty class half of the class that is largest at that moment, in place."""
    sizes = [labels.count(c) for c in range(num_classes)]
    origin, parts = {}, {}
    for empty in [c for c in range(num_classes) if sizes[c] == 0]:
        largest = max(range(num_classes), key=lambda c: (sizes[c], -c))
        half = sizes[largest] // 2
        sizes[largest] -= half
        sizes[empty] = half
        origin[empty] = origin.get(largest, largest)
        parts.setdefault(origin[empty], [origin[empty]]).append(empty)
    if not parts:
        return
    split = [image for image, label in enumerate(labels) if label in parts]
    dealt = {c: [part for part in parts[c] for _ in range(sizes[part])] for c in parts}
    if len(parts) == 1:
        (answers,) = dealt.values()
        shuffle = torch.randperm(len(answers), generator=generator, dtype=torch.int32).tolist()
        for image, place in zip(split, shuffle, strict=True):
            labels[image] = answers[place]
        return
    rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
    members = members_of([labels[image] for image in split], num_classes, rng)
    for c, answers in dealt.items():
        for place, answer in zip(members[c], answers, strict=True):
            labels[split[place]] = answer
