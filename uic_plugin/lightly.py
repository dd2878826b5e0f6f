"""UIC in lightly: modules for its benchmark and Trainer, and parts for a loop of your own.

    from uic_plugin.lightly import UIC, transform

    dataset = LightlyDataset("my/images", transform=transform)
    loader = DataLoader(dataset, batch_size=128, shuffle=True, num_workers=8)
    Trainer(max_epochs=100).fit(UIC(128, num_classes=10, num_pseudo_classes=1000), loader)

In lightly's `benchmarks/imagenet/resnet50/main.py` one entry does it:
`METHODS["uic"] = {"model": UIC, "transform": transform}`. solo-learn is not needed.
"""

from __future__ import annotations

from uic_plugin.hosts.detect import choose_host, find_lightly

find_lightly()  # says what to install, before anything is imported
choose_host("lightly")

from uic_plugin.hosts.lightly_images import NumberedImages, numbered_loader  # noqa: E402
from uic_plugin.hosts.lightly_method import hosted  # noqa: E402
from uic_plugin.hosts.lightly_module import Training  # noqa: E402
from uic_plugin.hosts.lightly_parts import UICHead, UICTransform  # noqa: E402
from uic_plugin.methods import OWN_METHODS  # noqa: E402

__all__ = [
    "UIC",
    "DeepCluster",
    "NumberedImages",
    "SelfLabel",
    "Training",
    "UICHead",
    "UICTransform",
    "numbered_loader",
    "transform",
]

UIC = hosted(OWN_METHODS["uic"])
DeepCluster = hosted(OWN_METHODS["deepcluster"])
SelfLabel = hosted(OWN_METHODS["selflabel"])
transform = UICTransform()
