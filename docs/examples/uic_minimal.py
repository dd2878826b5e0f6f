"""Unsupervised Image Classification in plain PyTorch: thirty classes of digits, without labels.

    python docs/examples/uic_minimal.py          # about twenty seconds on one core

Every image has a pseudo label, the classifier re-labels it each time it sees it, and no class may
be empty or over-represented. Expect an NMI of about 0.6 with the digits that people see.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score
from torch import nn
from torch.utils.data import DataLoader, Dataset

from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank

NUM_CLASSES, EPOCHS, BATCH = 30, 40, 64


class Digits(Dataset):
    """scikit-learn's 1,797 digits of 8x8 pixels: items are (index of the image, random view)."""

    def __init__(self):
        data = load_digits()
        self.images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
        self.digits = data.target  # for the NMI alone

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        padded = F.pad(self.images[index], (1, 1, 1, 1))
        top, left = torch.randint(3, (2,)).tolist()  # a random crop
        return index, padded[:, top : top + 8, left : left + 8]


def block(inputs, outputs):
    """A convolution with BatchNorm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def main(epochs=EPOCHS, seed=0):
    """Train; print and return the NMI of the labels after each epoch."""
    torch.manual_seed(seed)
    dataset = Digits()
    network = nn.Sequential(
        *(block(1, 32), block(32, 32), nn.MaxPool2d(2), block(32, 64), block(64, 64)),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 128), nn.BatchNorm1d(128)),
        *(nn.ReLU(), nn.Linear(128, NUM_CLASSES)),
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    bank = PseudoLabelBank(len(dataset), NUM_CLASSES, seed=seed)  # random labels at first
    fixer = EmptyClassFixer(NUM_CLASSES)
    bank.fix_empty_classes(fixer)
    sampler = ClassBalancedSampler(bank, seed=seed)  # reads labels and epoch from the bank
    loader = DataLoader(dataset, batch_size=BATCH, sampler=sampler, drop_last=True)
    history = []
    for epoch in range(epochs):
        for index, views in loader:
            logits = network(views)
            loss = F.cross_entropy(logits, bank.targets(index))  # this epoch's labels do not move
            bank.update(index, logits.argmax(1))  # the next epoch's come from the same logits
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        boundary = bank.commit(fixer)  # the epoch boundary: new labels, no class empty
        schedule.step()
        history.append(normalized_mutual_info_score(dataset.digits, bank.labels.numpy()))
        changed = boundary.num_changed / len(dataset)
        print(f"epoch {epoch + 1:2}  NMI {history[-1]:.3f}  labels changed {changed:.0%}")
    return history


if __name__ == "__main__":
    main()
