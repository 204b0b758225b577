"""The backbone and its weights, against timm."""

import copy

import pytest
import timm
import torch
from safetensors.torch import save_file

from anomalib_lamp import backbone
from anomalib_lamp.backbone import Backbone
from anomalib_lamp.packaged_weights import load_packaged_weights

LAYERS = ["act1", "layer1"]


class TestBackbone:
    def test_levels_of_the_default_are_stem_stages_and_head(self):
        levels = Backbone()(torch.rand(1, 3, 64, 64))
        assert [maps.shape[1] for maps in levels] == [32, 16, 24, 40, 80, 112, 192, 320, 1280]
        assert [64 // maps.shape[2] for maps in levels] == [2, 2, 4, 8, 16, 16, 32, 32, 32]

    def test_levels_of_efficientnet_are_stem_stages_and_head(self):
        levels = Backbone("efficientnet_b0")(torch.rand(1, 3, 32, 32))
        assert [maps.shape[1] for maps in levels] == [32, 16, 24, 40, 80, 112, 192, 320, 1280]

    def test_levels_of_other_networks_are_timms(self):
        assert Backbone("resnet18").layers == ["act1", "layer1", "layer2", "layer3", "layer4"]

    def test_features_are_timms_of_the_normalised_image(self):
        network = timm.create_model("resnet18", features_only=True, out_indices=[2]).eval()
        ours = Backbone("resnet18", ["layer2"])
        ours.network.load_state_dict(network.state_dict(), strict=False)
        image = torch.rand(1, 3, 64, 64)
        mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        torch.testing.assert_close(ours(image)[0], network((image - mean) / deviation)[0])

    @pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnet_b0"])
    def test_images_are_normalised_as_timm_was_trained(self, name):
        config, ours = timm.get_pretrained_cfg(name), Backbone(name, ["blocks.0"])
        assert ours.image_mean.flatten().tolist() == pytest.approx(config.mean)
        assert ours.image_deviation.flatten().tolist() == pytest.approx(config.std)
        assert (config.mean == config.std == (0.5, 0.5, 0.5)) == (name == "tf_efficientnet_lite0")

    def test_nothing_beyond_the_last_layer_is_kept_or_computed(self):
        ours = Backbone(layers=["blocks.1", "blocks.2", "blocks.4"])
        maps = ours(torch.rand(1, 3, 64, 64))
        assert [tuple(m.shape[1:]) for m in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
        whole = timm.create_model("tf_efficientnet_lite0")
        needed = {
            key: value.shape
            for key, value in whole.state_dict().items()
            if not key.startswith(("blocks.5", "blocks.6", "conv_head", "bn2", "classifier"))
        }
        assert {key: value.shape for key, value in ours.network.state_dict().items()} == needed
        called = [node.target for node in ours.network.graph.nodes if node.op == "call_module"]
        assert called[-1].startswith("blocks.4.2")
        assert not [name for name in called if name.startswith(("blocks.5", "blocks.6", "conv_head"))]

    @pytest.mark.parametrize("copied", [False, True])
    def test_batch_norm_never_learns_its_statistics(self, copied):
        ours = Backbone("resnet18", LAYERS)
        ours = copy.deepcopy(ours).train() if copied else ours.train()
        before = copy.deepcopy(ours.state_dict())
        ours(torch.rand(4, 3, 32, 32))
        assert not any(module.training for module in ours.modules())
        assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())

    def test_half_precision_does_not_reach_the_features(self):
        ours, images = Backbone("resnet18", LAYERS), torch.rand(1, 3, 32, 32)
        with torch.autocast("cpu", torch.bfloat16):
            levels = ours(images)
        assert all(torch.equal(a, b) for a, b in zip(levels, ours(images), strict=True))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("resnet17",), r"name of a timm network, got 'resnet17'. See timm.list_models"),
            (("resnet18", ["layer9"]), r"layers of 'resnet18' among \['conv1', .*'layer4.*got \['layer9'\]"),
        ],
    )
    def test_rejects_unknown_names(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            Backbone(*arguments)


@pytest.fixture(scope="module")
def donor():
    """Weights of a network, as a file holds them."""
    torch.manual_seed(7)
    return timm.create_model("resnet18").state_dict()


class TestWeights:
    def test_the_default_takes_the_packaged_weights(self):
        ours, network = Backbone(layers=["blocks.2"]), timm.create_model("tf_efficientnet_lite0", features_only=True)
        ours.load_weights("packaged")
        network.load_state_dict(load_packaged_weights(), strict=False)
        image = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(ours(image)[0], network.eval()((image - 0.5) / 0.5)[2], rtol=1e-4, atol=1e-4)

    def test_packaged_weights_of_another_network_are_refused_with_the_ways_out(self):
        with pytest.raises(
            ValueError, match=r"'tf_efficientnet_lite0' with .*'packaged', got 'resnet18'. Set weights to"
        ):
            Backbone("resnet18", LAYERS).load_weights("packaged")

    @pytest.mark.usefixtures("no_network")
    def test_a_network_that_brings_its_weights_along_needs_no_hub(self):
        ours = Backbone("efficientnet_lite0_packaged", ["blocks.1"])
        ours.load_weights("timm")
        assert torch.equal(ours.network.conv_stem.weight, load_packaged_weights()["conv_stem.weight"])

    def test_random_weights_stay_as_they_were_drawn(self):
        ours = Backbone("resnet18", LAYERS)
        before = copy.deepcopy(ours.state_dict())
        ours.load_weights("random")
        assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())

    @pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "wrapped.pth"])
    def test_loads_a_file(self, donor, tmp_path, name):
        path = tmp_path / name
        if name.endswith("safetensors"):
            save_file(donor, path)
        else:
            torch.save({"state_dict": donor} if "wrapped" in name else donor, path)
        ours = Backbone("resnet18")
        ours.load_weights(path)
        assert all(torch.equal(value, donor[key]) for key, value in ours.network.state_dict().items())

    def test_old_files_without_counters_of_batches_load(self, donor, tmp_path):
        torch.save({k: v for k, v in donor.items() if not k.endswith("num_batches_tracked")}, tmp_path / "old.pth")
        Backbone("resnet18").load_weights(tmp_path / "old.pth")

    def test_names_file_keys_and_remedy_if_the_network_is_another(self, donor, tmp_path):
        path = tmp_path / "weights.safetensors"
        save_file(donor, path)
        ours = Backbone("efficientnet_b0", ["blocks.0"])
        with pytest.raises(ValueError, match="does not hold weights of 'efficientnet_b0'") as error:
            ours.load_weights(path)
        for part in (str(path), "conv_stem.weight (32, 3, 3, 3)", "the file begins with", "(backbone)"):
            assert part in str(error.value)

    def test_a_shape_that_differs_is_a_mismatch(self, donor, tmp_path):
        save_file({**donor, "conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.safetensors")
        with pytest.raises(ValueError, match=r"1 of \d+ tensors .* Expected conv1.weight \(64, 3, 7, 7\)"):
            Backbone("resnet18").load_weights(tmp_path / "grey.safetensors")

    @pytest.mark.parametrize("name", ["notes.pth", "notes.safetensors"])
    def test_a_file_of_something_else_is_rejected(self, tmp_path, name):
        (tmp_path / name).write_text("not weights")
        with pytest.raises(ValueError, match=rf"{name} to hold a state dictionary"):
            Backbone("resnet18", LAYERS).load_weights(tmp_path / name)

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"'packaged', 'timm', 'random' or a file, got '.*absent\.pth'"):
            Backbone("resnet18", LAYERS).load_weights(tmp_path / "absent.pth")

    def test_an_unreachable_hub_is_asked_once_and_names_the_ways_out(self, monkeypatch):
        class NoNetwork:
            def head(self, *_, **__):
                msg = "[Errno -2] Name or service not known"
                raise OSError(msg)

        ours = Backbone("resnet18", LAYERS)
        monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda *_: None)
        monkeypatch.setattr(backbone, "get_session", NoNetwork)
        monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("timm would retry"))
        with pytest.raises(ConnectionError, match=r"could not be downloaded .*Name or service not known") as error:
            ours.load_weights("timm")
        for way_out in (".safetensors or .pth", "'random'", "'packaged'"):
            assert way_out in str(error.value)
        assert error.value.__suppress_context__

    def test_the_hubs_weights_are_taken(self, donor, monkeypatch):
        network = timm.create_model("resnet18", num_classes=0)
        network.load_state_dict(donor, strict=False)
        ours = Backbone("resnet18", LAYERS)
        monkeypatch.setattr(backbone, "try_to_load_from_cache", lambda *_: "model.safetensors")
        monkeypatch.setattr(timm, "create_model", lambda *_, pretrained, **__: network if pretrained else None)
        ours.load_weights("timm")
        assert torch.equal(ours.network.conv1.weight, donor["conv1.weight"])
