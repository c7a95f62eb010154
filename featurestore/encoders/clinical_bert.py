"""Bio_ClinicalBERT (Alsentzer et al., 2019): a BERT for clinical notes.

Its vocabulary is cased and it was trained on cased text, but its repository does not say so, and transformers then
lower-cases. Most published work uses it so without knowing.
"""

from .cxr_bert import BERT_FILE
from .sources import HubWeights
from .spec import Architecture, EncoderSpec, TextPreprocessing, TokenLayout, Variant

_SPECIAL = ("[CLS]", "[SEP]")

SPEC = EncoderSpec(
    name="bio-clinicalbert",
    modality="text",
    architecture=Architecture(
        library="transformers", name="BertModel", options={"vocab_size": 28996, "layer_norm_eps": 1e-12}
    ),
    weights=HubWeights(
        repo="emilyalsentzer/Bio_ClinicalBERT", revision="main", files=("pytorch_model.bin", "vocab.txt")
    ),
    load=BERT_FILE,
    preprocessing=TextPreprocessing(
        tokenizer="bert-wordpiece", context_length=512, lower_case=True, special_tokens=_SPECIAL
    ),
    tokens=TokenLayout(dim=768),
    output="last_hidden_state",
    layer="the output of the last transformer layer",
    builder="featurestore.encoders.transformers_models:build_bert",
    objective="text-ssl",
    pretraining=("MIMIC-III", "PubMed"),
    licence="MIT",
    variants=(
        Variant(
            axis="casing",
            reason="lower-cased is the library's default, so almost surely the paper's; it was trained cased",
            choices={
                "lower": {},
                "cased": {
                    "preprocessing": TextPreprocessing(
                        tokenizer="bert-wordpiece", context_length=512, lower_case=False, special_tokens=_SPECIAL
                    )
                },
            },
        ),
    ),
    notes="Pre-trained on sequences of 128 tokens; all 512 positions are used.",
)
