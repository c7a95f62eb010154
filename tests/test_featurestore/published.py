"""Checkpoints with random weights in the layout in which each encoder was published.

Names, shapes, wrapping and extra keys are written down here from what the authors' code saves, not taken from the
product. At full width; `depth` blocks, or all of them.
"""

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

Shapes = dict[str, tuple[int, ...]]


def vit(depth: int, prefix: str = "") -> Shapes:
    """A ViT-B/16 at 224, named as in MAE and timm."""
    shapes: Shapes = {"cls_token": (1, 1, 768), "pos_embed": (1, 197, 768)}
    shapes |= {"patch_embed.proj.weight": (768, 3, 16, 16), "patch_embed.proj.bias": (768,)}
    for i in range(depth):
        shapes |= _block(f"blocks.{i}", 768)
    shapes |= {"norm.weight": (768,), "norm.bias": (768,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def _block(name: str, d: int) -> Shapes:
    return {
        f"{name}.norm1.weight": (d,),
        f"{name}.norm1.bias": (d,),
        f"{name}.attn.qkv.weight": (3 * d, d),
        f"{name}.attn.qkv.bias": (3 * d,),
        f"{name}.attn.proj.weight": (d, d),
        f"{name}.attn.proj.bias": (d,),
        f"{name}.norm2.weight": (d,),
        f"{name}.norm2.bias": (d,),
        f"{name}.mlp.fc1.weight": (4 * d, d),
        f"{name}.mlp.fc1.bias": (4 * d,),
        f"{name}.mlp.fc2.weight": (d, 4 * d),
        f"{name}.mlp.fc2.bias": (d,),
    }


def mae_decoder(blocks: int, d: int, out: int) -> Shapes:
    """What a masked autoencoder's file holds beyond the encoder."""
    shapes: Shapes = {"mask_token": (1, 1, d), "decoder_pos_embed": (1, 197, d)}
    shapes |= {"decoder_embed.weight": (d, 768), "decoder_embed.bias": (d,)}
    for i in range(blocks):
        shapes |= _block(f"decoder_blocks.{i}", d)
    shapes |= {"decoder_norm.weight": (d,), "decoder_norm.bias": (d,)}
    return shapes | {"decoder_pred.weight": (out, d), "decoder_pred.bias": (out,)}


def dinov2(depth: int) -> Shapes:
    """A ViT-B/14 at 518, named as transformers 4 wrote it."""
    d = 768
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, d),
        "embeddings.mask_token": (1, d),
        "embeddings.position_embeddings": (1, 1370, d),
        "embeddings.patch_embeddings.projection.weight": (d, 3, 14, 14),
        "embeddings.patch_embeddings.projection.bias": (d,),
        "layernorm.weight": (d,),
        "layernorm.bias": (d,),
    }
    for i in range(depth):
        layer = f"encoder.layer.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{layer}.{norm}.weight": (d,), f"{layer}.{norm}.bias": (d,)}
        for name in ("attention.attention.query", "attention.attention.key", "attention.attention.value"):
            shapes |= {f"{layer}.{name}.weight": (d, d), f"{layer}.{name}.bias": (d,)}
        shapes |= {f"{layer}.attention.output.dense.weight": (d, d), f"{layer}.attention.output.dense.bias": (d,)}
        shapes |= {f"{layer}.layer_scale1.lambda1": (d,), f"{layer}.layer_scale2.lambda1": (d,)}
        shapes |= {f"{layer}.mlp.fc1.weight": (4 * d, d), f"{layer}.mlp.fc1.bias": (4 * d,)}
        shapes |= {f"{layer}.mlp.fc2.weight": (d, 4 * d), f"{layer}.mlp.fc2.bias": (d,)}
    return shapes


def siglip(depth: int, d: int, hidden: int, patch: int, n: int) -> Shapes:
    """The image tower of a SigLIP, as transformers writes it, without its pooling head."""
    shapes: Shapes = {
        "embeddings.patch_embedding.weight": (d, 3, patch, patch),
        "embeddings.patch_embedding.bias": (d,),
        "embeddings.position_embedding.weight": (n, d),
        "post_layernorm.weight": (d,),
        "post_layernorm.bias": (d,),
    }
    for i in range(depth):
        layer = f"encoder.layers.{i}"
        for name in ("layer_norm1", "layer_norm2"):
            shapes |= {f"{layer}.{name}.weight": (d,), f"{layer}.{name}.bias": (d,)}
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{layer}.self_attn.{name}.weight": (d, d), f"{layer}.self_attn.{name}.bias": (d,)}
        shapes |= {f"{layer}.mlp.fc1.weight": (hidden, d), f"{layer}.mlp.fc1.bias": (hidden,)}
        shapes |= {f"{layer}.mlp.fc2.weight": (d, hidden), f"{layer}.mlp.fc2.bias": (d,)}
    return {f"vision_model.{name}": shape for name, shape in shapes.items()}


