"""Convolutions of 3x3 with a fourth of the multiplications, by Winograd's algorithm F(4x4, 3x3).

Source: A. Lavin and S. Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016.

The output is cut into tiles of 4x4. Each tile needs 6x6 pixels of the input. A linear map turns these into 36 numbers.
The layer is then 36 matrix products, one per number, instead of 144 per tile. A second linear map gives the tile.

The maps follow from the points at which the underlying polynomials are evaluated. The points used here are inverses of
each other and close to one, so that all numbers have a similar size. In float32 the error of a layer has twice the
standard deviation of oneDNN's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, fx, nn

from ..operations import aten, conv_geometry, n_groups, operand

POINTS = (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
TILE, WIDTH = 4, 6
"""Side of a tile of the output, and of the input that it needs."""

MIN_CHANNELS = 128
"""With fewer input or output channels, moving the mapped numbers costs more time than the kernel saves."""

CHUNK_BYTES = 8_000_000
"""Size of the mapped input of the images that are computed together, so that it stays in the processor's cache."""


class Winograd(nn.Module):
    """A 3x3 convolution with a stride and a padding of 1.

    Arguments:
        weight: [output channels, input channels, 3, 3].
        bias: [output channels] or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        to_input, to_weight, to_output = _maps()
        mapped = torch.einsum("ia,jb,koab->ijok", to_weight, to_weight, weight.double())
        self.weight = nn.Buffer(mapped.reshape(WIDTH**2, *mapped.shape[2:]).to(weight.dtype).contiguous())
        self.bias = nn.Buffer(torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias)
        self.to_input = nn.Buffer(torch.kron(to_input, to_input).to(weight.dtype))
        self.to_output = nn.Buffer(torch.kron(to_output, to_output).to(weight.dtype))

    def forward(self, x: Tensor, other: Tensor | None = None, *, relu: bool = False) -> Tensor:
        """The layer's output [images, output channels, height, width], in channels-last memory.

        Arguments:
            x: [images, input channels, height, width].
            other: a value of the output's shape to add to it.
            relu: whether a relu follows.
        """
        n, _, height, width = x.shape
        _, inputs, outputs = self.weight.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        result = x.new_empty(n, height, width, outputs)
        x = x.permute(0, 2, 3, 1)
        tile_bytes = WIDTH**2 * inputs * x.element_size()
        size = max(1, CHUNK_BYTES // (rows * columns * tile_bytes))
        for start in range(0, n, size):
            here, part = slice(start, start + size), x[start : start + size]
            padded = F.pad(part, (0, 0, 1, columns * TILE - width + 1, 1, rows * TILE - height + 1))
            windows = padded.unfold(1, WIDTH, TILE).unfold(2, WIDTH, TILE).permute(4, 5, 0, 1, 2, 3)
            mapped = self.to_input @ windows.reshape(WIDTH**2, -1)
            products = mapped.view(WIDTH**2, -1, inputs) @ self.weight
            tiles = (self.to_output @ products.view(WIDTH**2, -1)).view(TILE, TILE, -1, rows, columns, outputs)
            tiles = tiles.permute(2, 3, 0, 4, 1, 5)
            if (rows * TILE, columns * TILE) == (height, width):
                torch.add(tiles, self.bias, out=result[here].view(tiles.shape))
            else:
                images = tiles.reshape(-1, rows * TILE, columns * TILE, outputs)
                torch.add(images[:, :height, :width], self.bias, out=result[here])
            finished = result[here]
            if other is not None:
                finished += other[here].permute(0, 2, 3, 1)
            if relu:
                finished.relu_()
        return result.permute(0, 3, 1, 2)


def winograd_layers(operations: Iterable[fx.Node], constants: Mapping[fx.Node, Tensor]) -> dict[fx.Node, Winograd]:
    """The convolutions that this kernel makes faster, by operation.

    These are wide 3x3 convolutions in float32 on a CPU, where multiplications take most of the time.

    Arguments:
        operations: of a program, in order.
        constants: the constants' values, as the program runs them.
    """
    return {
        node: Winograd(constants[operand(node, 1)], constants.get(operand(node, 2)))
        for node in operations
        if node.target is aten.conv2d.default and operand(node, 1) in constants and _pays(node, constants)
    }


def _pays(conv: fx.Node, constants: Mapping[fx.Node, Tensor]) -> bool:
    weight = constants[operand(conv, 1)]
    if weight.shape[2:] != (3, 3) or weight.dtype != torch.float32 or weight.device.type != "cpu":
        return False
    is_plain = conv_geometry(conv) == ((1, 1), (1, 1), (1, 1)) and n_groups(conv) == 1
    height, width = conv.meta["val"].shape[2:]
    tiles = -(-height // TILE) * -(-width // TILE)
    return is_plain and min(weight.shape[:2]) >= MIN_CHANNELS and 2 * tiles * WIDTH**2 <= 9 * height * width


def _maps() -> tuple[Tensor, Tensor, Tensor]:
    """The maps of the input [6, 6], the weight [6, 3] and the output [4, 6] along one axis.

    This is the construction of Toom and Cook, with `POINTS` and infinity.
    """
    points = np.array(POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    size = np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)])
    to_input = np.zeros((WIDTH, WIDTH))
    for i, rest in enumerate(others):
        to_input[i, : len(points)] = polyfromroots(rest)
    to_input[-1] = polyfromroots(points)
    to_weight = np.vstack([np.vander(points, 3, increasing=True) / size[:, None], [0, 0, 1]])
    to_output = np.vander(points, TILE, increasing=True).T
    to_output = np.hstack([to_output, np.eye(TILE)[:, -1:]])
    return torch.from_numpy(to_input), torch.from_numpy(to_weight), torch.from_numpy(to_output)
