"""Whether a network computes what the model does that it was made of: in float64, on random images.

Nothing here knows how the network was made. Images and, from the second trial on, weights are random, so that
zeros, clamps that nothing reaches and statistics that no batch has changed hide no difference.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from coc_runtime.errors import CocError

NOISE = 1e-6
"""Relative to a tensor's largest value: far above what float64 loses, far below any other computation."""

ENDINGS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda logits: logits,
    lambda logits: logits.log_softmax(1),
    lambda logits: logits.softmax(1),
)
"""What a model may do with its logits at its end, where a network gives the logits themselves."""


@dataclass(frozen=True)
class Trial:
    """One run of both. gain: of the images, whose pixels lie in [-1, 1)."""

    training: bool
    gain: float = 1.0
    random_weights: bool = True


TRIALS = (Trial(False, random_weights=False), Trial(True), Trial(False, gain=30.0))
"""The second moves running statistics, which the third then normalises with."""


@dataclass
class _Side:
    """One of the two in float64, what its modules gave in its last run, and the names of its tensors."""

    module: nn.Module
    outputs: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep the first output of every submodule, in order of completion."""
        self.outputs = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if isinstance(output, Tensor) and name not in self.outputs:
                    self.outputs[name] = output.detach().clone()

            return hook

        hooks = [m.register_forward_hook(keep(name)) for name, m in self.module.named_modules() if name]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def run(self, x: Tensor, trial: Trial) -> Any:
        """The same random numbers for dropout each time."""
        self.module.train(trial.training)
        torch.manual_seed(0)
        return self.module(x.clone())


def check(given: nn.Module, made: nn.Module, shape: tuple[int, int, int]) -> None:
    """Raise CocError, naming the first module that differs, unless `made` computes what `given` does.

    Both take images [N, *shape] and give one tensor of logits, `given` perhaps their softmax; modules and
    tensors of the same name stand for each other. Outputs are compared in evaluation and training mode,
    gradients and running statistics in training mode. Neither is changed, nor torch's random numbers.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        comparison = _Comparison(given, made, shape)
        for trial in TRIALS:
            comparison.run(trial)


