"""Whether a network computes what the model does that it was made of: on random images.

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
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from coc_runtime.errors import CocError

from .convolution import Guarded
from .restored import remembered

NOISE = 1e-6
"""Relative to a tensor's largest value: far above what float64 loses, far below any other computation.

The same operators give the same float32 numbers as well, at a fraction of the time, so float64 decides only
where those differ."""
ROUNDED = 1e-5
"""The same where weights were computed from others and rounded to float32."""
ROUNDED_GRADIENTS = 1e-3
"""Of those gradients: a rounding switches a few activations that are close to a kink."""

IMAGES = "the images"

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
    """One of the two, what it got in its last run and what its modules gave.

    whole: whether training mode is also that of the module itself, not of its submodules alone.
    """

    module: nn.Module
    outputs: dict[str, Tensor] = field(default_factory=dict)
    images: Tensor = field(default_factory=lambda: torch.zeros(0))
    whole: bool = True

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
        self.module.training = trial.training and self.whole
        for name, part in self.module.named_modules():
            if isinstance(part, nn.Conv2d | nn.Linear) or "parametrizations" in name.split("."):
                part.training = False  # spectral norm's estimate, which training refines, is taken as it is
        torch.manual_seed(0)
        self.images = x.clone().requires_grad_(trial.training)
        return self.module(self.images.clone())


def common(given: nn.Module, made: nn.Module) -> set[str]:
    """Names under which both hold the very same parameters and buffers."""
    held = {**dict(given.named_parameters()), **dict(given.named_buffers())}
    found = (*made.named_parameters(), *made.named_buffers())
    return {name for name, tensor in found if held.get(name) is tensor}


def check(
    given: nn.Module, made: nn.Module, shape: tuple[int, int, int], own: set[str] | None = None
) -> None:
    """Raise CocError, naming the first module that differs, unless `made` computes what `given` does.

    Both take images [N, *shape] and give one tensor of logits, `given` perhaps their softmax; modules and
    tensors of the same name stand for each other. Outputs are compared in evaluation and training mode,
    gradients and running statistics in training mode. Neither is changed, nor torch's random numbers.
    own: the tensors of `made` that are the model's, where others are computed from them; None: those that
    have a name and the values of the model's.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), Guarded():
        try:
            _compare(given, made, shape, own, torch.float32)
        except CocError:
            _compare(given, made, shape, own, torch.float64)


def _compare(
    given: nn.Module,
    made: nn.Module,
    shape: tuple[int, int, int],
    own: set[str] | None,
    dtype: torch.dtype,
) -> None:
    comparison = _Comparison(given, made, shape, own, dtype)
    for trial in TRIALS:
        comparison.run(trial)


