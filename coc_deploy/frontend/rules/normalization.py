"""Batch-norm and dropout: what training and evaluation mode do differently."""

from torch import Tensor, nn

from ..builder import Builder
from ..program import Constant
from ..value import Call, Value
from .convolutions import parameter


def batch_norm(b: Builder, call: Call) -> Value:
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    by_batch = bool(call.given.get("training", False))
    if mean is None or variance is None or (by_batch and not b.training):
        raise call.refuse(
            f"{call.place.kind if call.place.leaf else 'batch-norm'} without running statistics"
        )
    weight, bias = call.constant("weight"), call.constant("bias")
    channels = len(mean.tensor)
    kind = nn.BatchNorm1d if len(call.shape) == 2 else nn.BatchNorm2d
    norm = kind(channels, call["eps"], _momentum(b, call))
    if weight is not None:
        norm.weight = parameter(weight, (channels,))
    if bias is not None:
        norm.bias = parameter(bias, (channels,))
    norm.running_mean, norm.running_var = mean.tensor, variance.tensor
    _take_count(b, norm, mean)
    result = b.apply(call, norm, call.value("input"), weights=(weight, bias, mean, variance))
    if b.training and not by_batch:
        result.node.meta["frozen"] = True
    return result


def of_tuple(b: Builder, call: Call) -> tuple[Value, None, None, None, None]:
    """The forms whose result is (normalised, saved mean, ...)."""
    return batch_norm(b, call), None, None, None, None


def _momentum(b: Builder, call: Call) -> float | None:
    """What the user's module says: evaluation mode does not pass it on."""
    own = getattr(b.module.get_submodule(call.place.name), "momentum", call["momentum"])
    return own if own is None or isinstance(own, int | float) else 0.1


def _take_count(b: Builder, norm: nn.Module, mean: Constant) -> None:
    owner = mean.sources[0].rpartition(".")[0] if mean.whole else ""
    count = getattr(b.module.get_submodule(owner), "num_batches_tracked", None)
    if isinstance(count, Tensor):
        norm.num_batches_tracked = count


def dropout(b: Builder, call: Call) -> Value:
    value = call.value("input" if "input" in call.given else "self")
    if not call["train"] or call["p"] == 0:
        return value
    if not b.training:
        raise call.refuse(f"{call.op} that is active outside of training", ": give it training=self.training")
    if call.op in ("alpha_dropout", "feature_alpha_dropout"):
        raise call.refuse(call.kind, ": use Dropout")
    images = call.op == "feature_dropout" and len(call.shape) == 4
    module = (nn.Dropout2d if images else nn.Dropout)(call["p"])
    if images or call.op == "feature_dropout":
        return b.apply(call, module, value)
    return b.each(call, module, value)


RULES = {
    "batch_norm": batch_norm,
    "_native_batch_norm_legit_no_training": of_tuple,
    "_native_batch_norm_legit_functional": of_tuple,
    "_native_batch_norm_legit": of_tuple,
    "native_batch_norm": of_tuple,
    "dropout": dropout,
    "feature_dropout": dropout,
    "alpha_dropout": dropout,
    "feature_alpha_dropout": dropout,
}
