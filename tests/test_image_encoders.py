"""What every image encoder keeps to, whichever it is; and what is known of each."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sbi_da.encoders.cnn import CNN, CompactCNN
from sbi_da.encoders.deepmerge import DeepMerge
from sbi_da.encoders.freezing import freeze
from sbi_da.encoders.huggingface import HuggingFace
from sbi_da.encoders.registry import IMAGE_ENCODERS, image_encoder, portable
from sbi_da.errors import ConfigError, SbiDaError

TINY = {"model_type": "resnet", "layer_type": "basic", "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "embedding_size": 8}
SMALL = {
    "cnn": {"widths": [8, 16]},
    "huggingface": {"pretrained": False, "architecture": TINY},
    "resnet18": {"pretrained": False},
    "resnet50": {"pretrained": False},
    "plain_steerable": {"group": "C4", "width": 3},
    "steerable": {"group": "C4", "width": 3},
}
NEEDS = {"steerable": "escnn", "huggingface": "transformers", "resnet18": "transformers", "resnet50": "transformers"}


def make(kind, bands=3, size=32):
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    torch.manual_seed(0)
    return image_encoder(kind, bands, size, SMALL.get(kind))


def shaken(network):
    """The network with statistics and gains that are not the initial ones, in evaluation."""
    torch.manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    return network.eval()


@pytest.mark.parametrize(("bands", "size"), [(1, 32), (2, 64), (3, 64), (4, 33), (5, 32)])
@pytest.mark.parametrize("kind", [kind for kind in IMAGE_ENCODERS if kind != "resnet50"])
def test_features_have_the_promised_shape_for_all_images(kind, bands, size):
    network = make(kind, bands, size).eval()
    assert isinstance(network.features, int)
    for count in (1, 3):
        features = network(torch.randn(count, bands, size, size))
        assert features.shape == (count, network.features) and features.dtype == torch.float32
        assert torch.isfinite(features).all()


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_gradients_reach_every_parameter(kind):
    network = make(kind)
    images = torch.randn(6, 3, 32, 32, requires_grad=True)
    (network(images) * torch.randn(6, network.features)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
    assert images.grad.flatten(1).any(1).all()


@pytest.mark.parametrize("kind", IMAGE_ENCODERS)
def test_in_evaluation_an_object_does_not_depend_on_the_others_and_the_state_is_all_there_is(kind):
    network = shaken(make(kind))
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        features = network(images)
        assert torch.equal(features, network(images))
        alone = torch.cat([network(images[k : k + 1]) for k in range(4)])
        assert torch.allclose(features, alone, atol=1e-5 * float(features.abs().max()), rtol=1e-4)
        assert features.std(0).max() > 1e-4
        again = make(kind)
        again.load_state_dict(network.state_dict())
        assert torch.equal(features, again.eval()(images))


def test_unknown_encoders_and_options_are_refused_by_name():
    with pytest.raises(SbiDaError, match="unknown image encoder 'vgg': known are compact, cnn"):
        image_encoder("vgg", 3, 64)
    with pytest.raises(ConfigError, match="'compact': depth.*options are widths, blocks"):
        image_encoder("compact", 3, 64, {"depth": 3})
    with pytest.raises(ConfigError, match="bands"):
        image_encoder("cnn", 3, 64, {"bands": 4})
    with pytest.raises(ConfigError, match="at least one band"):
        image_encoder("cnn", 0, 64)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("compact", {"blocks": [1]}, "3 positive numbers"),
        ("compact", {"widths": [8, 12, 16], "normalisation": "group"}, "multiples of 8"),
        ("compact", {"activation": "tanh"}, "activation"),
        ("cnn", {"widths": []}, "one or more"),
        ("cnn", {"widths": [8] * 6}, "at least 64 pixels"),
        ("deepmerge", {"widths": [8, 16]}, "three widths"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind, options, message):
    with pytest.raises(ConfigError, match=message):
        image_encoder(kind, 3, 32, options)


def test_deepmerge_has_the_published_parameters():
    encoder = DeepMerge(3, 75)
    counts = [sum(p.numel() for p in part.parameters()) for part in encoder.layers if len(list(part.parameters()))]
    assert counts == [608, 16, 1168, 32, 4640, 64, 165952, 2080]
    network = nn.Sequential(encoder, nn.Linear(encoder.features, 2))
    assert sum(p.numel() for p in network.parameters()) == 174_626
    assert DeepMerge(3, 75, dense=()).features == 2592


def test_cnn_is_two_blocks_of_two_convolutions():
    encoder = CNN(3, 64)
    shapes = [tuple(p.weight.shape) for p in encoder.layers if isinstance(p, nn.Conv2d)]
    assert shapes == [(64, 3, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3)]
    kinds = "".join(type(part).__name__[0] for part in encoder.layers)
    assert kinds == "CBRCBRM" * 2 and encoder.features == 128


def test_compact_stays_compact():
    total = 0

    def count(layer, _, output):
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    encoder = CompactCNN(3, 64).eval()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    encoder(torch.zeros(1, 3, 64, 64))
    assert 8e6 < total < 15e6 and encoder.features == 96


def test_group_normalisation_is_the_same_in_training():
    encoder = image_encoder("compact", 3, 32, {"normalisation": "group", "activation": "gelu"})
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(encoder.train()(images), encoder.eval()(images))


def test_what_is_frozen_stays_as_it_is_while_gradients_pass():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    network = nn.Sequential(nn.Conv2d(3, 3, 1), freeze(first), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        network.train()
        (network(2 + 3 * torch.randn(8, 3, 9, 9)) * torch.randn(8, 4, 5, 5)).sum().backward()
        optimiser.step()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("1."), name
    network.train()
    assert torch.equal(first(torch.ones(2, 3, 9, 9)), first(torch.ones(2, 3, 9, 9)))


def test_the_first_stages_of_a_backbone_can_be_frozen():
    pytest.importorskip("transformers")
    encoder = HuggingFace(3, 32, pretrained=False, trainable_stages=2, architecture=TINY)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=0.1)
    encoder.train()
    (encoder(1 + torch.randn(4, 3, 32, 32)) * torch.randn(4, 16)).sum().backward()
    optimiser.step()
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if ".stages.2." in name or ".stages.3." in name}
    with pytest.raises(ConfigError, match="has 4 stages"):
        HuggingFace(3, 32, pretrained=False, trainable_stages=5, architecture=TINY)


def test_a_backbone_comes_from_a_folder_and_again_from_what_it_says_of_itself(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(**{k: v for k, v in TINY.items() if k != "model_type"})
    saved = shaken(transformers.ResNetModel(config))
    saved.save_pretrained(tmp_path)
    encoder = image_encoder("huggingface", 3, 32, {"model": str(tmp_path)})
    assert all(part.training for part in encoder.modules())
    encoder.eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(encoder(images), saved(images).pooler_output.flatten(1), atol=1e-5)
    again = image_encoder("huggingface", 3, 32, encoder.rebuild).eval()
    assert encoder.rebuild["pretrained"] is False
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(images), encoder(images))
    grey = image_encoder("huggingface", 5, 32, {"model": str(tmp_path), "trainable_stages": 1}).eval()
    same = torch.randn(2, 1, 32, 32)
    assert torch.allclose(grey(same.expand(-1, 5, -1, -1)), encoder(same.expand(-1, 3, -1, -1)), atol=1e-4)
    free = {name for name, p in grey.named_parameters() if p.requires_grad}
    assert {name.split(".")[3] for name in free if "stages" in name} == {"3"}
    assert [name for name in free if "stages" not in name] == ["network.embedder.embedder.convolution.weight"]
    with pytest.raises(ConfigError, match="is not microsoft/resnet-18"):
        image_encoder("resnet18", 3, 32, {"model": str(tmp_path)})
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SbiDaError, match=r"no weights could be read in that folder.*pretrained: false"):
        image_encoder("huggingface", 3, 32, {"model": str(tmp_path)})


def test_without_the_hub_or_without_the_package_the_way_out_is_named(monkeypatch):
    def fail(*_, **__):
        raise OSError("We couldn't connect to the hub\nand more")

    unreachable = SimpleNamespace(AutoModel=SimpleNamespace(from_pretrained=fail), AutoConfig=SimpleNamespace(from_pretrained=fail))
    monkeypatch.setitem(sys.modules, "transformers", unreachable)
    with pytest.raises(SbiDaError, match=r"resnet-18: no weights .*couldn't connect to the hub\).*a folder.*pretrained: false"):
        image_encoder("resnet18", 3, 64)
    with pytest.raises(SbiDaError, match=r"some/vit: no configuration .*architecture"):
        image_encoder("huggingface", 3, 64, {"model": "some/vit", "pretrained": False})
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SbiDaError, match=r"pip install 'sbi-da\[backbones\]'"):
        image_encoder("resnet18", 3, 64, {"pretrained": False})


def test_images_of_another_size_than_the_backbone_wants_are_resampled_on_request():
    pytest.importorskip("transformers")
    vit = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
           "intermediate_size": 8}
    options = {"model": "a vit", "pretrained": False, "architecture": vit, "trainable_stages": 1}
    with pytest.raises(ConfigError, match="a vit: cannot take images of 48 pixels.*give `resize`"):
        image_encoder("huggingface", 3, 48, options)
    assert image_encoder("huggingface", 3, 48, options | {"resize": 32})(torch.randn(2, 3, 48, 48)).shape == (2, 8)
    with pytest.raises(ConfigError, match="no model_type 'vitt'"):
        image_encoder("huggingface", 3, 32, {"pretrained": False, "architecture": {"model_type": "vitt"}})


def test_an_artefact_keeps_an_encoder_that_needs_no_hub():
    encoder = image_encoder("compact", 3, 32, {"activation": "relu"})
    assert portable(encoder, "compact", {"activation": "relu"}) == (encoder, "compact", {"activation": "relu"})
    pytest.importorskip("transformers")
    kept, kind, options = portable(make("huggingface", 2), "huggingface", SMALL["huggingface"])
    assert kind == "huggingface" and options["pretrained"] is False and options["architecture"]["hidden_sizes"] == [8, 8, 16, 16]
    image_encoder(kind, 2, 32, options).load_state_dict(kept.state_dict())


@pytest.mark.parametrize(("options", "message"), [({"group": "Q8"}, "such as C8 or D4"), ({"width": 0}, "width")])
def test_groups_that_are_none_are_refused(options, message):
    for kind in ("steerable", "plain_steerable"):
        with pytest.raises(ConfigError, match=message):
            image_encoder(kind, 3, 32, options)


def test_without_escnn_the_environment_it_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "escnn", None)
    monkeypatch.setitem(sys.modules, "escnn.gspaces", None)
    with pytest.raises(SbiDaError, match=r"constraints-equivariant.txt 'sbi-da\[equivariant\]'"):
        image_encoder("steerable", 3, 64)
