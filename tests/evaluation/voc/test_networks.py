"""What networks become: fully convolutional, dilated, with regions."""

import pytest
import torch
import torchvision
from torch import nn

from uic_plugin.evaluation.voc.classification import (
    ClassifySettings,
    MultiLabelNetwork,
    presence_loss,
)
from uic_plugin.evaluation.voc.detectors import FastRCNN, faster_rcnn, stride_of
from uic_plugin.evaluation.voc.fcn import StagedFCN, resnet_fcn
from uic_plugin.evaluation.voc.network import convolutions, estimate_statistics, with_mode
from uic_plugin.networks.alexnet import AlexNet
from uic_plugin.networks.conv4 import Conv4
from uic_plugin.networks.vgg16 import VGG16

NORMALIZE = {"mean": [0.5] * 3, "std": [0.25] * 3}


def alexnet(**kwargs):
    torch.manual_seed(0)
    return AlexNet(**{"image_size": 224, "width": 0.05, "fc_width": 24, **kwargs}).eval()


def resnet(name="resnet18"):
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None)
    network.fc = nn.Identity()
    return network.eval()


@pytest.mark.parametrize("head", ["32s", "16s", "8s"])
@pytest.mark.parametrize("network", [alexnet, lambda: VGG16(width=0.05, fc_width=24).eval()])
def test_fcn_puts_out_a_score_for_every_pixel(network, head):
    model = StagedFCN(network(), 21, head)
    assert len(model.scores) == {"32s": 1, "16s": 2, "8s": 3}[head]
    for size in ((224, 224), (97, 160)):
        assert model(torch.randn(2, 3, *size))["out"].shape == (2, 21, *size)


def test_fcn_computes_what_fc6_and_fc7_did():
    network = alexnet(dropout=0.0)
    image = torch.randn(1, 3, 224, 224)
    features = network(image)
    model = StagedFCN(network, 21)
    x = model.sobel(image)
    for stage in model.stages:
        x = stage(x)
    # a kernel as large as the map, padded: its place in the middle sees the whole map
    middle = model.top(x)[0, :, 2, 2]
    assert torch.allclose(middle, features[0], atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_a_dilated_resnet_computes_the_strided_one_and_more(name):
    """Every fourth place of the finer map has the value that the coarse map had."""
    image = torch.randn(1, 3, 96, 96)
    network = resnet(name)
    coarse = nn.Sequential(*list(network.children())[:-2])(image)
    fine = resnet_fcn(network, 21, 8).backbone(image)["out"]
    assert coarse.shape[-1] == 3
    assert fine.shape[-1] == 12
    assert torch.allclose(fine[..., ::4, ::4], coarse, rtol=1e-3, atol=1e-2)
    theirs = torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None)
    if name == "resnet50":  # torchvision's own dilates the same kernels
        own = [m.dilation for m in network.layer4.modules() if isinstance(m, nn.Conv2d)]
        layer4 = theirs.backbone.layer4
        assert own == [m.dilation for m in layer4.modules() if isinstance(m, nn.Conv2d)]


def test_output_strides():
    image = torch.randn(1, 3, 96, 96)
    sides = {s: resnet_fcn(resnet(), 21, s).backbone(image)["out"].shape[-1] for s in (8, 16, 32)}
    assert sides == {8: 12, 16: 6, 32: 3}
    assert resnet_fcn(resnet(), 21, 32)(image)["out"].shape == (1, 21, 96, 96)


def test_region_pooling_on_the_whole_image_is_the_networks_own_pooling():
    """fc6 then sees what it saw in pretraining, up to the kind of max-pooling."""
    network = alexnet(dropout=0.0, sobel=False)
    model = FastRCNN(network, 3, **NORMALIZE, min_size=224, max_size=224).eval()
    assert stride_of(model.convolutions) == 16
    maps = {"conv5": torch.arange(13.0).expand(1, 1, 13, 13)}
    region = [torch.tensor([[0.0, 0.0, 208.0, 208.0]])]
    pooled = model.heads.box_roi_pool(maps, region, None)
    assert pooled.shape[-2:] == (6, 6)
    assert pooled[0, 0, 0].tolist() == sorted(pooled[0, 0, 0].tolist())
    assert pooled[0, 0, 0, -1] == 12


