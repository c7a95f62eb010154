"""CXR-BERT-general (Boecking et al., 2022): a BERT for radiology reports, before any training with images."""

from .sources import HubWeights
from .spec import Architecture, EncoderSpec, LoadRule, TextPreprocessing, TokenLayout

BERT_FILE = LoadRule(
    drop=("cls.*", "cls_projection_head.*", "bert.pooler.*", "bert.embeddings.position_ids"),
    strip_prefix="bert.",
    rename=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
)
"""A BERT saved with the heads of its training, by transformers of any age: early ones had their own names for norms."""

SPEC = EncoderSpec(
    name="cxr-bert-general",
    modality="text",
    architecture=Architecture(
        library="transformers", name="BertModel", options={"vocab_size": 30522, "layer_norm_eps": 1e-12}
    ),
    weights=HubWeights(
        repo="microsoft/BiomedVLP-CXR-BERT-general", revision="main", files=("pytorch_model.bin", "vocab.txt")
    ),
    load=BERT_FILE,
    preprocessing=TextPreprocessing(
        tokenizer="bert-wordpiece", context_length=512, lower_case=True, special_tokens=("[CLS]", "[SEP]")
    ),
    tokens=TokenLayout(dim=768),
    output="last_hidden_state",
    layer="the output of the last transformer layer",
    builder="featurestore.encoders.transformers_models:build_bert",
    objective="text-ssl",
    pretraining=("PubMed", "MIMIC-III", "MIMIC-CXR (reports)"),
    licence="MIT",
)