class _Comparison:
    def __init__(
        self,
        given: nn.Module,
        made: nn.Module,
        shape: tuple[int, int, int],
        own: set[str] | None,
        dtype: torch.dtype,
    ) -> None:
        self.kind, self.trial = type(given).__name__, TRIALS[0]
        self.given, self.made = (_Side(copied(module).cpu().to(dtype)) for module in (given, made))
        parameters, buffers = (_same_values(self, kind, own) for kind in ("parameters", "buffers"))
        self.statistics = buffers
        self.shared = self._share(parameters)
        made_of = sum(1 for _ in (*self.made.module.parameters(), *self.made.module.buffers()))
        self.noise = NOISE if made_of == len(parameters) + len(buffers) else ROUNDED
        for side in (self.given, self.made):
            side.module.requires_grad_(True)
        self.generator = torch.Generator().manual_seed(0)
        batch = 4 if shape[1] * shape[2] <= 64 * 64 else 2
        pixels = torch.randint(0, 256, (batch, *shape), generator=self.generator)
        self.images = (pixels.to(dtype) - 128) / 128
        self.endings = ENDINGS

    def _share(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """Let both hold the same ones."""
        for name, parameter in parameters.items():
            owner, _, attribute = name.rpartition(".")
            setattr(self.made.module.get_submodule(owner), attribute, parameter)
        return parameters

    def run(self, trial: Trial) -> None:
        if trial.random_weights and trial.training:
            self._randomize()
        self.trial, x = trial, self.images * trial.gain
        expected = self._trained(x) if trial.training else self._forward(self.given, x)
        expected, found = self._outputs(expected, self._forward(self.made, x))
        if trial.training:
            self._compare_statistics()
            self._compare_gradients(expected, found)

    def _trained(self, x: Tensor) -> Any:
        """What the model gives in training mode, or its modules do where it has none as a whole.

        Nothing drops out where it has auxiliary heads, which draw random numbers, too.
        """
        restore = remembered(self.given.module)
        try:
            result = self.given.run(x, self.trial)
        except Exception:  # as where a head of training mode takes larger images only
            self.given.whole = False
        else:
            if len(_tensors(result)) <= 1:
                return result
            for side in (self.given, self.made):
                for module in side.module.modules():
                    if isinstance(module, _DropoutNd):
                        module.p = 0.0
        restore()
        return self._forward(self.given, x)

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
        tensors = _tensors(expected)
        if len(tensors) != 1 and not (self.trial.training and tensors):
            kind = type(expected).__name__
            raise CocError(
                f"{self.kind}: gives a {kind} in {self._mode()}, it must give one tensor of logits"
            )
        expected = tensors[0]
        fitting = [ending for ending in self.endings if _close(expected, ending(found), self.noise)]
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
        return next((name for name, output in pairs if not _close(output, found[name], self.noise)), "")

    def _compare_statistics(self) -> None:
        found = dict(self.made.module.named_buffers())
        for name, expected in self.statistics.items():
            if not _close(expected.double(), found[name].double(), self.noise):
                raise self._differs(name.rpartition(".")[0], f"another '{name}' after a batch")

    def _compare_gradients(self, expected: Tensor, found: Tensor) -> None:
        direction = torch.randn(expected.shape, generator=self.generator, dtype=expected.dtype)
        try:
            wanted = self._gradients(self.given, expected, direction)
        except RuntimeError:  # a change in place of what the backward pass needs: the model has no gradients
            return
        sides = (wanted, self._gradients(self.made, found, direction))
        noise = NOISE if self.noise == NOISE else ROUNDED_GRADIENTS
        largest = max((float(g.abs().max()) for g in wanted.values()), default=0.0)
        for name, tensor in {**self.shared, IMAGES: self.images}.items():
            a, b = (side.get(name, torch.zeros_like(tensor)) for side in sides)
            if not _close(a, b, noise, largest * 1e-9):
                what = name if name == IMAGES else f"'{name}'"
                raise self._differs(name.rpartition(".")[0], f"another gradient of {what}")

    @staticmethod
    def _gradients(side: _Side, output: Tensor, direction: Tensor) -> dict[str, Tensor]:
        parameters = {IMAGES: side.images, **dict(side.module.named_parameters())}
        if not output.requires_grad:
            return {}
        found = torch.autograd.grad(output, list(parameters.values()), direction, allow_unused=True)
        return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}

    @torch.no_grad()
    def _randomize(self) -> None:
        """Weights around the model's, batch-norm that lets values pass 6, statistics of no batch."""
        made = {name for name, m in self.made.module.named_modules() if isinstance(m, _BatchNorm)}
        named = self.given.module.named_modules()
        norms = {name: m for name, m in named if isinstance(m, _BatchNorm) and name in made}
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
                if statistics is not None and f"{name}.{own}" in self.statistics:
                    noise = torch.rand(statistics.shape, generator=self.generator, dtype=statistics.dtype)
                    statistics.copy_(noise + (0.5 if own == "running_var" else 0))
                    buffers[f"{name}.{own}"].copy_(statistics)

    def _mode(self) -> str:
        return "training mode" if self.trial.training else "evaluation mode"

    def _differs(self, name: str, what: str) -> CocError:
        hooked = ", ".join(_hooked(self.given.module)[:3])
        cause = f" (backward hooks of {hooked} do not become part of a network)" if hooked else ""
        return CocError(
            f"{name or self.kind}: the network traced from {self.kind} computes something else, {what} "
            f"in {self._mode()}{cause}: use modules and functions of torch.nn as they are"
        )


def _same_values(comparison: _Comparison, kind: str, own: set[str] | None) -> dict[str, Tensor]:
    """The model's parameters or buffers that the network has as well, by name."""
    held, found = (
        dict(getattr(side.module, f"named_{kind}")()) for side in (comparison.given, comparison.made)
    )
    names = [name for name in held if name in found and (own is None or name in own)]
    return {name: held[name] for name in names if torch.equal(held[name], found[name])}


def _tensors(result: Any) -> list[Tensor]:
    """The tensors in what a module gives."""
    return [part for part in pytree.tree_leaves(result) if isinstance(part, Tensor)]


def copied(module: nn.Module) -> nn.Module:
    """A copy, also where weights are attributes that a hook computes anew each time."""
    computed = [
        (part, name, value)
        for part in module.modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor) and value.grad_fn is not None
    ]
    for part, name, value in computed:
        vars(part)[name] = value.detach()
    try:
        return copy.deepcopy(module)
    finally:
        for part, name, value in computed:
            vars(part)[name] = value


def _hooked(module: nn.Module) -> list[str]:
    """Modules with hooks on their backward pass, the model itself by its class."""
    kinds = ("_backward_hooks", "_backward_pre_hooks")
    return [
        name or type(module).__name__
        for name, part in module.named_modules()
        if any(getattr(part, kind) for kind in kinds)
    ]


def _close(a: Tensor, b: Tensor, noise: float = NOISE, floor: float = 1e-12) -> bool:
    """Equal but for noise; where the model itself gives no finite number, nothing is asked."""
    if a.shape != b.shape:
        return False
    a, b = a.detach(), b.detach()
    if not a.isfinite().all():
        return True
    scale = float(a.abs().max()) if a.numel() else 0.0
    return bool(((a - b).abs() <= noise * scale + floor).all())