def eva_x(depth: int) -> Shapes:
    """EVA-X's ViT-B/16, under the names of EVA-02's training code: no bias of keys, a norm inside the MLP."""
    d, hidden = 768, 2048
    shapes: Shapes = {"cls_token": (1, 1, d), "pos_embed": (1, 197, d), "norm.weight": (d,), "norm.bias": (d,)}
    shapes |= {"patch_embed.proj.weight": (d, 3, 16, 16), "patch_embed.proj.bias": (d,)}
    for i in range(depth):
        b = f"blocks.{i}"
        for norm in ("norm1", "norm2"):
            shapes |= {f"{b}.{norm}.weight": (d,), f"{b}.{norm}.bias": (d,)}
        shapes |= {f"{b}.attn.{n}_proj.weight": (d, d) for n in "qkv"}
        shapes |= {f"{b}.attn.q_bias": (d,), f"{b}.attn.v_bias": (d,)}
        shapes |= {f"{b}.attn.proj.weight": (d, d), f"{b}.attn.proj.bias": (d,)}
        for name, shape in (("w1", (hidden, d)), ("w2", (hidden, d)), ("w3", (d, hidden))):
            shapes |= {f"{b}.mlp.{name}.weight": shape, f"{b}.mlp.{name}.bias": shape[:1]}
        shapes |= {f"{b}.mlp.ffn_ln.weight": (hidden,), f"{b}.mlp.ffn_ln.bias": (hidden,)}
    return shapes


def resnet(kind: str, layers: tuple[int, ...], prefix: str = "", *, fc: int | None = None) -> Shapes:
    """A ResNet, named as torchvision does; `fc` outputs of the last layer, None for no such layer."""
    with torch.device("meta"):
        network = ResNet({"basic": BasicBlock, "bottleneck": Bottleneck}[kind], list(layers), num_classes=fc or 1)
    names = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {prefix + name: shape for name, shape in names.items() if fc or not name.startswith("fc.")}


