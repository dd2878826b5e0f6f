"""Classes that people have corrected, and a search that starts from them."""

import dataclasses

import numpy as np
import pytest
import torch

from uic_plugin.data.edits import Edits, apply_edits
from uic_plugin.data.labels import LabelTable
from uic_plugin.discovery.correction import (
    Corrected,
    anchor_answers,
    corrected_means,
    read_corrections,
)
from uic_plugin.discovery.model import ClassModel
from uic_plugin.discovery.results import label_table
from uic_plugin.discovery.search import discover
from uic_plugin.discovery.settings import DiscoverySettings


def table(labels, **extra):
    count = len(labels)
    columns = {name: np.asarray(values) for name, values in extra.items()}
    half = np.full(count, 0.5, np.float32)
    return LabelTable([f"{i}.png" for i in range(count)], np.asarray(labels), half, half, columns)


def test_moved_images_are_those_that_left_the_others_of_their_class():
    # classes 0 and 2 were merged into 0; of class 1, the last image was moved to 0
    edited = table([0, 0, 0, 0, 1, 1, 0], source_label=[0, 0, 2, 2, 1, 1, 1])
    paths = ["6.png", "0.png", "4.png", "new.png"]
    found = read_corrections(edited, paths, "new.csv")
    assert found.labels.tolist() == [0, 0, 1, -1]
    assert found.moved.tolist() == [True, False, False, False]
    assert found.anchors().tolist() == [0, -1, -1, -1]
    assert found.num_classes == 2


def test_images_marked_as_wrong_have_no_class_and_names_stay():
    names = np.asarray(["dog", "dog", "", ""], object)
    edited = table([0, 0, 1, 1], wrong=[0, 1, 0, 0], name=names)
    found = read_corrections(edited, edited.paths, "new.csv")
    assert found.labels.tolist() == [0, -1, 1, 1]
    assert found.names == {0: "dog"}
    assert not found.moved.any()
    # one of them was moved to its class before
    edited = table([0, 0, 0, 1, 1], source_label=[0, 0, 1, 1, 1], wrong=[0, 0, 1, 0, 0])
    found = read_corrections(edited, edited.paths, "new.csv")
    assert found.labels.tolist() == [0, 0, -1, 1, 1]
    assert not found.moved.any()


@pytest.mark.parametrize(
    ("labels", "paths", "message"),
    [
        ([0, 1], ["a.png"], "labels of none of these 1 images"),
        ([0, 2], ["0.png", "1.png"], "3 classes of these images, 1 of them empty"),
        ([0, 0], ["0.png", "1.png"], "1 classes of these images"),
    ],
)
def test_corrections_that_cannot_be(labels, paths, message):
    with pytest.raises(ValueError, match=f"--from new.csv has .*{message}"):
        read_corrections(table(labels), paths, "new.csv")


def test_a_class_of_wrong_images_alone_has_a_way_out():
    edited = table([0, 1, 1, 2], wrong=[0, 1, 1, 0])
    said = "class 1 are marked as wrong, and these have no class: 'uic labels apply --wrong drop'"
    with pytest.raises(ValueError, match=f"3 classes of these images, 1 of them empty.*{said}"):
        read_corrections(edited, edited.paths, "new.csv")
    dropped = apply_edits(edited, Edits("new.csv", 4, edited.fingerprint, []), wrong="drop").table
    assert read_corrections(dropped, edited.paths, "less.csv").labels.tolist() == [0, -1, -1, 1]


def test_heads_start_from_the_means_of_the_classes():
    reduced = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    corrected = Corrected(np.asarray([0, 1, 1]), np.asarray([False, False, True]))
    for rows in corrected_means(reduced, corrected, 4, seed=0):
        assert torch.allclose(rows[0], reduced[0])  # of one image
        assert rows[1, 0] > 0.2  # a moved image counts in every head
        assert torch.allclose(rows.norm(dim=1), torch.ones(2))


def test_a_persons_answer_takes_the_place_of_the_teachers():
    answers = torch.randn(3, 2, 4).log_softmax(2)
    kept = answers.clone()
    found = anchor_answers(answers, torch.tensor([-1, 2, -1]))
    assert torch.equal(found[[0, 2]], kept[[0, 2]])
    assert torch.allclose(found[1].exp().sum(1), torch.ones(2))
    assert found[1].argmax(1).tolist() == [2, 2]


def test_a_correction_changes_what_is_learned():
    """Four groups, two classes of two groups each: the pairs that a person chose are found."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.eye(8)[:4]
    groups = torch.arange(200) % 4
    features = (centers[groups] + 0.05 * torch.randn(200, 8, generator=generator)).numpy()
    settings = dataclasses.replace(DiscoverySettings(), heads=4, min_steps=60, batch_size=64)
    for pairs in ([0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]):
        wanted = np.asarray(pairs)[groups]
        moved = np.zeros(200, bool)
        moved[:8] = True
        names = {0: "left", 1: "right"}
        corrected = Corrected(wanted, moved, names, hidden={1})
        found = discover(features, None, settings, corrected=corrected)
        assert (found.answers.labels == wanted).all()
        assert found.model.names == names
        assert found.model.hidden == {1}


def test_names_and_hidden_classes_survive_the_models_file(tmp_path):
    features = torch.eye(4)[torch.arange(40) % 2].numpy()
    edited = table(np.arange(40) % 2, name=np.full(40, "a", object), hidden=np.arange(40) % 2)
    settings = dataclasses.replace(DiscoverySettings(), heads=2, min_steps=3, max_steps=3)
    corrected = read_corrections(edited, edited.paths, "new.csv")
    discover(features, None, settings, corrected=corrected).model.save(tmp_path / "model.pt")
    model = ClassModel.load(tmp_path / "model.pt")
    assert (model.names, model.hidden) == ({0: "a", 1: "a"}, {1})
    answers = label_table(edited.paths, model(features), model)
    assert answers.extra["hidden"].tolist() == answers.labels.tolist()
    # a file of before has none
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    del content["hidden_classes"]
    torch.save(content, tmp_path / "model.pt")
    model = ClassModel.load(tmp_path / "model.pt")
    assert model.hidden == set()
    assert "hidden" not in label_table(edited.paths, model(features), model).extra


def test_a_moved_image_keeps_its_class_whatever_it_looks_like():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(100) % 2
    features = torch.eye(4)[groups] + 0.05 * torch.randn(100, 4, generator=generator)
    labels, moved = groups.numpy().copy(), np.zeros(100, bool)
    labels[0], moved[0] = 1, True  # looks like class 0
    settings = dataclasses.replace(DiscoverySettings(), heads=2, min_steps=30, batch_size=32)
    found = discover(features.numpy(), None, settings, corrected=Corrected(labels, moved))
    assert found.answers.labels.tolist() == labels.tolist()
    answers = found.answers  # of the class that the person gave, not of the one it looks like
    assert answers.second[0] == 0
    assert answers.confidence[0] < 0.5
    assert answers.agreement[0] == 0
    alike = answers.labels == 0
    assert answers.distance[0] > 2 * answers.distance[alike].max()
    np.testing.assert_allclose(answers.confidence[1:], found.model(features.numpy()).confidence[1:])
