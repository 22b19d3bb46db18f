"""A cross-encoder that anybody can compute: it counts a word."""

from pathlib import Path

from onnx import TensorProto, helper, save
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors


def write_counting_encoder(directory: Path) -> None:
    """Write `model.onnx` and `tokenizer.json`.

    Its logit is how often `ferry` stands in question and passage together, less 1.5.
    """
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ferry", "dogs"]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))

    def tensor(name: str, kind: int, shape: list[str | int]) -> object:
        return helper.make_tensor_value_info(name, kind, shape)

    graph = helper.make_graph(
        [
            helper.make_node("Equal", ["input_ids", "ferry"], ["is_ferry"]),
            helper.make_node("Cast", ["is_ferry"], ["ones"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["ones", "axis"], ["count"], keepdims=1),
            helper.make_node("Sub", ["count", "usual"], ["logits"]),
        ],
        "counting",
        [
            tensor("input_ids", TensorProto.INT64, ["pairs", "tokens"]),
            tensor("attention_mask", TensorProto.INT64, ["pairs", "tokens"]),
        ],
        [tensor("logits", TensorProto.FLOAT, ["pairs", 1])],
        [
            helper.make_tensor("ferry", TensorProto.INT64, [], [4]),
            helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
            helper.make_tensor("usual", TensorProto.FLOAT, [], [1.5]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    save(model, str(directory / "model.onnx"))
