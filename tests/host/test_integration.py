"""The eight checks of anomalib's integration suite, for every model that we register."""

from functools import partial

import numpy as np
import pytest
import torch
from anomalib.data import PredictDataset
from anomalib.deploy import ExportType, OpenVINOInferencer, TorchInferencer
from anomalib.models import AnomalibModule, get_model
from helpers import make_parts
from PIL import Image
from torchvision.transforms.v2.functional import to_dtype, to_image

from anomalib_lamp import models

SMALL = {"image_size": 64, "max_steps": 10, "seed": 0}
SMALL_LAMP_AE = {**SMALL, "width": 4, "depth": 3}
VARIANTS = {  # of every registered model: at least one; a model without fails below
    "LampAE": {
        "autoencoder": {
            **SMALL_LAMP_AE,
            "targets": "pixels",
            "architecture": "autoencoder",
            "base_loss": "l2",
            "corruption_strength": 0.0,
        },
        "unet": {**SMALL_LAMP_AE, "base_loss": "ssim", "map_metric": "l1", "calibration": "location"},
        "unet-without-skips": {
            **SMALL_LAMP_AE,
            "targets": "pixels",
            "skip_connections": False,
            "map_metric": "ssim",
            "calibration": "none",
            "pooling": "topk",
        },
    },
    "FineTunedGaussian": {"resnet18": {**SMALL, "backbone": "resnet18", "weights": "random"}},
}
DEFAULTS = ["FineTunedGaussian"]  # also by bare name, with every default: at full size, hence slow
SLOW = [*DEFAULTS, "LampAE-unet-without-skips"]
REGISTERED = [model for model in AnomalibModule.__subclasses__() if model.__module__.startswith("anomalib_lamp.")]
MODELS = {
    f"{model.__name__}-{variant}": partial(get_model, model.__name__, **arguments)
    for model in REGISTERED
    for variant, arguments in VARIANTS[model.__name__].items()
} | {name: partial(get_model, name) for name in DEFAULTS}


def build(name):
    return MODELS[name]()


def test_the_registry_has_all_our_models():
    assert {model.__name__ for model in REGISTERED} == set(models.__all__) == set(VARIANTS)
    assert all(
        type(get_model(model.__name__, **next(iter(VARIANTS[model.__name__].values())))) in REGISTERED
        for model in REGISTERED
    )


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in MODELS]
)
def trained(request, parts_root, tmp_path_factory):
    """A model after fit and test, with its checkpoint, for every model."""
    from anomalib.engine import Engine

    folder = tmp_path_factory.mktemp("trained")
    engine = Engine(accelerator="cpu", devices=1, default_root_dir=folder, logger=False)
    model = build(request.param)
    engine.fit(model, datamodule=make_parts(parts_root))
    checkpoint = engine.trainer.checkpoint_callback.best_model_path
    return {"model": model, "checkpoint": checkpoint, "name": request.param, "folder": folder}


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """A photograph of 900 x 900 pixels: exported models have to resize it as training does."""
    path = tmp_path_factory.mktemp("photographs") / "part.png"
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)).resize(
        (900, 900), Image.Resampling.BICUBIC
    )
    fine = np.clip(np.asarray(coarse, dtype=float) + rng.normal(0, 20, (900, 900, 3)), 0, 255)
    Image.fromarray(fine.astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def expected(trained, photograph):
    """What the Engine predicts for the photograph, from the checkpoint."""
    from anomalib.engine import Engine

    engine = Engine(accelerator="cpu", devices=1, default_root_dir=trained["folder"], logger=False)
    model = build(trained["name"])
    dataset = PredictDataset(photograph)
    return engine.predict(model, dataset=dataset, ckpt_path=trained["checkpoint"], return_predictions=True)[0]


class TestEngine:
    def test_test_from_checkpoint(self, trained, make_engine, parts):
        metrics = make_engine().test(build(trained["name"]), datamodule=parts, ckpt_path=trained["checkpoint"])
        assert set(metrics[0]) == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}

    def test_train(self, trained, make_engine, parts):
        model = build(trained["name"])
        metrics = make_engine().train(model, datamodule=parts)[0]
        assert metrics == pytest.approx(make_engine().test(model, datamodule=parts)[0])

    def test_validate(self, trained, make_engine, parts):
        model = build(trained["name"])
        make_engine().validate(model, datamodule=parts, ckpt_path=trained["checkpoint"])
        assert torch.isfinite(model.post_processor.image_threshold)

    def test_predict_a_datamodule(self, trained, make_engine, parts):
        model = build(trained["name"])
        batches = make_engine().predict(model, datamodule=parts, ckpt_path=trained["checkpoint"])
        assert sum(len(batch) for batch in batches) == 8

    def test_predict_a_folder_of_images(self, trained, make_engine, parts_root, tmp_path):
        folder = parts_root / "washer" / "test" / "scratch"
        model = build(trained["name"])
        batches = make_engine().predict(model, data_path=folder, ckpt_path=trained["checkpoint"])
        assert all(0 <= batch.pred_score.min() <= batch.pred_score.max() <= 1 for batch in batches)
        assert len(list(tmp_path.rglob("images/**/*.png"))) == len(list(folder.glob("*.png")))


