"""The networks of the encoders once more, in plain torch, over the tensors of their published files. Slow and short."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d, embedding, gelu, interpolate, layer_norm, linear, silu
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

State = Mapping[str, Tensor]


def under(tensors: State, prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _linear(x: Tensor, state: State, name: str) -> Tensor:
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _norm(x: Tensor, state: State, name: str, eps: float) -> Tensor:
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int = 12) -> Tensor:
    """Over [b, n, d]."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def vit(state: State, images: Tensor, *, final_norm: bool = True) -> Tensor:
    """MAE's encoder without masking: [b, 197, 768]."""
    x = conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + state["pos_embed"]
    for i in range(sum(name.endswith("attn.qkv.weight") for name in state)):
        block = under(state, f"blocks.{i}.")
        q, k, v = _linear(_norm(x, block, "norm1", 1e-6), block, "attn.qkv").chunk(3, -1)
        x = x + _linear(_attention(q, k, v), block, "attn.proj")
        x = x + _linear(gelu(_linear(_norm(x, block, "norm2", 1e-6), block, "mlp.fc1")), block, "mlp.fc2")
    return _norm(x, state, "norm", 1e-6) if final_norm else x


def dinov2(state: State, images: Tensor) -> Tensor:
    """DINOv2 at its own resolution: [b, 1370, 768]."""
    embed = under(state, "embeddings.")
    x = conv2d(
        images, embed["patch_embeddings.projection.weight"], embed["patch_embeddings.projection.bias"], stride=14
    ).flatten(2)
    x = torch.cat([embed["cls_token"].expand(len(x), -1, -1), x.transpose(1, 2)], 1) + embed["position_embeddings"]
    for i in range(sum(name.endswith("layer_scale1.lambda1") for name in state)):
        layer = under(state, f"encoder.layer.{i}.")
        y = _norm(x, layer, "norm1", 1e-6)
        q, k, v = (_linear(y, layer, f"attention.attention.{name}") for name in ("query", "key", "value"))
        x = x + layer["layer_scale1.lambda1"] * _linear(_attention(q, k, v), layer, "attention.output.dense")
        y = _linear(gelu(_linear(_norm(x, layer, "norm2", 1e-6), layer, "mlp.fc1")), layer, "mlp.fc2")
        x = x + layer["layer_scale2.lambda1"] * y
    return _norm(x, state, "layernorm", 1e-6)


def siglip(state: State, images: Tensor, *, patch: int, heads: int) -> Tensor:
    """The image tower of a SigLIP before its pooling head: [b, n, d]."""
    state = under(state, "vision_model.")
    embed = under(state, "embeddings.")
    x = conv2d(images, embed["patch_embedding.weight"], embed["patch_embedding.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2) + embed["position_embedding.weight"]
    for i in range(sum(name.endswith("layer_norm1.weight") for name in state)):
        layer = under(state, f"encoder.layers.{i}.")
        y = _norm(x, layer, "layer_norm1", 1e-6)
        q, k, v = (_linear(y, layer, f"self_attn.{name}_proj") for name in "qkv")
        x = x + _linear(_attention(q, k, v, heads), layer, "self_attn.out_proj")
        y = gelu(_linear(_norm(x, layer, "layer_norm2", 1e-6), layer, "mlp.fc1"), approximate="tanh")
        x = x + _linear(y, layer, "mlp.fc2")
    return _norm(x, state, "post_layernorm", 1e-6)


def eva_x(state: State, images: Tensor) -> Tensor:
    """EVA-02's encoder at 224, with its rotary embedding of patches and its gated MLP: [b, 197, 768]."""
    x = conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], 1) + state["pos_embed"]
    for i in range(sum(name.endswith("attn.q_bias") for name in state)):
        block = under(state, f"blocks.{i}.")
        y = _norm(x, block, "norm1", 1e-6)
        q = _rotated(linear(y, block["attn.q_proj.weight"], block["attn.q_bias"]))
        k = _rotated(linear(y, block["attn.k_proj.weight"]))
        v = linear(y, block["attn.v_proj.weight"], block["attn.v_bias"])
        x = x + _linear(_attention(q, k, v), block, "attn.proj")
        y = _norm(x, block, "norm2", 1e-6)
        y = silu(_linear(y, block, "mlp.w1")) * _linear(y, block, "mlp.w2")
        x = x + _linear(_norm(y, block, "mlp.ffn_ln", 1e-6), block, "mlp.w3")
    return _norm(x, state, "norm", 1e-6)


