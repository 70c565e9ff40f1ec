"""Texts to token ids, without torch: the tokenizer's own file, read by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.checkpoint import Checkpoint, Described
from graft_server.backbones.preprocessing import (
    Arrays,
    Budgets,
    Prepared,
    Preprocessor,
    alone,
    wrong_modality,
)
from graft_server.backbones.text.packing import cost, pack, pad, padded_cost
from graft_server.domain.errors import BackboneError, InvalidError
from graft_server.domain.examples import Input, Kind, Modality
from graft_server.domain.names import shown

CHARACTERS_PER_TOKEN = 64
"""Texts are cut to this many characters per token of the maximum length before they are tokenized: 1 MB of text
takes 0.65 s, of which all but the first kilobytes would be thrown away. Real text has 4 to 5; a word of more
than 100 characters is one unknown token to a WordPiece tokenizer."""

INLINE_CHARACTERS = 2_000
"""Texts up to this length are tokenized on the event loop (30 µs for a sentence); a thread costs 160 µs."""


PACKED_RECIPE, PADDED_RECIPE, TOLD_RECIPE = "packed-text/2", "padded-text/1", "packed-text/3"
"""Name how the encoder's graph is made. Change one whenever the same weights would give other features."""

LONGEST = 2_048
"""The most tokens of a text that are read, whatever the backbone allows: attention costs their square."""

MISMATCH = "BACKBONE_TOKENIZER_MISMATCH"
"""The reason of errors about a tokenizer and weights that do not belong together."""
_REMEDY = (
    "its tokenizer and its weights do not match. Resize the model's embedding to the tokenizer "
    "(resize_token_embeddings) and save both, or give the tokenizer that the weights were trained with"
)
_NAMED = 3
"""The most tokens that a message names."""

_POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}
_WITHOUT_LAST = {"cls", "mean"}
_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_POSITIONS = ("max_position_embeddings", "n_positions")
_POSITIONS_BEHIND_PADDING = {"roberta", "xlm-roberta", "camembert", "mpnet"}
"""Their first text position is the one behind the padding token's id."""
_TOKEN_TYPES = {"bert", "electra"}
"""Tell two texts apart where their configuration does not say otherwise."""
_DIMENSION = ("hidden_size", "dim", "n_embd", "d_model")


def describe_packed(checkpoint: Checkpoint) -> Described:
    """Describes a text backbone whose graph reads packed tokens. Raises BackboneError."""
    pooling = _pooling(checkpoint)
    if pooling not in _WITHOUT_LAST:
        raise BackboneError(
            f"Backbone {checkpoint.name}: an encoder such as {checkpoint.architecture} is pooled by "
            f"{' or '.join(sorted(_WITHOUT_LAST))}, not by its {pooling} token: give another checkpoint.",
            reason="BACKBONE_POOLING_UNKNOWN",
        )
    return _described(
        checkpoint, pooling, TOLD_RECIPE if _takes_token_types(checkpoint.config) else PACKED_RECIPE
    )


def describe_padded(checkpoint: Checkpoint) -> Described:
    """Describes a text backbone whose graph reads padded tokens."""
    pooling = "projection" if checkpoint.architecture == "clip_text_model" else _pooling(checkpoint)
    return _described(checkpoint, pooling, PADDED_RECIPE)


def _described(checkpoint: Checkpoint, pooling: str, recipe: str) -> Described:
    config = checkpoint.config
    max_tokens = _max_tokens(checkpoint)
    dimension = _first(config, ("projection_dim",) if pooling == "projection" else _DIMENSION)
    return Described(
        layers=_first(config, _LAYERS),
        dimension=dimension,
        max_tokens=max_tokens,
        pooling=pooling,
        identity={
            "tokenizer": checkpoint.digest("tokenizer.json"),
            "max_tokens": max_tokens,
            "pooling": pooling,
            "graph": recipe,
        },
    )


def packed_preprocessor(backbone: Backbone) -> TextPreprocessor:
    """Returns a backbone's preprocessor of texts to token ids. Raises BackboneError."""
    config = Checkpoint.open(backbone.name, backbone.folder).config
    tokenizer = packed_tokenizer(backbone.folder, backbone.max_tokens)
    return TextPreprocessor(tokenizer, backbone.dimension, _padding(config))


