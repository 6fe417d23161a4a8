"""The quantized unit of a function of single values: in integers, a table of what every code becomes."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from .quantizers import ActQuant, Mode


class QLookup(nn.Module):
    """A function of single values behind another unit; its output is rounded by a quantizer of its own.

    Training computes the function in float. In INTEGER mode codes are looked up in `tables`, which
    the exported graph holds.
    """

    def __init__(self, function: nn.Module, source: ActQuant, act: ActQuant, channels: int) -> None:
        """function: of images [N, channels, H, W], value by value, perhaps of each channel another one."""
        super().__init__()
        self.function, self.act, self.channels = function, act, channels
        self.sources = (source,)  # a tuple: the unit before owns this module
        self.mode = Mode.TRAIN
        self._found: Tensor | None = None

    def set_mode(self, mode: Mode) -> None:
        self.mode = self.act.mode = mode
        self._found = None

    def forward(self, x: Tensor) -> Tensor:
        return self._integer(x) if self.mode is Mode.INTEGER else self.act(self.function(x))

    @torch.no_grad()
    def tables(self) -> np.ndarray:
        """Output codes, uint8 [1 or channels, codes of the source]: the function in float64, ties to even."""
        source, act = self.sources[0], self.act
        codes = torch.arange(1 << source.bits, dtype=torch.float64)
        values = (codes - source.zero_point) * 2.0 ** int(source.exponent)
        images = values[:, None, None, None].expand(-1, self.channels, 1, 1)
        function = copy.deepcopy(self.function).cpu().double()
        scaled = function(images)[:, :, 0, 0].T.numpy() * 2.0 ** -int(act.exponent)
        found = np.rint(np.nan_to_num(scaled, nan=0.0)) + act.zero_point
        tables = np.clip(found, 0, (1 << act.bits) - 1).astype(np.uint8)
        return tables[:1] if (tables == tables[0]).all() else tables

    def _integer(self, x: Tensor) -> Tensor:
        source, act = self.sources[0], self.act
        if self._found is None:
            values = (self.tables().astype(np.float32) - act.zero_point) * 2.0 ** int(act.exponent)
            self._found = torch.from_numpy(values.astype(np.float32)).to(x.device)
        index = (x * 2.0 ** -int(source.exponent) + source.zero_point).long()
        count, codes = self._found.shape
        if count > 1:
            index += codes * torch.arange(count, device=x.device)[:, None, None]
        return self._found.flatten()[index]
