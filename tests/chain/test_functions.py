"""Functions of single values: their tables, what they are made of, and how their ranges are found."""

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from coc_deploy import pointwise, qat
from coc_deploy.calibration import calibrate
from coc_deploy.frontend.modules import FUNCTIONS, Activation, Scale, Shift
from coc_deploy.network import Network, to_input
from coc_deploy.qat import ActQuant, Mode, QLookup, QMul
from coc_deploy.quantizers import QuantSpec
from usernets import images

SHAPE = (3, 9, 7)


class Net(nn.Module):
    """A function behind a convolution."""

    def __init__(self, function: Callable[[Tensor], Tensor], channels: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.function = function
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.function(self.conv(x)).mean((2, 3)))


def quantized(function: Callable[[Tensor], Tensor], bits: int = 8) -> Network:
    torch.manual_seed(0)
    found = Network.of(Net(function), SHAPE, 10)
    found.quantize(QuantSpec(8, bits, 8))
    calibrate(found, [to_input(images(SHAPE, 16))])
    return found.eval()


def lookups(found: Network) -> list[QLookup]:
    return [m for m in found.body.modules() if isinstance(m, QLookup)]


def unit(function: nn.Module, source: ActQuant, act: ActQuant, channels: int = 1) -> np.ndarray:
    return QLookup(function, source, act, channels).tables()


def half_even(value: float, act: ActQuant) -> int:
    """The code of a real number; Fraction rounds ties to even."""
    code = round(Fraction(value) / Fraction(2) ** int(act.exponent)) + act.zero_point
    return min(max(code, 0), (1 << act.bits) - 1)


WRITTEN_OUT: dict[str, Callable[[float], float]] = {
    "elu": lambda x: x if x > 0 else 0.7 * math.expm1(x),
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "hardsigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "leaky_relu": lambda x: x if x > 0 else 0.01 * x,
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "silu": lambda x: x / (1 + math.exp(-x)),
    "softplus": lambda x: math.log1p(math.exp(x)),
    "tanh": math.tanh,
}
ARGUMENTS = {"elu": (0.7, 1.0, 1.0), "leaky_relu": (0.01,), "softplus": (1.0, 20.0)}


@pytest.mark.parametrize("exponent", [-6, -4, -2])
@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_tables_are_the_function_of_every_code_in_double_precision(name: str, exponent: int) -> None:
    module = Activation(name, ARGUMENTS.get(name, ()))
    for source in (ActQuant(8, True, exponent), ActQuant(4, False, exponent)):
        for act in (ActQuant(8, True, exponent), ActQuant(8, False, -8), ActQuant(3, True, 0)):
            values = [(code - source.zero_point) * 2.0**exponent for code in range(1 << source.bits)]
            expected = [half_even(WRITTEN_OUT[name](value), act) for value in values]
            assert unit(module, source, act).tolist() == [expected]


def test_functions_without_a_value_give_the_code_of_0() -> None:
    source, act = ActQuant(8, True, -4), ActQuant(8, True, -4)
    (table,) = unit(Activation("log"), source, act)
    assert set(table[:128]) == {act.zero_point} and table[128] == 0 and table[144] == act.zero_point


def test_integer_mode_gives_the_tables_values_and_gradients_flow_in_training() -> None:
    source, act = ActQuant(8, True, -4), ActQuant(8, True, -5)
    found = QLookup(nn.PReLU(3), source, act, 3)
    found.function.weight.data = torch.tensor([0.1, -0.3, 0.9])
    x = ((torch.randint(0, 256, (2, 3, 4, 4)) - 128) / 16).float()
    found.set_mode(Mode.INTEGER)
    codes = (found(x) * 32 + 128).long().numpy()
    tables = found.tables()
    assert tables.shape == (3, 256)
    index = (x * 16 + 128).long().numpy()
    np.testing.assert_array_equal(codes, tables[np.arange(3)[:, None, None], index])
    found.set_mode(Mode.TRAIN)
    found(x).square().sum().backward()
    assert (found.function.weight.grad != 0).all()
    found.function.weight.data += 0.5
    found.set_mode(Mode.INTEGER)
    assert (found.tables() != tables).any()


@pytest.mark.parametrize(
    "function",
    [
        nn.Hardswish(),
        lambda x: x * f.relu6(x + 3) / 6,
        lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
        lambda x: f.dropout(x, 0.5, False) * f.hardsigmoid(x),
    ],
)
def test_however_it_is_written_it_is_one_unit_with_the_same_table(
    function: Callable[[Tensor], Tensor],
) -> None:
    (found,) = lookups(quantized(function))
    source = found.sources[0]
    (table,) = unit(nn.Hardswish(), source, found.act)
    near = np.abs(found.tables()[0].astype(int) - table)
    assert (
        near.max() <= 1 and (near > 0).mean() < 0.02
    )  # x / 6 in float32 differs from a division by 6 at ties
    assert not [
        m for m in quantized(function).body.modules() if isinstance(m, QMul | qat.QAdd | qat.QAvgPool)
    ]