def is_packed(preprocessor: Preprocessor) -> bool:
    """Whether it collates one row of all texts, instead of a row for each input."""
    return isinstance(preprocessor, TextPreprocessor) and preprocessor.packed


def packed_tokenizer(folder: Path, max_tokens: int) -> TextTokenizer:
    """The tokenizer of such a backbone. Raises BackboneError."""
    config = Checkpoint.open(folder.name, folder).config
    return TextTokenizer(
        folder, max_tokens, token_type_ids=_takes_token_types(config), embedded=embedded(config)
    )


def padded_preprocessor(backbone: Backbone) -> PaddedTextPreprocessor:
    """Returns the preprocessor for a graph that reads padded tokens."""
    config = Checkpoint.open(backbone.name, backbone.folder).config
    tokenizer = TextTokenizer(backbone.folder, backbone.max_tokens, embedded=embedded(config))
    if tokenizer.tells and _takes_token_types(config):
        tokenizer.pairs = False  # the graph has no input for the text of a token
    return PaddedTextPreprocessor(tokenizer, backbone.dimension, _padding(config))


def embedded(config: Mapping[str, Any]) -> int:
    """Returns how many tokens the embedding of a model's texts has; 0: its configuration does not say.

    Weights of another shape than the configuration says are refused: see `backbones.torch.weights`.
    """
    return int(config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size") or 0)


def _padding(config: Mapping[str, Any]) -> int:
    return int(config.get("pad_token_id") or 0)


def _takes_token_types(config: Mapping[str, Any]) -> bool:
    """Whether the model receives, for each token, which text of a pair it belongs to."""
    return int(config.get("type_vocab_size", 2 if config.get("model_type") in _TOKEN_TYPES else 0)) > 1


def _first(config: Mapping[str, Any], names: Sequence[str]) -> int:
    return next((int(config[name]) for name in names if config.get(name)), 0)


def _max_tokens(checkpoint: Checkpoint) -> int:
    """The tokenizer file's own limit is ignored: the default backbone's says 128, its model card 256."""
    config = checkpoint.config
    positions = _first(config, _POSITIONS) or 512
    if checkpoint.architecture in _POSITIONS_BEHIND_PADDING:
        positions -= int(config.get("pad_token_id") or 0) + 1
    positions = min(positions, LONGEST)
    if not checkpoint.has("sentence_bert_config.json"):
        return positions
    settings = checkpoint.json("sentence_bert_config.json")
    return min(int(settings.get("max_seq_length") or positions), positions)


def _pooling(checkpoint: Checkpoint) -> str:
    if not checkpoint.has("1_Pooling/config.json"):
        return "mean"
    settings = checkpoint.json("1_Pooling/config.json")
    modes = [mode for mode, used in settings.items() if mode.startswith("pooling_mode_") and used]
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise BackboneError(
            f"Backbone {checkpoint.name}: its pooling is {' and '.join(modes) or 'none'}; give a checkpoint with one "
            f"of {' or '.join(_POOLINGS)}.",
            reason="BACKBONE_POOLING_UNKNOWN",
        )
    return _POOLINGS[modes[0]]


class TextTokenizer:
    """Turns texts into token ids. Safe to use from several threads.

    Attributes:
        max_tokens: The most tokens of a text that are read, special tokens included.
        vocabulary: Token ids that the model reads are below it.
        strange: The tokens that the model's embedding lacks, by id. A text with one of them is refused.
        always_reads: Whether no text is refused: every text has a token, and every token is in the embedding.
        pairs: Whether it puts a token of its own between the texts of a pair.
        tells: Whether it marks which text of a pair each token belongs to.
        token_type_ids: Whether ids carry that mark too: see `with_token_types`.
    """

    def __init__(
        self, folder: Path, max_tokens: int, *, token_type_ids: bool = False, embedded: int = 0
    ) -> None:
        """Reads a checkpoint's tokenizer.

        Args:
            folder: The checkpoint.
            max_tokens: The most tokens of a text that are read.
            token_type_ids: Whether the model is told which text of a pair each token belongs to.
            embedded: How many tokens the model's embedding has; 0: not known.

        Raises:
            BackboneError: The file cannot be read, or puts a token into every text that the embedding lacks.
        """
        path = folder / "tokenizer.json"
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise BackboneError(
                f"The tokenizer file {path.name} cannot be read: {error}", reason="BACKBONE_FILE_INVALID"
            ) from error
        # The file's own padding and truncation would pad and cut every text to 128 tokens.
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_tokens)
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        pair = tokenizer.encode("a", "a")
        self.pairs = any(pair.special_tokens_mask[1:-1])
        self.tells = any(pair.type_ids)
        self.token_type_ids = token_type_ids and self.tells
        self.embedded = embedded or tokenizer.get_vocab_size()
        self.strange = _beyond(tokenizer, self.embedded) if embedded else {}
        self.vocabulary = min(tokenizer.get_vocab_size(), self.embedded)
        in_every_text = tokenizer.encode("").ids
        self.always_reads = bool(in_every_text) and not self.strange
        self._max_characters = CHARACTERS_PER_TOKEN * max_tokens
        self._refuse_in_every_text(in_every_text)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What users of the checkpoint should know, in sentences."""
        if not self.strange:
            return ()
        named = ", ".join(shown(it) for it in list(self.strange.values())[:_NAMED])
        more = ", ..." if len(self.strange) > _NAMED else ""
        warning = (
            f"The tokenizer has {len(self.strange):,} tokens ({named}{more}) that the embedding of {self.embedded:,} "
            f"tokens lacks, and a text with one of them is refused: {_REMEDY}."
        )
        return (warning,)

    def __call__(self, text: str) -> Prepared:
        """Tokenizes one text, about 30 µs for a sentence. The item is its token ids, special ones included.

        Raises:
            InvalidError: It has no token, or one that the model's embedding lacks.
        """
        cut = len(text) > self._max_characters
        encoding = self._tokenizer.encode(text[: self._max_characters] if cut else text)
        return Prepared(self._ids(encoding, "text"), cut or bool(encoding.overflowing))

    def pair(self, first: str, second: str) -> Prepared:
        """Tokenizes a pair; where it is too long, the longer one is cut. Raises InvalidError; see `__call__`."""
        most = self._max_characters
        cut = len(first) > most or len(second) > most
        encoding = self._tokenizer.encode(first[:most], second[:most])
        ids = self._ids(encoding, "text_pair")
        if self.token_type_ids:
            ids = with_token_types(ids, np.asarray(encoding.type_ids, np.int64))
        return Prepared(ids, cut or bool(encoding.overflowing))

    def many(self, texts: Sequence[str]) -> list[Prepared | InvalidError]:
        """Tokenizes several texts, on all cores; one that `__call__` refuses fails alone."""
        heads = [text[: self._max_characters] for text in texts]
        found: list[Prepared | InvalidError] = []
        encodings = self._tokenizer.encode_batch_fast(heads)
        for text, head, encoding in zip(texts, heads, encodings, strict=True):
            try:
                cut = len(head) < len(text) or bool(encoding.overflowing)
                found.append(Prepared(self._ids(encoding, "text"), cut))
            except InvalidError as error:
                found.append(error)
        return found

    def _ids(self, encoding: Encoding, field: str) -> NDArray[np.int64]:
        """Returns the token ids of a text, shape (tokens,), or raises InvalidError if the model cannot read them."""
        ids = np.asarray(encoding.ids, np.int64)
        if not len(ids):
            raise InvalidError(
                "The backbone's tokenizer leaves no token of the text, which may have invisible characters only: give "
                "a text with something in it.",
                reason="INPUT_EMPTY",
                field=field,
            )
        if self.strange and int(ids.max()) >= self.embedded:
            raise self._strange(int(ids[ids >= self.embedded][0]), field)
        return ids

    def _strange(self, token: int, field: str) -> InvalidError:
        return InvalidError(
            f"The text has the token {shown(self._name(token))} (id {token:,}), which the backbone's embedding of "
            f"{self.embedded:,} tokens lacks: {_REMEDY}. Without that token the text can be read.",
            reason="TOKEN_NOT_EMBEDDED",
            field=field,
            metadata={"token": self._name(token), "id": str(token), "embedded": str(self.embedded)},
        )

    def _refuse_in_every_text(self, ids: Sequence[int]) -> None:
        """Raises BackboneError if the tokens that are put into every text are not all in the embedding."""
        strange = [token for token in ids if token >= self.embedded]
        if strange:
            raise BackboneError(
                f"The tokenizer puts the token {shown(self._name(strange[0]))} (id {strange[0]:,}) into every text, "
                f"which the embedding of {self.embedded:,} tokens lacks: {_REMEDY}.",
                reason=MISMATCH,
            )

    def _name(self, token: int) -> str:
        return str(self._tokenizer.id_to_token(token))

    def to_json(self) -> str:
        """The tokenizer as it is used here, in the format of tokenizer.json."""
        return str(self._tokenizer.to_str())


def _beyond(tokenizer: Tokenizer, embedded: int) -> dict[int, str]:
    """Returns the tokens whose ids are not below `embedded`, by id, in that order."""
    found = ((number, token) for token, number in tokenizer.get_vocab().items() if number >= embedded)
    return dict(sorted(found))


def with_token_types(ids: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns ids that mark the text of a pair, for BERT: -1 - id is a token of the second.

    So an item is one row of numbers, whether it is a text or a pair, wherever it goes: the graph takes them apart.
    """
    return np.where(texts > 0, -1 - ids, ids)


