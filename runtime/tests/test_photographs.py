"""Reading photographs: what is refused, and why; brightness and sharpness."""

import struct
import zlib

import numpy as np
import pytest
from anomalib_lamp_runtime import InspectionError
from anomalib_lamp_runtime.photographs import as_input, measure, photographs_in, read_photograph
from PIL import Image, ImageFilter
from scipy import ndimage

GENERATOR = np.random.default_rng(0)


def noise(height=40, width=60):
    return Image.fromarray(GENERATOR.integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_header(width, height):
    """Return a PNG file that says its size and has no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


def test_the_input_of_a_model_has_the_channels_first_and_ends_at_one():
    array = GENERATOR.integers(0, 256, (3, 5, 3), dtype=np.uint8)
    images = as_input(read_photograph(array))
    assert (images.shape, images.dtype, images.flags["C_CONTIGUOUS"]) == ((1, 3, 3, 5), np.float32, True)
    for row in range(3):
        for column in range(5):
            np.testing.assert_allclose(images[0, :, row, column], array[row, column] / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "UnidentifiedImageError", id="empty"),
        pytest.param(b"no photograph", "UnidentifiedImageError", id="text"),
        pytest.param(png_header(50_000, 50_000), "1 to 50,000,000 pixels", id="50,000 x 50,000"),
        pytest.param(png_header(9_000, 9_000), "got 9000 x 9000", id="9,000 x 9,000"),
        pytest.param(png_header(60, 40), "cannot be decoded", id="only a header"),
    ],
)
def test_files_that_are_no_photograph_are_refused(tmp_path, content, reason):
    (tmp_path / "part.png").write_bytes(content)
    with pytest.raises(InspectionError, match=rf"Expected .*{reason}") as error:
        read_photograph(tmp_path / "part.png")
    assert "part.png" in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"part.{suffix}"
    noise().save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InspectionError, match=f"part.{suffix}"):
        read_photograph(path)


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(InspectionError, match="FileNotFoundError"):
        read_photograph(tmp_path / "part.png")
    with pytest.raises(InspectionError, match="IsADirectoryError"):
        read_photograph(tmp_path)


@pytest.mark.parametrize(
    "photograph",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), 7],
    ids=["grey", "four channels", "float", "no rows", "a number"],
)
def test_other_arrays_and_objects_are_refused(photograph):
    with pytest.raises(InspectionError, match=r"Expected .*\(H, W, 3\) of uint8"):
        read_photograph(photograph)


def test_a_large_photograph_is_read_if_allowed():
    with pytest.raises(InspectionError, match="1 to 2,399 pixels, got 60 x 40"):
        read_photograph(noise(), max_pixels=2399)
    assert read_photograph(noise(), max_pixels=2400).size == (60, 40)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_warning_tells_that_values_are_cut_off(caplog, dtype):
    grey = GENERATOR.integers(0, 256, (9, 9)).astype(dtype)
    assert np.array_equal(np.asarray(read_photograph(Image.fromarray(grey)))[..., 1], grey.astype(np.uint8))
    assert not caplog.records
    grey[4, 4] = 300
    assert np.asarray(read_photograph(Image.fromarray(grey)))[4, 4].tolist() == [255] * 3
    assert "the score means nothing" in caplog.text


def test_brightness_and_sharpness_are_mean_and_laplacian_of_the_grey_values():
    image = noise()
    grey = np.asarray(image.convert("L"), dtype=float) / 255
    brightness, sharpness = measure(image)
    assert brightness == pytest.approx(grey.mean())
    assert sharpness == pytest.approx(ndimage.laplace(grey)[1:-1, 1:-1].std())


def test_blur_lowers_the_sharpness_and_light_the_brightness_also_of_large_photographs():
    image = Image.fromarray(GENERATOR.integers(0, 128, (300, 600, 3), dtype=np.uint8)).resize((3000, 1500))
    brightness, sharpness = measure(image)
    assert measure(image.filter(ImageFilter.GaussianBlur(20)))[1] < 0.7 * sharpness
    assert measure(image.point(lambda value: 2 * value))[0] == pytest.approx(2 * brightness, rel=0.01)


def test_photographs_are_found_by_their_endings(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.tiff", "notes.txt", "metadata.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in photographs_in(tmp_path)] == ["a.jpg", "b.PNG", "sub/c.tiff"]
    with pytest.raises(InspectionError, match="a photograph or a folder with some"):
        photographs_in(tmp_path / "nowhere")
