"""Step model: a Llama checkpoint so small that a CPU serves it at once, plain and quantised, made without any library.

Its weights are random, yet its text can be read: one dimension of the hidden state is the same for every token, and the
output layer uses it to prefer words, allow printable characters and all but forbid the rest. So replies are a salad of
words, and end by `max_tokens`, never by chance.
"""

import array
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import quantised, tensors
from .steps import CACHE, digest, fresh_directory
from .tensors import Matrix, Stored, safetensors, store

MODELS = CACHE / "models"
NAME = "tiny"
STAMP = ".recipe"

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, VOCABULARY, POSITIONS = 256, 512, 2, 4, 2, 320, 2048
HEAD = HIDDEN // HEADS
SEED = 20261101

SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|turn|>"]
PAD, BEGIN, END = 0, 1, 2
WORDS_TEXT = """
account answer audit bank branch budget cash change check city client cloud control cost credit data day debt
demand edge exchange fund gateway growth house income interest ledger limit loan market model month network note
number office order payment policy price proof question rate record report request result risk rule sale service
share site total trust
"""
WORDS = WORDS_TEXT.split()
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|turn|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def prepare() -> str | None:
    """Write the checkpoints that this recipe has not written yet."""
    recipe = digest(*(Path(source).read_text() for source in (__file__, quantised.__file__, tensors.__file__)))
    forms = {NAME: None} | {f"{NAME}-{name}": form for name, form in quantised.FORMS.items()}
    stale = {name: form for name, form in forms.items() if not written(MODELS / name, recipe)}
    if not stale:
        return None
    tokens = vocabulary()
    values = weights(tokens)
    for name, form in stale.items():
        with fresh_directory(MODELS / name, STAMP) as directory:
            for file, content in {
                "config.json": configuration(form),
                "generation_config.json": {"bos_token_id": BEGIN, "eos_token_id": END, "pad_token_id": PAD},
                "tokenizer.json": tokenizer(tokens),
                "tokenizer_config.json": tokenizer_configuration(),
            }.items():
                (directory / file).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
            (directory / "model.safetensors").write_bytes(safetensors(stored(values, form)))
            (directory / STAMP).write_text(recipe)
    return f"wrote {', '.join(stale)} in {MODELS}"


def written(directory: Path, recipe: str) -> bool:
    """Tell whether this recipe has written the checkpoint there."""
    stamp = directory / STAMP
    return stamp.is_file() and stamp.read_text() == recipe


def stored(values: Mapping[str, Matrix], form: quantised.Form | None) -> dict[str, Stored]:
    """Return the tensors as the checkpoint holds them: all in full precision, or the projections quantised."""
    if form:
        return quantised.quantise(values, form)
    return {name: store("F32", matrix.shape, matrix.values) for name, matrix in values.items()}


def vocabulary() -> list[str]:
    """Return the tokens in order of their ids: special ones, the 256 bytes, words with the space before them."""
    tokens = [*SPECIAL, *byte_characters(), *(f"Ġ{word}" for word in WORDS)]
    assert len(set(tokens)) == VOCABULARY  # noqa: S101  (a wrong word list is a mistake in this file)
    return tokens


def byte_characters() -> list[str]:
    """Return the character that stands for each byte in GPT-2's byte-level encoding (so a space is Ġ)."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def configuration(form: quantised.Form | None) -> dict[str, Any]:
    """Return config.json."""
    content: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }
    if form:
        content |= {"torch_dtype": form.dtype, "quantization_config": form.configuration}
    return content


def tokenizer(tokens: list[str]) -> dict[str, Any]:
    """Return tokenizer.json: byte-level, without merges; a word of the vocabulary is one token."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for number, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": True,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [],
        },
    }


def tokenizer_configuration() -> dict[str, Any]:
    """Return tokenizer_config.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": POSITIONS,
        "clean_up_tokenization_spaces": False,
        "bos_token": SPECIAL[BEGIN],
        "eos_token": SPECIAL[END],
        "pad_token": SPECIAL[PAD],
        "chat_template": CHAT_TEMPLATE,
    }


def weights(tokens: list[str]) -> dict[str, Matrix]:
    """Return the weights of the model by the names of their tensors.

    Dimension 0 carries the preference for words: the embedding sets it, no layer reads it (norm weight 0) or writes it
    (row 0 of the two projections back is 0), and the output layer's column 0 turns it into an offset a token.
    """
    generator = random.Random(SEED)  # noqa: S311  (weights, no secrets)

    def matrix(rows: int, columns: int, deviation: float, *, silent_row: bool = False) -> Matrix:
        bound = deviation * math.sqrt(3.0)
        values = array.array("f", (bound * (2.0 * generator.random() - 1.0) for _ in range(rows * columns)))
        if silent_row:
            values[:columns] = array.array("f", bytes(4 * columns))
        return Matrix((rows, columns), values)

    def norm(first: float) -> Matrix:
        return Matrix((HIDDEN,), array.array("f", [first] + [1.0] * (HIDDEN - 1)))

    embedding = matrix(VOCABULARY, HIDDEN, 1.0)
    output = matrix(VOCABULARY, HIDDEN, 1.5 / math.sqrt(HIDDEN))
    for number, token in enumerate(tokens):
        embedding.values[number * HIDDEN] = 6.0
        output.values[number * HIDDEN] = preference(number, token)

    matrices = {"model.embed_tokens.weight": embedding, "lm_head.weight": output, "model.norm.weight": norm(1.0)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        back_attention = matrix(HIDDEN, HEADS * HEAD, 1 / math.sqrt(HIDDEN), silent_row=True)
        back_mlp = matrix(HIDDEN, INTERMEDIATE, 1 / math.sqrt(INTERMEDIATE), silent_row=True)
        matrices |= {
            f"{prefix}.input_layernorm.weight": norm(0.0),
            f"{prefix}.self_attn.q_proj.weight": matrix(HEADS * HEAD, HIDDEN, 1 / math.sqrt(HIDDEN)),
            f"{prefix}.self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN, 1 / math.sqrt(HIDDEN)),
            f"{prefix}.self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN, 1 / math.sqrt(HIDDEN)),
            f"{prefix}.self_attn.o_proj.weight": back_attention,
            f"{prefix}.post_attention_layernorm.weight": norm(0.0),
            f"{prefix}.mlp.gate_proj.weight": matrix(INTERMEDIATE, HIDDEN, 1 / math.sqrt(HIDDEN)),
            f"{prefix}.mlp.up_proj.weight": matrix(INTERMEDIATE, HIDDEN, 1 / math.sqrt(HIDDEN)),
            f"{prefix}.mlp.down_proj.weight": back_mlp,
        }
    return matrices


def preference(number: int, token: str) -> float:
    """Return the weight of dimension 0 (about 5 after the last norm) in a token's logit."""
    if token.startswith("Ġ") and len(token) > 1:
        return 1.0
    if number >= len(SPECIAL) and len(token) == 1 and (token == "Ġ" or "!" <= token <= "~"):  # noqa: S105
        return 0.0
    return -6.0
