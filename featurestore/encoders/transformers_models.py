"""Encoders whose network is a class of transformers: vision transformers, and BERT for reports.

`spec.architecture` is the class and the fields of its configuration, so no file of the hub but the tensors (and, for
BERT, the vocabulary) is read: nothing there can choose a class or bring code.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from .frozen import ImageEncoder, TextEncoder
from .loading import load_tensors
from .spec import EncoderSpec, TextPreprocessing
from .timm_models import split_tokens
from .weights import weight_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor


def network(spec: EncoderSpec) -> Any:
    """The network on the ambient device, filled with random numbers."""
    import transformers

    model_class = getattr(transformers, spec.architecture.name)
    # BERT's pooler belongs to sentence tasks, and no published file of these encoders is trusted to hold a trained one.
    without = {"add_pooling_layer": False} if spec.modality == "text" else {}
    return model_class(_configuration(spec), **without)


def published_state(spec: EncoderSpec) -> "dict[str, Tensor]":
    """Names and shapes of the file's tensors: transformers 5 has renamed some in memory, files keep the old names."""
    from transformers.core_model_loading import revert_weight_conversion

    model = network(spec)
    return revert_weight_conversion(model, model.state_dict())


def load_network(spec: EncoderSpec) -> Any:
    """The network with its weights, in evaluation mode, on the CPU."""
    import torch
    import transformers

    tensors = load_tensors(spec)
    model_class = getattr(transformers, spec.architecture.name)
    without = {"add_pooling_layer": False} if spec.modality == "text" else {}
    with quiet():
        # A plain load_state_dict would not know the names that transformers 5 has changed.
        model, found = model_class.from_pretrained(
            None,
            config=_configuration(spec),
            state_dict=dict(tensors),
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **without,
        )
    check_loading(spec.name, found)
    return model.eval()


def check_loading(name: str, found: Mapping[str, Any]) -> None:
    """DataError where transformers reports that anything was missing, left over or of another shape."""
    wrong = {kind: sorted(map(str, found[kind])) for kind in found if found[kind]}
    if wrong:
        kinds = "; ".join(f"{kind.replace('_', ' ')}: {', '.join(names[:6])}" for kind, names in wrong.items())
        raise DataError(f"the weights of encoder {name!r} do not fit this version of transformers: {kinds}.")


def build_image(spec: EncoderSpec, *, device: str) -> ImageEncoder:
    """An image encoder with its weights on `device`. Tokens are last_hidden_state, after the final norm."""
    return image_encoder_of(spec, load_network(spec), device=device)


def image_encoder_of(spec: EncoderSpec, model: Any, *, device: str) -> ImageEncoder:
    """An encoder of a loaded vision transformer."""
    model.to(device)

    def forward(images: "Tensor") -> "tuple[Tensor, Tensor | None]":
        return split_tokens(model(pixel_values=images).last_hidden_state, spec.tokens)

    return ImageEncoder(spec, forward, device=device)


def build_bert(spec: EncoderSpec, *, device: str) -> TextEncoder:
    """A BERT with its weights on `device`. Tokens are last_hidden_state; [CLS] and [SEP] are kept."""
    files = {path.name: path for path in weight_files(spec)}
    return text_encoder_of(spec, load_network(spec), wordpiece(files["vocab.txt"], spec), device=device)


def text_encoder_of(spec: EncoderSpec, model: Any, tokenizer: "Tokenizer", *, device: str) -> TextEncoder:
    """An encoder of a loaded text transformer and a tokenizer that is set up."""
    assert isinstance(spec.preprocessing, TextPreprocessing)
    model.to(device)

    def tokenize(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False).ids

    def forward(ids: "Tensor", mask: "Tensor") -> "Tensor":
        return model(input_ids=ids, attention_mask=mask).last_hidden_state

    vocabulary = tokenizer.get_vocab()
    special = [vocabulary[token] for token in spec.preprocessing.special_tokens]
    return TextEncoder(spec, tokenize, forward, device=device, special_ids=special)


def wordpiece(vocabulary: Path, spec: EncoderSpec) -> "Tokenizer":
    """BERT's tokenizer over a vocab.txt. One that threads share.

    Raises:
        DataError: the vocabulary is damaged.
    """
    from transformers import BertTokenizer

    try:
        # By class: AutoTokenizer would ask on standard input whether to run the code of a folder that brings some.
        wrapper = BertTokenizer(vocab=str(vocabulary), do_lower_case=bool(spec.lower_case))
    except MemoryError:
        raise
    except Exception as error:
        raise DataError(f"the vocabulary {vocabulary.name} of encoder {spec.name!r} is damaged: {error}") from error
    words, rows = len(wrapper), spec.architecture.options["vocab_size"]
    if words != rows:
        raise DataError(
            f"the vocabulary {vocabulary.name} has {words} words, encoder {spec.name!r} has {rows}: it is another's."
        )
    return set_up(wrapper.backend_tokenizer)


def set_up(tokenizer: "Tokenizer") -> "Tokenizer":
    """No padding and no cutting, which the encoder does; special tokens written inside a report are ordinary text."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True
    return tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and loading reports: what is wrong becomes an error of ours."""
    from transformers.utils import logging as hub

    logger = logging.getLogger("transformers")
    level, bars = logger.level, hub.is_progress_bar_enabled()
    logger.setLevel(logging.CRITICAL)
    hub.disable_progress_bar()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            hub.enable_progress_bar()


def _configuration(spec: EncoderSpec) -> Any:
    import transformers

    name = spec.architecture.name.removesuffix("Model") + "Config"
    return getattr(transformers, name)(**spec.architecture.options, attn_implementation="sdpa")
