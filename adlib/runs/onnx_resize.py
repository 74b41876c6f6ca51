"""images.decode's resizing as an ONNX graph, to the same pixels, whatever the picture's size.

Pillow's antialiased bilinear: each pixel is a weighted mean of those that a triangle about its
centre covers, weights in units of 2^-22, sums rounded to a grey level, along the lines and then
along the columns. ONNX has a Resize with `antialias`, whose weights come from float32 coordinates:
one pixel in a thousand is a grey level off, which moved scores by up to 0.6 %. Here the weights are
computed in float64 from the picture's size, and the sums are integers: a weight is 65536 a + 256 b
+ c, a product of bytes each. (Bytes without a sign: with one, processors without VNNI saturate.)
"""
from __future__ import annotations

import typing

if typing.TYPE_CHECKING:  # an extra
    import onnx

MODEL = """
<ir_version: %d, opset_import: ["" : %d, "adlib" : 1]>
resize (uint8[1,channels,height,width] picture) => (uint8[1,3,%d,%d] resized)
<int64 side = {%d}, int64[4] colours = {1,3,1,1}> {
    across = adlib.resample(picture, side)
    turned = Transpose<perm = [0,1,3,2]>(across)
    down = adlib.resample(turned, side)
    square = Transpose<perm = [0,1,3,2]>(down)
    resized = Expand(square, colours)
}

<domain: "adlib", opset_import: ["" : %d]>
resample (lines, side) => (resampled) {
    zero = Constant<value = double {0}>()
    half = Constant<value = double {0.5}>()
    one = Constant<value = double {1}>()
    shape = Shape<start = -1>(lines)
    length = Squeeze(shape)
    given = Cast<to = 11>(length)
    asked = Cast<to = 11>(side)
    scale = Div(given, asked)
    reach = Max(scale, one)

    numbers = Range(zero, asked, one)
    middles = Add(numbers, half)
    centres = Mul(middles, scale)
    places = Range(zero, given, one)
    axis = Constant<value = int64[1] {1}>()
    column = Unsqueeze(places, axis)
    apart = Sub(column, centres)
    pixels = Add(apart, half)
    slope = Div(one, reach)
    offsets = Mul(pixels, slope)
    distances = Abs(offsets)
    inside = Sub(one, distances)
    triangle = Max(inside, zero)
    first = Constant<value = int64[1] {0}>()
    total = ReduceSum(triangle, first)
    shares = Div(triangle, total)
    unit = Constant<value = double {4194304}>()
    units = Mul(shares, unit)
    rounded = Add(units, half)
    weights = Cast<to = 6>(rounded)

    byte = Constant<value = int32 {256}>()
    upper = Div(weights, byte)
    a = Div(upper, byte)
    b = Mod(upper, byte)
    c = Mod(weights, byte)
    a_byte = Cast<to = 2>(a)
    b_byte = Cast<to = 2>(b)
    c_byte = Cast<to = 2>(c)
    a_sum = MatMulInteger(lines, a_byte)
    b_sum = MatMulInteger(lines, b_byte)
    c_sum = MatMulInteger(lines, c_byte)
    a_shifted = Mul(a_sum, byte)
    upper_sum = Add(a_shifted, b_sum)
    upper_shifted = Mul(upper_sum, byte)
    sum = Add(upper_shifted, c_sum)
    half_unit = Constant<value = int32 {2097152}>()
    whole_unit = Constant<value = int32 {4194304}>()
    raised = Add(sum, half_unit)
    levels = Div(raised, whole_unit)
    resampled = Cast<to = 2>(levels)
}"""


def model(size: int, ir_version: int, opset: int) -> onnx.ModelProto:
    """`picture`, uint8 [1,3,H,W] RGB or [1,1,H,W] grey, -> `resized`, uint8 [1,3,size,size]."""
    import onnx

    resize = onnx.parser.parse_model(MODEL % (ir_version, opset, size, size, size, opset))
    resize.graph.node[-1].name = "a picture has 1 or 3 channels"  # what its error says
    return resize
