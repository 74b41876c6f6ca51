"""reading.read's resizing as an ONNX graph, to the same pixels, whatever the picture's size.

Pillow's antialiased bilinear: a pixel is the mean of those that a triangle about its centre covers,
by weights in units of 2^-22, rounded to a grey level; along the lines, then along the columns.
ONNX has an antialiased Resize, whose weights come from float32 coordinates: of a thousand pixels
one is a grey level off, which moved scores by 0.6 %, and other runtimes than onnxruntime leave the
antialiasing out. Here weights come from the picture's size in float64, in which the sums are exact.
"""
from __future__ import annotations

import typing

if typing.TYPE_CHECKING:  # an extra
    import onnx

MODEL = """
<ir_version: %d, opset_import: ["" : %d, "adlib" : 1]>
resize (uint8[1,channels,height,width] picture) => (uint8[1,3,%d,%d] resized)
<int64 side = {%d}, int64[1] rows = {0}, int64[1] columns = {1}, int64[4] colours = {1,3,1,1}> {
    lines = Shape<start = 2, end = 3>(picture)
    line = Shape<start = 3>(picture)
    weights_across = adlib.weights(line, side, rows, columns)
    weights_down = adlib.weights(lines, side, columns, rows)
    levels = Cast<to = 11>(picture)
    sums_across = MatMul(levels, weights_across)
    across = adlib.rounded(sums_across)
    sums_down = MatMul(weights_down, across)
    down = adlib.rounded(sums_down)
    bytes = Cast<to = 2>(down)
    resized = Expand(bytes, colours)
}

<domain: "adlib", opset_import: ["" : %d]>
weights (length, side, along, other) => (weights) {
    zero = Constant<value = double {0}>()
    half = Constant<value = double {0.5}>()
    one = Constant<value = double {1}>()
    unit = Constant<value = double {4194304}>()
    count = Squeeze(length)
    given = Cast<to = 11>(count)
    asked = Cast<to = 11>(side)
    scale = Div(given, asked)
    reach = Max(scale, one)
    places = Range(zero, given, one)
    numbers = Range(zero, asked, one)
    middles = Add(numbers, half)
    centres = Mul(middles, scale)
    each_place = Unsqueeze(places, other)
    each_centre = Unsqueeze(centres, along)
    apart = Sub(each_place, each_centre)
    offsets = Add(apart, half)
    narrowed = Div(offsets, reach)
    distances = Abs(narrowed)
    heights = Sub(one, distances)
    triangles = Max(heights, zero)
    totals = ReduceSum(triangles, along)
    shares = Div(triangles, totals)
    units = Mul(shares, unit)
    raised = Add(units, half)
    weights = Floor(raised)
}

<domain: "adlib", opset_import: ["" : %d]>
rounded (sums) => (levels) {
    half = Constant<value = double {0.5}>()
    unit = Constant<value = double {4194304}>()
    means = Div(sums, unit)
    raised = Add(means, half)
    levels = Floor(raised)
}"""


def model(size: int, ir_version: int, opset: int) -> onnx.ModelProto:
    """`picture`, uint8 [1,3,H,W] RGB or [1,1,H,W] grey, -> `resized`, uint8 [1,3,size,size]."""
    import onnx

    resize = onnx.parser.parse_model(MODEL % (ir_version, opset, size, size, size, opset, opset))
    resize.graph.node[-1].name = "a picture has 1 or 3 channels"  # what its error says
    return resize
