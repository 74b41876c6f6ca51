"""The resizing inside an exported run: reading.read's pixels, of any size, to the grey level."""
import numpy as np
import pytest
from PIL import Image

from adlib.data import reading

onnx = pytest.importorskip("onnx", reason="needs the extra: pip install -e '.[onnx]'")
ort = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[onnx]'")
from adlib.runs import onnx_resize  # noqa: E402

SIZES = [(64, 64), (128, 128), (300, 300), (512, 522), (37, 91), (1, 500), (500, 1), (1, 1),
         (700, 100), (100, 700), (63, 65), (1000, 1333), (9, 4000), (32, 640)]


def session(size):
    model = onnx_resize.model(size, 10)
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize("size", [32, 64, 256])
def test_every_pixel_is_the_one_that_decode_gives(tmp_path, size):
    resize, rng = session(size), np.random.default_rng(0)
    for height, width in SIZES:
        for pixels in (rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
                       rng.integers(0, 2, (height, width), dtype=np.uint8) * 255,
                       np.full((height, width), 255, np.uint8)):
            Image.fromarray(pixels).save(tmp_path / "a.png")
            given = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
            (resized, ) = resize.run(None, {"picture": given[None]})
            assert (resized[0] == reading.read(tmp_path / "a.png", size)).all(), (height, width)


def test_a_resize_as_torch_exports_it_is_another_one(tmp_path):
    """Why there is a graph of our own (pytorch/pytorch, issue 183546): it weighs pixels beyond the
    border."""
    plain = ort.InferenceSession(onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        resize (uint8[1,3,height,width] picture) => (uint8[1,3,64,64] resized)
        <int64[4] square = {1,3,64,64}> {
            resized = Resize<mode = "linear", antialias = 1>(picture, , , square)
        }""").SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given, decoded = pixels.transpose(2, 0, 1)[None], reading.read(tmp_path / "a.png", 64)
    apart = np.abs(plain.run(None, {"picture": given})[0][0].astype(int) - decoded)
    assert apart.max() > 1 and (session(64).run(None, {"picture": given})[0][0] == decoded).all()


@pytest.mark.parametrize("channels", [2, 4])
def test_other_than_grey_and_rgb_is_an_error_that_says_so(channels):
    with pytest.raises(Exception, match="a picture has 1 or 3 channels"):
        session(64).run(None, {"picture": np.zeros((1, channels, 70, 80), np.uint8)})
