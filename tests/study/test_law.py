"""The graph of better orders: cycles, and the orders that agree with it."""

import itertools

from coc_study.law import law

PUBLISHED = ("DP", "DQ", "DE", "PQ", "PE", "QE")


def test_the_published_pairs_leave_one_order() -> None:
    found = law(PUBLISHED)
    assert found.order == "DPQE"
    assert found.orders == ("DPQE",)
    assert found.cycles == () and found.open_pairs == ()


def test_neighbours_in_a_chain_decide_an_order_as_well_as_all_pairs_do() -> None:
    found = law(["EQ", "QP", "PD"])
    assert found.order == "EQPD"
    assert found.open_pairs == ("DQ", "DE", "PE")


def test_a_cycle_is_found_and_named_and_leaves_no_order() -> None:
    found = law(["PQ", "QE", "EP", "DP", "DQ", "DE"])
    assert found.cycles == ("PQE",)
    assert found.orders == () and found.order is None


def test_all_cycles_of_a_graph_are_named() -> None:
    found = law(["DP", "PQ", "QE", "ED", "QD", "EP"])
    assert set(found.cycles) == {"DPQ", "PQE", "DPQE"}


def test_a_missing_pair_leaves_every_order_that_agrees() -> None:
    found = law(pair for pair in PUBLISHED if pair != "QE")
    assert found.orders == ("DPQE", "DPEQ")
    assert found.order is None
    assert found.open_pairs == ("QE",)


def test_without_pairs_all_orders_agree() -> None:
    assert sorted(law([]).orders) == sorted("".join(o) for o in itertools.permutations("DPQE"))
