"""What the rules of the rewriting know of the graph; they read it, and only patches change it."""

import math

from torch import fx, nn

from .. import pointwise
from ..qat import Pads
from ..quantizers import ActQuant, QuantSpec
from ..shapes import shapes

NO_PADS: Pads = (0, 0, 0, 0)


class Context:
    """A body under way from float nodes to quantized units.

    spec: bits. source: the quantizer of the input. stem: convolutions that read the input, also where it is
    shifted or padded, have the bits of the ends. shapes, inputs: of the float network, by name of a node and
    of what a node reads. acts, images: type and size [C, H, W] (or [C] behind global pooling) of what nodes
    give by now. pads: padding that readers of an image do themselves. renamed: float nodes' names -> names of
    what stands for them.
    """

    def __init__(
        self, body: fx.GraphModule, spec: QuantSpec, source: ActQuant, stem: bool, shape: tuple[int, ...]
    ) -> None:
        self.body, self.spec, self.source, self.stem = body, spec, source, stem
        self.of_input = [source]
        """types of the input and of what layers without weights of their own make of it"""
        self.modules: dict[str, nn.Module] = dict(body.named_modules())
        self.shapes = shapes(body, shape)
        self.inputs = {n: [self.shapes[i.name] for i in n.all_input_nodes] for n in body.graph.nodes}
        self.acts: dict[fx.Node, ActQuant] = {}
        self.images: dict[fx.Node, tuple[int, ...]] = {}
        self.pads: dict[fx.Node, Pads] = {}
        self.renamed: dict[str, str] = {}

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def is_stem(self, node: fx.Node) -> bool:
        """Whether the node reads the network's input, shifted or padded by a layer perhaps."""
        return self.stem and any(self.act(node) is act for act in self.of_input)

    def act(self, node: fx.Node) -> ActQuant:
        """The type of what the node reads first."""
        return self.acts[node.all_input_nodes[0]]

    def image(self, node: fx.Node) -> tuple[int, ...]:
        """The size of what the node reads first."""
        return self.images[node.all_input_nodes[0]]

    def extra(self, node: fx.Node) -> Pads:
        """Padding in front of the node that it does beside its own."""
        return self.pads.get(node, NO_PADS)

    def relu(self, node: fx.Node) -> fx.Node | None:
        """The ReLU that alone reads the node."""
        return self.sole_user(node, nn.ReLU, nn.ReLU6)

    def sole_user(self, node: fx.Node, *kinds: type[nn.Module]) -> fx.Node | None:
        """What alone reads the node, if it is a module of these kinds."""
        users = [user for user in node.users if user.op != "output"]
        if len(users) == 1 and isinstance(self.module(users[0]), kinds):
            return users[0]
        return None

    def output(self, node: fx.Node, relu: fx.Node | None, bits: int | None = None) -> ActQuant:
        """The quantizer of an output: these bits (or the chain's) behind a ReLU, 8 bits for signed values.

        Where functions of single values alone read the node, its range is theirs.
        """
        if relu is None:
            return self.signed(*self._limits(node))
        return self.unsigned(6.0 if isinstance(self.module(relu), nn.ReLU6) else None, bits)

    def unsigned(self, ceiling: float | None = None, bits: int | None = None) -> ActQuant:
        """These bits, or the chain's, for numbers that are not negative."""
        spec = self.spec
        return ActQuant(bits or spec.act_bits, False, 0, spec.percentile, ceiling, spec.learned)

    def signed(self, low: float | None = None, high: float | None = None) -> ActQuant:
        """8 bits for numbers of both signs."""
        return ActQuant(8, True, 0, self.spec.percentile, high, self.spec.learned, low)

    def _limits(self, node: fx.Node) -> tuple[float | None, float | None]:
        """Beyond these values nothing that reads the node changes; None: it does everywhere."""
        nodes = pointwise.grown(node, self.modules)
        if not set(nodes).issuperset(node.users):
            return None, None
        channels = self.shapes[node.name][0]
        found = [
            pointwise.function(node, pointwise.needed(output, nodes), self.modules, channels)
            for output in pointwise.outputs(nodes)
        ]
        if any(pointwise.is_learned(each) or not pointwise.fits(each, channels) for each in found):
            return None, None
        sides = zip(*(pointwise.limits(each, channels) for each in found), strict=True)
        low, high = (max(side, key=abs) for side in sides)
        return (None if math.isinf(low) else low), (None if math.isinf(high) else high)


def is_final(node: fx.Node) -> bool:
    """Whether the node gives the logits."""
    return all(user.op == "output" for user in node.users)