@pytest.mark.parametrize(
    "network",
    [
        lambda: alexnet(image_size=64),
        lambda: VGG16(image_size=64, width=0.05, fc_width=24, sobel=True),
    ],
)
def test_fast_rcnn_gives_losses_and_boxes_within_the_image(network):
    model = FastRCNN(network(), 3, **NORMALIZE, min_size=96, max_size=200)
    image = torch.rand(3, 80, 112)
    regions = torch.tensor([[0.0, 0.0, 60.0, 60.0], [30.0, 10.0, 112.0, 80.0]])
    target = {"boxes": torch.tensor([[2.0, 2.0, 58.0, 58.0]]), "labels": torch.tensor([2])}
    losses = model([image], [regions], [target])
    assert set(losses) == {"loss_classifier", "loss_box_reg"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    found = model.eval()([image], [regions])[0]
    assert found["boxes"][:, 2].max() <= 112
    assert found["boxes"][:, 3].max() <= 80
    assert set(found["labels"].tolist()) <= {1, 2, 3}


@pytest.mark.slow
@pytest.mark.parametrize("neck", ["c4", "fpn"])
def test_faster_rcnn_trains_all_layers(neck):
    model = faster_rcnn(resnet(), 3, neck=neck, **NORMALIZE, min_size=64, max_size=96)
    target = {"boxes": torch.tensor([[2.0, 2.0, 58.0, 58.0]]), "labels": torch.tensor([2])}
    losses = model([torch.rand(3, 80, 112)], [target])
    sum(losses.values()).backward()
    names = {name for name, p in model.named_parameters() if p.grad is not None}
    for stage in ("layer1", "layer2", "layer3"):
        assert any(stage in name for name in names)
    assert model.eval()([torch.rand(3, 80, 112)])[0].keys() == {"boxes", "labels", "scores"}


def test_a_network_that_a_task_cannot_take_is_one_line():
    for build in (
        lambda n: FastRCNN(n, 3, **NORMALIZE),
        lambda n: StagedFCN(n, 3),
        convolutions,
    ):
        for network in (Conv4(), alexnet(fc_width=0), resnet()):
            if isinstance(network, Conv4) and hasattr(network, "classifier"):
                continue
            with pytest.raises(ValueError, match="needs the layers fc6 and fc7"):
                build(network)
    for build in (lambda n: faster_rcnn(n, 3, neck="c4", **NORMALIZE), lambda n: resnet_fcn(n, 3)):
        with pytest.raises(ValueError, match="needs a ResNet with stages layer1 to layer4"):
            build(alexnet())
    with pytest.raises(ValueError, match="--neck must be c4 or fpn"):
        faster_rcnn(resnet(), 3, neck="c5", **NORMALIZE)
    with pytest.raises(ValueError, match="--head must be one of 32s, 16s, 8s"):
        StagedFCN(alexnet(), 21, "4s")
    with pytest.raises(ValueError, match="--output-stride must be 8, 16 or 32"):
        resnet_fcn(resnet(), 21, 4)


def test_fc6_8_leaves_the_convolutions_as_they_are():
    network = alexnet()
    model = MultiLabelNetwork(network, 24, ClassifySettings(train="fc6-8", crop=224))
    set_mode = with_mode(model, "train", model.frozen)
    before = {k: v.clone() for k, v in network.features.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    set_mode()
    fc6 = network.classifier[1].weight.clone()
    presence_loss(model(torch.randn(4, 3, 224, 224)), torch.ones(4, 20)).backward()
    optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in network.features.state_dict().items())
    assert not torch.equal(fc6, network.classifier[1].weight)
    assert fc6.std().item() == pytest.approx(0.01, rel=0.1)  # new weights, unless they are kept
    kept = alexnet()
    weight = kept.classifier[1].weight.clone()
    MultiLabelNetwork(kept, 24, ClassifySettings(keep_fc=True))
    assert torch.equal(weight, kept.classifier[1].weight)


def test_fixed_statistics_stay_and_all_weights_learn():
    model = MultiLabelNetwork(resnet(), 512, ClassifySettings(train="all"))
    with_mode(model, "fixed")()
    mean = model.backbone.bn1.running_mean.clone()
    presence_loss(model(torch.randn(2, 3, 64, 64)), torch.ones(2, 20)).backward()
    assert torch.equal(mean, model.backbone.bn1.running_mean)
    assert model.backbone.bn1.weight.grad is not None
    with pytest.raises(ValueError, match="--batch-norm must be fixed or train"):
        with_mode(model, "frozen")


def test_difficult_classes_cost_nothing():
    logits = torch.tensor([[2.0, -1.0, 5.0]], requires_grad=True)
    loss = presence_loss(logits, torch.tensor([[1.0, 0.0, float("nan")]]))
    expected = torch.log1p(torch.exp(torch.tensor([-2.0, -1.0]))).sum()
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert logits.grad[0, 2] == 0


def test_estimated_statistics_are_those_of_the_images():
    network = alexnet()
    images = torch.randn(16, 3, 224, 224) + 3
    kept = network.training
    estimate_statistics(network, iter(images.split(8)))
    assert network.training is kept
    first = network.features[1]
    maps = network.features[0](network.sobel(images))
    assert torch.allclose(first.running_mean, maps.mean((0, 2, 3)), atol=1e-4)
    assert first.momentum == 0.1
