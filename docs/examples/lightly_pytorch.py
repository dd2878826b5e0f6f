# python lightly_pytorch.py FOLDER      UIC in a plain loop with lightly's dataset and transforms
import sys

import torchvision
from lightly.data import LightlyDataset
from torch import nn, optim
from torch.utils.data import DataLoader

from uic_plugin import ClassBalancedSampler, EmptyClassFixer, PseudoLabelBank
from uic_plugin.lightly import NumberedImages, UICHead, UICTransform

folder, classes, epochs = sys.argv[1], 100, 10
resnet = torchvision.models.resnet18()
backbone = nn.Sequential(*list(resnet.children())[:-1], nn.Flatten())
model = nn.Sequential(backbone, UICHead(512, classes))
dataset = LightlyDataset(folder, transform=UICTransform(64))

bank, fixer = PseudoLabelBank(len(dataset), classes, seed=0), EmptyClassFixer(classes)
bank.fix_empty_classes(fixer)  # labels begin at random, and no class is empty
sampler = ClassBalancedSampler(bank, seed=0)  # in the place of shuffle=True
loader = DataLoader(NumberedImages(dataset), 64, sampler=sampler, drop_last=True)
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
criterion = nn.CrossEntropyLoss()
for epoch in range(epochs):
    for index, views, _, _ in loader:
        logits = model(views[0])
        loss = criterion(logits, bank.targets(index))
        bank.update(index, logits.argmax(1))  # the next epoch's labels
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    boundary = bank.commit(fixer)  # the epoch boundary
    print(f"epoch {epoch + 1}: loss {loss:.2f}, {boundary.num_changed} labels changed")
