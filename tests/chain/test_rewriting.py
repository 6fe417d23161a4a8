"""Rewriting into quantized units: rules only read, patches are proved, wrong ones are refused by name."""

from typing import Any

import pytest
import torch
from torch import fx, nn

from coc_deploy import qat, rewriting
from coc_deploy.network import Network
from coc_deploy.quantizers import QuantSpec
from coc_deploy.rewriting import windows
from coc_deploy.rewriting.context import NO_PADS, Context
from coc_deploy.rewriting.patch import Patch, unit_patch
from coc_runtime.errors import CocError
from usernets import FIXED, USER, network, settled

SPEC = QuantSpec(4, 8, 8)


class Net(nn.Module):
    """One of most kinds of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, bias=True)
        self.bn = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.average = nn.AvgPool2d(3, 1, 1)
        self.hidden = nn.Linear(6 * 4 * 4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.fc = nn.Linear(5, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.bn(self.conv(x)).relu())
        x = torch.sigmoid(self.average(x)) * x + x
        return self.fc(self.norm(self.hidden(x.flatten(1))).relu())


def small() -> Network:
    return settled(Network.of(Net(), (3, 10, 10), 10))


@pytest.mark.parametrize("name", [*USER, *FIXED, "mobilenet_v2", "small"])
def test_rules_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = small() if name == "small" else network(name)
    rewritten = rewriting._rewritten
    rules = set()

    def watched(context: Context, node: fx.Node) -> tuple[Patch, str]:
        def now() -> tuple[Any, ...]:
            known = (context.acts, context.images, context.pads, context.renamed, context.modules)
            return str(context.body.graph), [dict(table) for table in known]

        before, state = now(), {k: v.clone() for k, v in context.body.state_dict().items()}
        patch, rule = rewritten(context, node)
        assert now() == before
        after = context.body.state_dict()
        assert after.keys() == state.keys() and all(torch.equal(after[k], state[k]) for k in state)
        rules.add(rule)
        return patch, rule

    monkeypatch.setattr(rewriting, "_rewritten", watched)
    found.quantize(SPEC)
    assert {"convolution", "logits"} <= rules


@pytest.mark.parametrize(("kernel", "why"), [(1, "it gives other numbers"), (3, "54 numbers instead of 96")])
def test_a_rule_that_computes_another_function_is_refused(
    kernel: int, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halves(context: Context, node: fx.Node, pool: nn.Module) -> Patch:
        """Takes a pool of 2x2 for another one."""
        unit = qat.QMaxPool(context.act(node), (kernel, kernel), 2, NO_PADS)
        return unit_patch(str(node.target), unit, (node,))

    rules = [(kinds, halves if rule is windows.max_pool else rule) for kinds, rule in rewriting.MODULES]
    found = small()
    monkeypatch.setattr(rewriting, "MODULES", rules)
    with pytest.raises(CocError, match=f"pool: the rule 'halves' does not fit it: {why}"):
        found.quantize(SPEC)


def test_quantized_bodies_hold_units_alone() -> None:
    """Batch-norm goes into the unit and leaves its old name."""
    found = small()
    found.quantize(SPEC)
    names = {name for name, _ in found.body.named_modules(remove_duplicate=False)}
    assert "conv.bn" in names and not names & {"bn", "norm"}
    assert all(isinstance(m, qat.UNITS) for m in found.body.children())