class TestExportEqualsTraining:
    """Scores, maps and labels of an export are the Engine's, on an image of another size than the model's."""

    def check(self, expected, score, anomaly_map, label):
        score, anomaly_map, label = (torch.as_tensor(value).detach().squeeze() for value in (score, anomaly_map, label))
        torch.testing.assert_close(score, expected.pred_score.squeeze(), atol=1e-4, rtol=0)
        torch.testing.assert_close(anomaly_map, expected.anomaly_map.squeeze(), atol=1e-4, rtol=0)
        assert label.bool() == expected.pred_label.squeeze()

    def test_torch(self, trained, make_engine, tmp_path, photograph, expected, monkeypatch):
        path = make_engine().export(build(trained["name"]), ExportType.TORCH, tmp_path, ckpt_path=trained["checkpoint"])
        monkeypatch.setenv("TRUST_REMOTE_CODE", "1")
        result = TorchInferencer(path, device="cpu").predict(photograph)
        self.check(expected, result.pred_score, result.anomaly_map, result.pred_label)

    def test_onnx(self, trained, make_engine, tmp_path, photograph, expected):
        onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra anomalib-lamp[onnx]")
        path = make_engine().export(
            build(trained["name"]),
            ExportType.ONNX,
            tmp_path,
            ckpt_path=trained["checkpoint"],
        )
        session = onnxruntime.InferenceSession(path)
        image = to_dtype(to_image(Image.open(photograph)), torch.float32, scale=True)[None].numpy()
        names = [output.name for output in session.get_outputs()]
        result = dict(zip(names, session.run(None, {"input": image}), strict=True))
        self.check(expected, result["pred_score"], result["anomaly_map"], result["pred_label"])

    def test_openvino(self, trained, make_engine, tmp_path, photograph, expected, monkeypatch):
        pytest.importorskip("openvino", reason="needs the extra anomalib-lamp[openvino]")
        monkeypatch.chdir(tmp_path)  # anomalib's inferencer leaves its cache in the working directory
        path = make_engine().export(
            build(trained["name"]),
            ExportType.OPENVINO,
            tmp_path,
            ckpt_path=trained["checkpoint"],
        )
        inferencer = OpenVINOInferencer(path, config={"INFERENCE_PRECISION_HINT": "f32"})
        result = inferencer.predict(photograph)
        self.check(expected, result.pred_score, result.anomaly_map, result.pred_label)


@pytest.mark.parametrize("name", ["LampAE-unet", "FineTunedGaussian-resnet18"])
def test_trains_under_bfloat16(make_engine, parts, name):
    """--trainer.precision bf16-mixed trains; on the CPU with AMX it is the fast way."""
    model = build(name)
    make_engine(precision="bf16-mixed").fit(model, datamodule=parts)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
