"""Small models of every kind that `--backbone` takes without a spec, with random weights, for the encoder contract."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from featurestore.encoders import EncoderSpec, resolve
from featurestore.encoders.transformers_models import quiet

WORDS = ("heart", "lungs", "clear", "effusion", "acute", "opacity", ":", "left", "(", "mildly", ")", "unchanged", ".")
CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
"""A CLIP of 3 million parameters; open_clip's own are larger. Its vocabulary is that of the tokenizer."""


def timm_image(folder: Path) -> EncoderSpec:
    import timm

    network = timm.create_model("test_vit.r160_in1k", pretrained=False)
    save_file(dict(network.state_dict()), folder / "model.safetensors")
    return resolve("timm:test_vit.r160_in1k", weights=folder)


def hub_image(folder: Path) -> EncoderSpec:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14)
    with quiet():
        Dinov2Model(config).save_pretrained(folder)
    processor = {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | {"resample": 3}))
    return resolve(f"hf:{folder}")


def hub_text(folder: Path) -> EncoderSpec:
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789cm", *WORDS]
    (folder / "vocab.txt").write_text("\n".join([*words, *(f"##{letter}" for letter in "cm")]) + "\n")
    config = BertConfig(vocab_size=len(words) + 2, hidden_size=48, num_hidden_layers=2, num_attention_heads=4)
    with quiet():
        BertModel(config).save_pretrained(folder)
        BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return resolve(f"hf:{folder}")


def clip(folder: Path, tower: str = "") -> EncoderSpec:
    """The image tower, or with "/text" the text tower, of `CLIP`, which stays known to open_clip as radfs-test."""
    import open_clip

    open_clip.factory._MODEL_CONFIGS["radfs-test"] = CLIP
    model = open_clip.create_model("radfs-test", pretrained=None)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "clip.safetensors")
    return resolve(f"open_clip:radfs-test{tower}", weights=folder / "clip.safetensors")


def clip_text(folder: Path) -> EncoderSpec:
    return clip(folder, "/text")


FOREIGN = {
    "timm:": timm_image,
    "hf: image": hub_image,
    "hf: text": hub_text,
    "open_clip:": clip,
    "open_clip:/text": clip_text,
}


def make(kind: str, folder: Path) -> EncoderSpec:
    """The spec of the model of this kind; the random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return FOREIGN[kind](folder)
