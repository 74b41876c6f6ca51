"""reading.read's resizing as an ONNX graph, to the same pixels, whatever the picture's size.

Pillow's antialiased bilinear: a pixel is the mean of those that a triangle about its centre covers,
by weights in units of 2^-22, rounded to a grey level; along the lines, then along the columns.
ONNX has an antialiased Resize, whose weights come from float32 coordinates: of a thousand pixels
one is a grey level off, which moved scores by 0.6%, and other runtimes than onnxruntime leave the
antialiasing out. Here weights come from the picture's size in float64, in which the sums are exact.
"""
from __future__ import annotations

import typing

if typing.TYPE_CHECKING:  # an extra
    import onnx

UNIT = float(2**22)  # of weights


def model(size: int, ir_version: int) -> onnx.ModelProto:
    """`picture`, uint8 [1,3,H,W] RGB or [1,1,H,W] grey, -> `resized`, uint8 [1,3,size,size]."""
    import onnxscript
    from onnxscript import opset18 as op

    own, float64, uint8 = onnxscript.values.Opset("adlib", 1), 11, 2  # as ONNX numbers its types
    asked = float(size)

    # What follows is no Python that is run: onnxscript makes a graph of its source.
    @onnxscript.script(own, default_opset=op)
    def weights(length, along, other):
        given = op.Cast(op.Squeeze(length), to=float64)
        zero, one = op.CastLike(0.0, given), op.CastLike(1.0, given)
        scale = given / asked
        places = op.Unsqueeze(op.Range(zero, given, one), other)
        middles = op.Range(zero, op.CastLike(asked, given), one) + 0.5
        offsets = places - op.Unsqueeze(middles * scale, along) + 0.5
        triangles = op.Max(1.0 - op.Abs(offsets / op.Max(scale, one)), zero)
        return op.Floor(triangles / op.ReduceSum(triangles, along) * UNIT + 0.5)

    @onnxscript.script(own, default_opset=op)
    def rounded(sums):
        return op.Floor(sums / UNIT + 0.5)

    @onnxscript.script(own, default_opset=op)
    def resize(picture):
        rows, columns = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
        levels = op.Cast(picture, to=float64)
        across = rounded(op.MatMul(levels, weights(op.Shape(picture, start=3), rows, columns)))
        down = rounded(op.MatMul(weights(op.Shape(picture, start=2, end=3), columns, rows), across))
        resized = op.Expand(op.Cast(down, to=uint8), op.Constant(value_ints=[1, 3, 1, 1]))
        return resized

    made = resize.to_model_proto(
        input_types=[onnxscript.UINT8[1, "channels", "height", "width"]],
        output_types=[onnxscript.UINT8[1, 3, size, size]], ir_version=ir_version)
    made.graph.node[-1].name = "a picture has 1 or 3 channels"  # what its error says
    return made
