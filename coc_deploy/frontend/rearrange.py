"""Finding the canonical modules that rearrange a tensor as an exported program's views, slices and
transpositions together do."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from .modules import AsImage, Crop, Reshape, Select, Slice
from .value import Size


def modules(index: Tensor | None, source: Size, target: Size) -> list[tuple[nn.Module, Size]] | None:
    """Modules, each with the size behind it, that take [N, *source] to [N, *target].

    index: for every value of the target the position in the flattened source; None: in order. None as a
    result where no canonical modules do it.
    """
    if index is None or _in_order(index, source):
        return _reshaped(source, target)
    index = index.reshape(target)
    if len(source) == 3 and len(target) == 3:
        return _of_images(index, source)
    if len(source) == 1:
        chosen = index.flatten().tolist()
        size = (len(chosen),)
        return [(_slice(chosen) or Select(chosen), size), *_reshaped(size, target)]
    if len(target) == 1 and index.numel() % (source[1] * source[2]) == 0:
        found = _of_images(index.reshape(-1, *source[1:]), source)
        if found is not None:
            return [*found, (nn.Flatten(), target)]
    return None


def _in_order(index: Tensor, source: Size) -> bool:
    count = index.numel()
    return count == torch.Size(source).numel() and torch.equal(index.flatten(), torch.arange(count))


def _reshaped(source: Size, target: Size) -> list[tuple[nn.Module, Size]]:
    if source == target:
        return []
    if len(target) == 1:
        return [(nn.Flatten(), target)]
    if len(source) == 1 and target[1:] == (1, 1):
        return [(AsImage(), target)]
    return [(Reshape(target), target)]


def _of_images(index: Tensor, source: Size) -> list[tuple[nn.Module, Size]] | None:
    """A choice of channels, rows and columns, each independent of the others; or pixels into channels."""
    channels, height, width = source
    parts = (index // (height * width), index // width % height, index % width)
    lines = [part.movedim(axis, 0).flatten(1) for axis, part in enumerate(parts)]
    if not all(bool((line == line[:, :1]).all()) for line in lines):
        return _shuffled_pixels(index, source)
    chosen, rows, columns = ([int(number) for number in line[:, 0]] for line in lines)
    vertical, horizontal = _steps(rows), _steps(columns)
    if vertical is None or horizontal is None:
        return None
    size = source
    result: list[tuple[nn.Module, Size]] = []
    (top, down), (left, across) = vertical, horizontal
    # What pooling with a 1x1 window would take beyond the last row and column, cut off as well.
    bottom, right = height - (rows[-1] + 1), width - (columns[-1] + 1)
    if top or left or bottom >= down or right >= across:
        size = (channels, height - top - bottom, width - left - right)
        result.append((Crop(top, left, bottom, right), size))
    if (down, across) != (1, 1):
        size = (channels, len(rows), len(columns))
        step = down if down == across else (down, across)
        result.append((nn.MaxPool2d(1, step), size))
    if chosen != list(range(channels)):
        result.append((_choice(chosen, channels), (len(chosen), *size[1:])))
    return result


def _steps(lines: list[int]) -> tuple[int, int] | None:
    """(first, step) of rows or columns at equal distances, or None."""
    step = lines[1] - lines[0] if len(lines) > 1 else 1
    even = all(after - before == step for before, after in zip(lines, lines[1:], strict=False))
    return (lines[0], step) if even and step > 0 else None


def _slice(chosen: list[int]) -> Slice | None:
    first = chosen[0]
    return Slice(first, first + len(chosen)) if chosen == list(range(first, first + len(chosen))) else None


def _choice(chosen: list[int], channels: int) -> nn.Module:
    """The module that takes these channels."""
    part = _slice(chosen)
    if part is not None:
        return part
    if len(chosen) == channels:
        groups = next((n for n, channel in enumerate(chosen) if channel == 1), 0)
        if groups > 1 and channels % groups == 0:
            shuffled = torch.arange(channels).reshape(groups, -1).T.flatten()
            if shuffled.tolist() == chosen:
                return nn.ChannelShuffle(groups)
    return Select(chosen)


def _shuffled_pixels(index: Tensor, source: Size) -> list[tuple[nn.Module, Size]] | None:
    """Pixel shuffle of Shi et al. 2016, or its inverse, of channels in any order."""
    channels, height, width = source
    for factor in range(2, 9):
        if tuple(index.shape) == (channels // factor**2, height * factor, width * factor):
            return _shuffle(index, source, factor)
        if tuple(index.shape) == (channels * factor**2, height // factor, width // factor):
            return _unshuffle(index, source, factor)
    return None


def _shuffle(index: Tensor, source: Size, factor: int) -> list[tuple[nn.Module, Size]] | None:
    channels, height, width = source
    order = (index[:, :factor, :factor] // (height * width)).flatten()
    numbers = torch.arange(channels * height * width).reshape(source)
    if not torch.equal(functional.pixel_shuffle(numbers[order], factor), index):
        return None
    shuffle = (nn.PixelShuffle(factor), tuple(index.shape))
    in_order = torch.equal(order, torch.arange(channels))
    return [shuffle] if in_order else [(_choice(order.tolist(), channels), source), shuffle]


def _unshuffle(index: Tensor, source: Size, factor: int) -> list[tuple[nn.Module, Size]] | None:
    channels, height, width = source
    if height % factor or width % factor:
        return None
    numbers = torch.arange(channels * height * width).reshape(source)
    unshuffled, size = functional.pixel_unshuffle(numbers, factor), tuple(index.shape)
    first = {number: channel for channel, number in enumerate(unshuffled[:, 0, 0].tolist())}
    order = [first.get(number, -1) for number in index[:, 0, 0].tolist()]
    if -1 in order or not torch.equal(unshuffled[order], index):
        return None
    unshuffle = (nn.PixelUnshuffle(factor), size)
    in_order = order == list(range(len(order)))
    return [unshuffle] if in_order else [unshuffle, (_choice(order, len(order)), size)]


def subsampling(index: Tensor, source: Size) -> int | None:
    """s where the index takes every s-th row and column of an image, from the first, and all channels."""
    if len(source) != 3 or index.dim() != 3 or index.shape[0] != source[0]:
        return None
    step = -(-source[1] // max(index.shape[1], 1))
    numbers = torch.arange(torch.Size(source).numel()).reshape(source)
    for candidate in {step, -(-source[2] // max(index.shape[2], 1))}:
        if torch.equal(numbers[:, ::candidate, ::candidate], index):
            return candidate
    return None