class TextPreprocessor:
    """Texts to token ids, for graphs that read packed tokens. See `preprocessing.Preprocessor`."""

    modality = Modality.TEXT
    packed = True
    budgets = Budgets(cpu=(128, 64, 192, 256, 384), gpu=(8192, 2048, 16384, 32768))

    def __init__(self, tokenizer: TextTokenizer, dimension: int, padding: int = 0) -> None:
        """`padding` is the id of the padding token."""
        self.tokenizer = tokenizer
        self.kinds = frozenset({Kind.TEXT, Kind.TEXT_PAIR} if tokenizer.pairs else {Kind.TEXT})
        self.longest = f"{tokenizer.max_tokens:,} tokens"
        self.always_reads = tokenizer.always_reads
        self.warnings = tokenizer.warnings
        self._dimension = dimension
        self._padding = padding

    def prepare(self, value: Input) -> Prepared:
        """Tokenizes one text or pair."""
        if value.kind is Kind.TEXT:
            return self.tokenizer(value.text)
        if value.kind in self.kinds:
            return self.tokenizer.pair(value.text, value.second)
        raise wrong_modality(value.kind, self.modality, self.kinds)

    def many(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        """Tokenizes several texts, on all cores."""
        tokenized = iter(self.tokenizer.many([it.text for it in inputs if it.kind is Kind.TEXT]))
        return [next(tokenized) if it.kind is Kind.TEXT else alone(self.prepare, it) for it in inputs]

    def quick(self, inputs: Sequence[Input]) -> bool:
        """Whether they are short enough for the event loop."""
        return sum([it.size for it in inputs]) <= INLINE_CHARACTERS

    def collate(self, items: Sequence[NDArray[np.int64]]) -> Arrays:
        """One row of tokens, without padding."""
        return pack(items)

    def price(self, count: int, total: int, longest: int) -> float:
        """In tokens' worth of matrix products."""
        return cost(count, total, longest, self._dimension)

    def made_up(self, generator: np.random.Generator, length: int) -> NDArray[np.int64]:
        """Random tokens; never padding, behind which RoBERTa does not count on. Half of them are a pair's."""
        ids = generator.integers(0, self.tokenizer.vocabulary - 1, min(length, self.tokenizer.max_tokens))
        ids = ids + (ids >= self._padding)
        if self.tokenizer.token_type_ids and len(ids) % 2:
            ids = with_token_types(ids, np.arange(len(ids)) // (len(ids) // 2 + 1))
        return ids

    def typical(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """As long as sentences are: 15 tokens in the middle, now and then 60."""
        return self.made_up(generator, int(np.clip(generator.lognormal(2.6, 0.5), 3, 64)))

    def shortest(self) -> NDArray[np.int64]:
        """Four tokens."""
        return np.ones(4, np.int64)


class PaddedTextPreprocessor(TextPreprocessor):
    """The same for graphs that read padded tokens."""

    packed = False

    def collate(self, items: Sequence[NDArray[np.int64]]) -> Arrays:
        """One row a text, padded to the longest."""
        return pad(items)

    def price(self, count: int, total: int, longest: int) -> float:  # noqa: ARG002 - padding counts instead
        """In tokens' worth of matrix products; padding costs too."""
        return padded_cost(count, longest, self._dimension)