def bert(depth: int, vocabulary: int, prefix: str = "bert.", *, d: int = 768, position_ids: bool = True) -> Shapes:
    """A BERT, as transformers writes it."""
    shapes: Shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, d),
        "embeddings.position_embeddings.weight": (512, d),
        "embeddings.token_type_embeddings.weight": (2, d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }
    if position_ids:
        shapes["embeddings.position_ids"] = (1, 512)
    for i in range(depth):
        layer = f"encoder.layer.{i}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{layer}.{name}.weight": (d, d), f"{layer}.{name}.bias": (d,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{layer}.{name}.weight": (d,), f"{layer}.{name}.bias": (d,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (4 * d, d), f"{layer}.intermediate.dense.bias": (4 * d,)}
        shapes |= {f"{layer}.output.dense.weight": (d, 4 * d), f"{layer}.output.dense.bias": (d,)}
    return {prefix + name: shape for name, shape in shapes.items()}


def bert_heads(vocabulary: int) -> Shapes:
    """The pooler and the heads of BERT's pre-training."""
    return {
        "bert.pooler.dense.weight": (768, 768),
        "bert.pooler.dense.bias": (768,),
        "cls.predictions.bias": (vocabulary,),
        "cls.predictions.transform.dense.weight": (768, 768),
        "cls.predictions.transform.LayerNorm.weight": (768,),
        "cls.seq_relationship.weight": (2, 768),
    }


def biovil_t_pooler() -> Shapes:
    """What BioViL-T's file holds beyond what a single image runs through, except the ImageNet head."""
    shapes: Shapes = {"encoder.vit_pooler.type_embed": (2, 1, 256)}
    for i in range(3):
        block = f"encoder.vit_pooler.blocks.{i}"
        for name in ("norm1", "norm2"):
            shapes |= {f"{block}.{name}.weight": (256,), f"{block}.{name}.bias": (256,)}
        shapes |= {f"{block}.attn.{name}.weight": (256, 256) for name in ("proj_q", "proj_k", "proj_v", "proj")}
        shapes |= {f"{block}.attn.proj.bias": (256,)}
        for name in ("fc1", "fc2"):
            shapes |= {f"{block}.mlp.{name}.weight": (256, 256), f"{block}.mlp.{name}.bias": (256,)}
    shapes |= {"encoder.vit_pooler.norm_post.weight": (256,), "encoder.vit_pooler.norm_post.bias": (256,)}
    shapes |= {"projector.model.0.weight": (128, 512, 1, 1)}
    shapes |= {f"projector.model.1.{name}": (128,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"projector.model.1.num_batches_tracked": ()}
    return shapes | {"projector.model.3.weight": (128, 128, 1, 1), "projector.model.3.bias": (128,)}


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Numbers of the size of trained ones: no layer blows up or dies out."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        kind = name.rpartition(".")[2]
        draw = torch.randn(shape, generator=generator)
        if kind == "num_batches_tracked":
            tensors[name] = torch.tensor(7)
        elif kind == "position_ids":
            tensors[name] = torch.arange(shape[-1])[None]
        elif kind == "running_var":
            tensors[name] = 0.5 + draw.abs()
        elif kind == "weight" and len(shape) > 1:
            tensors[name] = draw * (torch.tensor(shape[1:]).prod() ** -0.5)
        elif kind in ("weight", "gamma", "lambda1", "gamma_1", "gamma_2"):
            tensors[name] = 1 + 0.2 * draw
        else:
            tensors[name] = 0.2 * draw
    return tensors


def idle_tensors(shapes: Shapes) -> dict[str, Tensor]:
    """What a file holds beyond the network. A large tensor is one zero that stands for all, which costs nothing."""
    small = {name: shape for name, shape in shapes.items() if torch.Size(shape).numel() < 10_000}
    return random_tensors(small, 1) | {n: torch.zeros(()).expand(s) for n, s in shapes.items() if n not in small}


def trainer_bundle(model: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    """What a training script saves around the model."""
    optimizer = {"state": {0: {"step": torch.tensor(9.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
    args = argparse.Namespace(model="mae_vit_base_patch16", lr=1e-4, data_path="/data", mask_ratio=0.9)
    return {"model": model, "optimizer": optimizer, "epoch": 800, "scaler": {"scale": 65536.0}, "args": args} | more


def lightning_bundle(state: dict[str, Tensor]) -> dict[str, Any]:
    """What Lightning 1.1 saves, with objects of Lightning's and OmegaConf's classes. Call within `foreign_classes`."""
    checkpoint = sys.modules["pytorch_lightning.callbacks.model_checkpoint"].ModelCheckpoint
    config = sys.modules["omegaconf.dictconfig"].DictConfig()
    node = sys.modules["omegaconf.nodes"].AnyNode()
    node.__dict__.update(_val=0.5, _metadata=sys.modules["omegaconf.base"].Metadata())
    config.__dict__.update(_content={"lr": node}, _metadata=sys.modules["omegaconf.base"].ContainerMetadata())
    return {
        "epoch": 11,
        "global_step": 4000,
        "pytorch-lightning_version": "1.1.4",
        "callbacks": {checkpoint: {"best_model_score": torch.tensor(1.5), "best_model_path": "x.ckpt"}},
        "optimizer_states": [{"state": {}, "param_groups": []}],
        "hyper_parameters": config,
        "state_dict": state,
    }


class foreign_classes:
    """While entered, the classes that GLoRIA's file refers to can be imported, as on the machine that saved it."""

    _CLASSES = (
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
        ("pytorch_lightning.callbacks.early_stopping", "EarlyStopping"),
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.base", "ContainerMetadata"),
        ("omegaconf.base", "Metadata"),
        ("omegaconf.nodes", "AnyNode"),
    )

    def __enter__(self) -> None:
        for module, name in self._CLASSES:
            parts = module.split(".")
            for i in range(1, len(parts) + 1):
                sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
            setattr(sys.modules[module], name, type(name, (), {"__module__": module}))

    def __exit__(self, *_: object) -> None:
        for name in [n for n in sys.modules if n.split(".")[0] in ("pytorch_lightning", "omegaconf")]:
            del sys.modules[name]


def vocabulary(path: Path, words: int) -> None:
    """A vocab.txt of this many words: BERT's special ones, letters, some of radiology, the rest made up."""
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,0123456789"]
    known += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    known += ["heart", "lung", "clear", "no", "effusion", "Heart", "Lung", "E", "H", "N", "[", "]"]
    path.write_text("\n".join([*known, *(f"word{i}" for i in range(words - len(known)))]) + "\n")


def write(name: str, folder: Path, *, depth: int | None = None) -> tuple[Path, dict[str, Tensor]]:
    """The published file of an encoder, and the network's tensors in it under the file's own names.

    `depth` counts transformer blocks, or blocks a stage of a ResNet; None for the real number.
    """
    folder.mkdir(exist_ok=True)
    blocks = depth or 12
    if name in ("medical-mae", "mrm"):
        encoder = random_tensors(vit(blocks))
        if name == "medical-mae":
            beyond = mae_decoder(8, 512, 768)
        else:
            beyond = mae_decoder(4, 768, 3072) | bert(2, 100, "bert_encoder.model.bert.", d=384)
            beyond |= {"bert_encoder.model.cls.predictions.bias": (100,), "bert_mlp.weight": (384, 768)}
        path = folder / {"medical-mae": "vit-b_CXR_0.5M_mae.pth", "mrm": "MRM.pth"}[name]
        torch.save(trainer_bundle(encoder | idle_tensors(beyond)), path)
        return path, encoder
    if name == "c2l":
        encoder = random_tensors(resnet("basic", (depth or 2,) * 4, "encoder.module."))
        ema = random_tensors(resnet("basic", (depth or 2,) * 4, "encoder.module.", fc=128), 2)
        head = random_tensors({"encoder.module.fc.weight": (128, 512), "encoder.module.fc.bias": (128,)})
        contrast = {"memory": torch.zeros(64, 128), "params": torch.tensor([16384, 0.07])}
        bundle = trainer_bundle(encoder | head, opt=argparse.Namespace(alpha=0.999), contrast=contrast, model_ema=ema)
        path = folder / "res18_C2L.pth"
        torch.save(bundle, path, _use_new_zipfile_serialization=False)
        return path, encoder
    if name == "gloria":
        encoder = random_tensors(resnet("bottleneck", _stages(depth), "gloria.img_encoder.model."))
        beyond: Shapes = {"gloria.img_encoder.global_embedder.weight": (768, 2048)}
        beyond |= {"gloria.img_encoder.global_embedder.bias": (768,)}
        beyond |= {"gloria.img_encoder.local_embedder.weight": (768, 1024, 1, 1)}
        beyond |= bert(1, 100, "gloria.text_encoder.model.")
        path = folder / "chexpert_resnet50.ckpt"
        with foreign_classes():
            torch.save(lightning_bundle(encoder | idle_tensors(beyond)), path)
        return path, encoder
    if name == "biovil-t":
        shapes = resnet("bottleneck", _stages(depth), "encoder.encoder.")
        shapes |= {"encoder.backbone_to_vit.weight": (256, 2048, 1, 1), "encoder.missing_previous_emb": (1, 256, 1, 1)}
        encoder = random_tensors(shapes)
        head = {"encoder.encoder.fc.weight": (1000, 2048), "encoder.encoder.fc.bias": (1000,)}
        path = folder / "biovil_t_image_model_proj_size_128.pt"
        torch.save(encoder | idle_tensors(head | biovil_t_pooler()), path)
        return path, encoder
    if name == "biomedclip":
        encoder = random_tensors(vit(blocks, "visual.trunk."))
        beyond = {"visual.head.proj.weight": (512, 768), "logit_scale": ()}
        beyond |= {"text.proj.0.weight": (640, 768), "text.proj.2.weight": (512, 640)}
        beyond |= bert(1, 100, "text.transformer.")
        path = folder / "open_clip_pytorch_model.bin"
        torch.save(encoder | idle_tensors(beyond), path)
        return path, encoder
    if name == "rad-dino":
        encoder = random_tensors(dinov2(blocks))
        save_file(encoder, folder / "model.safetensors", metadata={"format": "pt"})
        return folder / "model.safetensors", encoder
    words = 28996 if name == "bio-clinicalbert" else 30522
    vocabulary(folder / "vocab.txt", words)
    encoder = random_tensors(bert(blocks, words, position_ids=False))
    heads = bert_heads(words) | {"bert.embeddings.position_ids": (1, 512)}
    if name == "biovil-t-bert":
        heads |= {
            "cls_projection_head.dense_to_hidden.weight": (128, 768),
            "cls_projection_head.LayerNorm.bias": (128,),
        }
        save_file(encoder | random_tensors(heads, 1), folder / "model.safetensors", metadata={"format": "pt"})
        return folder / "model.safetensors", encoder
    torch.save(encoder | idle_tensors(heads), folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin", encoder


def _stages(depth: int | None) -> tuple[int, ...]:
    return (depth,) * 4 if depth else (3, 4, 6, 3)
