"""What tests/runtime/test_operator_contract.py asks of an operator, and the one table of answers.

Each file of this folder holds, for an operator or a close family: instances at random, what its checks must
refuse, and graphs at its borders. A new operator needs a file here and a line in `CONTRACTS`.
"""

from functools import cache

from coc_runtime.graph import Graph
from coc_runtime.ops import (
    AdaptiveAveragePool,
    Add,
    AveragePool,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    Logits,
    Lookup,
    MaxPool,
    Mul,
    Op,
    PixelAveragePool,
    Select,
)
from contract import add, concat, conv, flatten, linear, logits, lookup, mul, pool, select, uneven
from contract.base import Contract, Instance

__all__ = ["CONTRACTS", "Contract", "Instance", "single_operators"]

CONTRACTS: dict[type[Op], Contract] = {
    Conv: conv.CONTRACT,
    Add: add.CONTRACT,
    GlobalAveragePool: pool.GLOBAL_AVERAGE,
    Linear: linear.CONTRACT,
    MaxPool: pool.MAX,
    AveragePool: pool.AVERAGE,
    Concat: concat.CONTRACT,
    Flatten: flatten.CONTRACT,
    Lookup: lookup.CONTRACT,
    Mul: mul.CONTRACT,
    Select: select.CONTRACT,
    Logits: logits.CONTRACT,
    PixelAveragePool: uneven.PIXELS,
    AdaptiveAveragePool: uneven.GRID,
}


@cache
def single_operators() -> dict[str, Graph]:
    """The graphs that were picked by hand for every operator."""
    found = [case for contract in CONTRACTS.values() for case in contract.cases()]
    graphs = dict(found)
    assert len(graphs) == len(found)
    return graphs