class _Comparison:
    def __init__(self, given: nn.Module, made: nn.Module, shape: tuple[int, int, int]) -> None:
        self.kind, self.trial = type(given).__name__, TRIALS[0]
        self.given, self.made = (_Side(copy.deepcopy(module).cpu().double()) for module in (given, made))
        self.shared = self._share()
        for side in (self.given, self.made):
            side.module.requires_grad_(True)
        self.generator = torch.Generator().manual_seed(0)
        batch = 4 if shape[1] * shape[2] <= 64 * 64 else 2
        pixels = torch.randint(0, 256, (batch, *shape), generator=self.generator)
        self.images = (pixels.double() - 128) / 128
        self.endings = ENDINGS

    def _share(self) -> dict[str, nn.Parameter]:
        """Let both hold the same parameters, which have the same values; those of the model by name."""
        parameters = dict(self.given.module.named_parameters())
        for name, parameter in list(self.made.module.named_parameters()):
            if name in parameters:
                if not torch.equal(parameters[name], parameter):
                    raise self._differs(name.rpartition(".")[0], f"another '{name}'")
                owner, _, own = name.rpartition(".")
                setattr(self.made.module.get_submodule(owner), own, parameters[name])
        return parameters

    def run(self, trial: Trial) -> None:
        if trial.random_weights and trial.training:
            self._randomize()
        self.trial, x = trial, self.images * trial.gain
        outputs = [self._forward(side, x) for side in (self.given, self.made)]
        expected, found = self._outputs(*outputs)
        if trial.training:
            self._compare_statistics()
            self._compare_gradients(expected, found)

    def _forward(self, side: _Side, x: Tensor) -> Any:
        try:
            with torch.set_grad_enabled(self.trial.training):
                return side.run(x, self.trial)
        except Exception as error:
            detail = " ".join(str(error).split())[:200]
            if side is self.made:
                raise self._differs("", f"failing ({detail})") from error
            raise CocError(f"{self.kind}: fails in {self._mode()} on {len(x)} images: {detail}") from error

    def _outputs(self, expected: Any, found: Tensor) -> tuple[Tensor, Tensor]:
        """Both, the network's with the model's ending."""
        if not isinstance(expected, Tensor):
            kind = type(expected).__name__
            raise CocError(
                f"{self.kind}: gives a {kind} in {self._mode()}, it must give one tensor of logits"
            )
        fitting = [ending for ending in self.endings if _close(expected, ending(found))]
        if not fitting:
            raise self._differs(self._first_module(), "other outputs")
        self.endings = tuple(fitting)
        return expected, fitting[0](found)

    def _first_module(self) -> str:
        """The first module to be done whose output differs, or ""."""
        for side in (self.given, self.made):
            with side.watched():
                self._forward(side, self.images * self.trial.gain)
        found = self.made.outputs
        pairs = ((name, output) for name, output in self.given.outputs.items() if name in found)
        return next((name for name, output in pairs if not _close(output, found[name])), "")

    def _compare_statistics(self) -> None:
        found = dict(self.made.module.named_buffers())
        for name, expected in self.given.module.named_buffers():
            if name in found and not _close(expected.double(), found[name].double()):
                raise self._differs(name.rpartition(".")[0], f"another '{name}' after a batch")

    def _compare_gradients(self, expected: Tensor, found: Tensor) -> None:
        direction = torch.randn(expected.shape, generator=self.generator, dtype=expected.dtype)
        try:
            wanted = self._gradients(self.given, expected, direction)
        except RuntimeError:  # a change in place of what the backward pass needs: the model has no gradients
            return
        sides = (wanted, self._gradients(self.made, found, direction))
        largest = max((float(g.abs().max()) for g in wanted.values()), default=0.0)
        for name in self.shared:
            a, b = (side.get(name, torch.zeros_like(self.shared[name])) for side in sides)
            if not _close(a, b, floor=largest * 1e-9):
                raise self._differs(name.rpartition(".")[0], f"another gradient of '{name}'")

    @staticmethod
    def _gradients(side: _Side, output: Tensor, direction: Tensor) -> dict[str, Tensor]:
        parameters = dict(side.module.named_parameters())
        if not output.requires_grad:
            return {}
        found = torch.autograd.grad(output, list(parameters.values()), direction, allow_unused=True)
        return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}

    @torch.no_grad()
    def _randomize(self) -> None:
        """Weights around the model's, batch-norm that lets values pass 6, statistics of no batch."""
        norms = {name: m for name, m in self.given.module.named_modules() if isinstance(m, _BatchNorm)}
        for name, parameter in self.shared.items():
            owner, _, own = name.rpartition(".")
            noise = torch.randn(parameter.shape, generator=self.generator, dtype=parameter.dtype)
            if owner in norms and own == "weight":
                parameter.copy_(0.5 + 3.5 * noise.abs().clamp_max(1))
            elif owner in norms:
                parameter.copy_(noise)
            else:
                parameter.add_(0.1 * (parameter.std(correction=0) + 0.01) * noise)
        buffers = dict(self.made.module.named_buffers())
        for name, norm in norms.items():
            for own, statistics in (("running_mean", norm.running_mean), ("running_var", norm.running_var)):
                if statistics is not None:
                    noise = torch.rand(statistics.shape, generator=self.generator, dtype=statistics.dtype)
                    statistics.copy_(noise + (0.5 if own == "running_var" else 0))
                    if f"{name}.{own}" in buffers:
                        buffers[f"{name}.{own}"].copy_(statistics)

    def _mode(self) -> str:
        return "training mode" if self.trial.training else "evaluation mode"

    def _differs(self, name: str, what: str) -> CocError:
        hooked = ", ".join(_hooked(self.given.module)[:3])
        cause = f" (hooks of {hooked} do not become part of a network)" if hooked else ""
        return CocError(
            f"{name or self.kind}: the network traced from {self.kind} computes something else, {what} "
            f"in {self._mode()}{cause}: use modules and functions of torch.nn as they are"
        )


def _hooked(module: nn.Module) -> list[str]:
    """Modules with hooks on their forward or backward pass, the model itself by its class."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        name or type(module).__name__
        for name, part in module.named_modules()
        if any(getattr(part, kind) for kind in kinds)
    ]


def _close(a: Tensor, b: Tensor, floor: float = 1e-12) -> bool:
    """Equal but for float64's noise; where the model itself gives no finite number, nothing is asked."""
    if a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach()
    if not a.isfinite().all():
        return True
    scale = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= NOISE * scale + floor).all())