def test_what_others_read_inside_of_a_function_has_a_table_of_its_own() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            gate = torch.sigmoid(x)
            return self.fc(torch.cat([x * gate, gate], 1).mean((2, 3)))

    two = Two(nn.Identity())
    two.fc = nn.Linear(12, 10)
    found = Network.of(two, SHAPE, 10)
    found.quantize(QuantSpec(8, 8, 8))
    first, second = lookups(found)
    assert first.sources == second.sources and {first.act.signed, second.act.signed} == {True, False}


class Constants(nn.Module):
    """A constant for each channel of an image and of a vector, learned and not."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(-1, 2, channels).reshape(channels, 1, 1))
        self.register_buffer("shift", torch.linspace(-1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(x) * self.scale
        pooled = torch.sigmoid(x.mean((2, 3))) + self.shift
        return x * pooled[:, :, None, None]


def test_constants_of_channels_give_each_its_own_table() -> None:
    found = quantized(Constants())
    counts = [len(m.tables()) for m in lookups(found)]
    assert counts == [6, 6]
    (product,) = (m for m in found.body.modules() if isinstance(m, QMul))
    assert product.act.signed


@pytest.mark.parametrize(
    ("module", "low", "high"),
    [
        (nn.Hardswish(), -4, math.inf),
        (nn.Hardsigmoid(), -4, 4),
        (nn.Sigmoid(), -8, 8),
        (nn.Tanh(), -4, 4),
        (nn.SiLU(), -8, math.inf),
        (nn.GELU(), -4, math.inf),
        (nn.Softplus(), -8, math.inf),
        (nn.LeakyReLU(), -math.inf, math.inf),
        (nn.Hardtanh(-1, 1), -1, 1),
        (Activation("hardsigmoid"), -4, 4),
    ],
)
def test_functions_that_saturate_are_known_to(module: nn.Module, low: float, high: float) -> None:
    assert pointwise.limits(module, 1) == (low, high)


def test_ranges_in_front_of_a_function_end_where_it_saturates() -> None:
    """A few large negative values do not make the steps of all others coarse."""
    steps = {}
    for name, function in {
        "hardswish": f.hardswish,
        "leaky": f.leaky_relu,
        "both": lambda x: x + f.silu(x),
    }.items():
        torch.manual_seed(0)
        net = Net(function)
        with torch.no_grad():
            net.conv.bias.copy_(torch.tensor([0.0, 0, 0, 0, -40, 0]))  # type: ignore[union-attr]
        found = Network.of(net, SHAPE, 10)
        found.quantize(QuantSpec(8, 8, 8))
        calibrate(found, [to_input(images(SHAPE, 16))])
        steps[name] = int(lookups(found)[0].sources[0].exponent)
    assert steps == {"hardswish": -5, "leaky": -1, "both": -1}


def test_types_of_what_functions_give() -> None:
    def act(function: Callable[[Tensor], Tensor], bits: int) -> tuple[int, bool]:
        (found,) = lookups(quantized(function, bits))
        return found.act.bits, found.act.signed

    assert act(torch.sigmoid, 4) == (4, False) and act(f.softplus, 8) == (8, False)
    assert act(f.silu, 4) == act(torch.tanh, 4) == act(nn.PReLU(6), 4) == (8, True)
    gates = [m.act for m in lookups(quantized(lambda x: x * torch.sigmoid(x.mean((2, 3), True)), 4))]
    assert [(gate.bits, gate.signed) for gate in gates] == [(8, False)]


def test_a_gate_uses_all_of_its_codes() -> None:
    """Its largest value, 1, is the code 255 of steps of 1/256, not 128 of steps of 1/128."""
    found = quantized(lambda x: x * f.hardsigmoid(40 * x.mean((2, 3), True)))
    (gate,) = (m for m in lookups(found) if not m.act.signed)
    assert int(gate.act.exponent) == -8 and int(gate.tables().max()) == 255


def test_every_function_has_a_quantized_form() -> None:
    arguments = {0: (), 1: (0.5,), 2: (-0.5, 1.5), 3: (0.7, 1.1, 0.9)}
    for name, (_, count) in FUNCTIONS.items():
        tables = unit(Activation(name, arguments[count]), ActQuant(8, True, -4), ActQuant(8, True, -4))
        assert len(np.unique(tables)) > 1, name


def test_vectors_of_constants_fit_images() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    node = graph.call_module("s", (graph.call_module("t", (x,)),))
    modules = {"s": Scale.of(torch.arange(4.0)), "t": Shift((4,), True)}
    found = pointwise.function(x, list(graph.nodes)[1:], modules, 4)
    assert found(torch.ones(2, 4, 1, 1)).shape == (2, 4, 1, 1)
    assert pointwise.fits(found, 4) and not pointwise.fits(found, 5) and pointwise.is_learned(found)
    assert node in pointwise.grown(x, modules)