def _rotated(x: Tensor) -> Tensor:
    """EVA-02's rotary embedding of [b, 197, 768]: of a head's 64 numbers, pairs turn by row and then by column."""
    turns = torch.arange(14)[:, None] * 10_000.0 ** -(torch.arange(0, 32, 2) / 32)  # [14, 16]
    angles = torch.cat([turns[:, None].expand(-1, 14, -1), turns[None].expand(14, -1, -1)], -1).reshape(196, 1, 32)
    heads = x[:, 1:].unflatten(-1, (12, 32, 2))  # [b, 196, 12, 32, 2]
    even, odd = heads[..., 0], heads[..., 1]
    turned = torch.stack([even * angles.cos() - odd * angles.sin(), odd * angles.cos() + even * angles.sin()], -1)
    return torch.cat([x[:, :1], turned.flatten(2)], 1)


def bert(state: State, ids: Tensor) -> Tensor:
    """One report, no padding: [1, L, 768]."""
    embed = under(state, "embeddings.")
    x = embedding(ids, embed["word_embeddings.weight"]) + embed["position_embeddings.weight"][: ids.shape[1]]
    x = _norm(x + embed["token_type_embeddings.weight"][0], embed, "LayerNorm", 1e-12)
    for i in range(sum(name.endswith("attention.self.query.weight") for name in state)):
        layer = under(state, f"encoder.layer.{i}.")
        q, k, v = (_linear(x, layer, f"attention.self.{name}") for name in ("query", "key", "value"))
        y = _linear(_attention(q, k, v), layer, "attention.output.dense")
        x = _norm(x + y, layer, "attention.output.LayerNorm", 1e-12)
        y = _linear(gelu(_linear(x, layer, "intermediate.dense")), layer, "output.dense")
        x = _norm(x + y, layer, "output.LayerNorm", 1e-12)
    return x


def resnet(state: State, images: Tensor) -> Tensor:
    """torchvision's ResNet up to layer4: [b, d, h, w]."""
    stages = [len({n.split(".")[1] for n in state if n.startswith(f"layer{i}.")}) for i in range(1, 5)]
    network = ResNet(Bottleneck if "layer1.0.conv3.weight" in state else BasicBlock, stages).eval()
    missing, unexpected = network.load_state_dict(dict(state), strict=False)
    assert (set(missing), unexpected) == ({"fc.weight", "fc.bias"}, [])
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def expected(name: str, tensors: State, images: Tensor, choice: str = "") -> Tensor:
    """All tokens of an image encoder, CLS first where there is one, as the authors' code gives them."""
    if name in ("medical-mae", "mrm"):
        return vit(tensors, images, final_norm=choice != "before-norm")
    if name == "biomedclip":
        return vit(under(tensors, "visual.trunk."), images)
    if name == "rad-dino":
        return dinov2(tensors, images)
    if name == "biovil-t":
        grid = resnet(under(tensors, "encoder.encoder."), images)
        if choice in ("official", "static"):
            grid = conv2d(grid, tensors["encoder.backbone_to_vit.weight"])
        if choice == "official":
            grid = torch.cat([grid, tensors["encoder.missing_previous_emb"].expand_as(grid)], 1)
    elif name == "gloria":
        if choice == "299":
            images = interpolate(images, size=(299, 299), mode="bilinear", align_corners=True)
        grid = resnet(under(tensors, "gloria.img_encoder.model."), images)
    else:
        grid = resnet(under(tensors, "encoder.module."), images)
    return grid.flatten(2).transpose(1, 2)
