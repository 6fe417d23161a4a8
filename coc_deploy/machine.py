"""What training runs on, through Lightning Fabric: the device, bfloat16, and the processes of torchrun.

Every process runs the same chain on the same data; gradients are averaged, so that all hold the same
network all the time. The first process alone writes and prints.
"""

import atexit
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from coc_runtime.errors import CocError


@cache
def fabric() -> Fabric:
    """One for the life of the process: a CUDA device for each of torchrun's processes, or else the CPU."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    processes = _processes()
    on_cuda = torch.cuda.is_available() and torch.cuda.device_count() >= processes
    if on_cuda:
        # Fake quantization counts on float32 that is float32; a run that is repeated gives the same model.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    result = Fabric(
        accelerator="cuda" if on_cuda else "cpu",
        strategy="ddp" if processes > 1 else "auto",
        devices=processes,
        precision="bf16-mixed",
    )
    result.launch()
    if processes > 1:
        atexit.register(_leave)
    if not result.is_global_zero:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return result


def _leave() -> None:
    """Gloo's threads abort a process that ends while they run."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _processes() -> int:
    if not torch.distributed.is_available() or not torch.distributed.is_torchelastic_launched():
        return 1
    processes = int(os.environ["WORLD_SIZE"])
    if processes != int(os.environ["LOCAL_WORLD_SIZE"]):
        raise CocError("torchrun over several machines is not supported: use --nnodes 1")
    return processes


def once(action: Callable[..., None], *arguments: Any) -> None:
    """Call it in the first process when all have come here; its CocError is raised in all of them."""
    message = None
    fabric().barrier()
    if fabric().is_global_zero:
        try:
            action(*arguments)
        except CocError as error:
            message = str(error)
            if fabric().world_size == 1:
                raise
    message = fabric().broadcast(message)
    if message is not None:
        raise CocError(message)


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Replace each float tensor by its mean over the processes."""
    if fabric().world_size == 1 or not tensors:
        return
    flat = fabric().all_reduce(torch.cat([tensor.flatten() for tensor in tensors]), reduce_op="mean")
    assert isinstance(flat, Tensor)
    for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        tensor.copy_(mean.view(tensor.shape))


def total(value: float) -> float:
    """The sum of a number over the processes."""
    result = fabric().all_reduce(
        torch.tensor(value, dtype=torch.float64, device=fabric().device), reduce_op="sum"
    )
    return float(result)  # type: ignore[arg-type]


def bfloat16_pays() -> bool:
    """True where the device multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    if os.environ.get("COC_PRECISION") == "float32":
        return False
    if fabric().device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
