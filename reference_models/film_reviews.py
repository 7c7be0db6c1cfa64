"""Film-review sentences (Pang and Lee, 2005), and how the networks for sentiment are trained and
measured on them: 5,331 positive and as many negative ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn
from torch.nn import functional

from lepton_compress.artifacts import Split, TensorSpec
from lepton_compress.compress.training import Schedule
from lepton_compress.load.text import TextLoader, load_text
from lepton_compress.preprocess.text import Text, text
from reference_models import card
from reference_models.training import answers, fit, save

SENTENCES: Mapping[str, Any] = {
    "classes": {"negative": "rt-polarity.neg", "positive": "rt-polarity.pos"},
    "sha256": {
        "rt-polarity.neg": "051629c5e8c1b18c1eb17da1f4da0a2a61e6862b99f6475e6e39098a9ea8a65d",
        "rt-polarity.pos": "76fa9295c797491ffbfdf55e838c392656d5691069fa22674928a5cf3435bc38",
    },
    "bytes": 288,
    "calibration": "5 %",
}
VOCABULARY, LENGTH = 8000, 64
TOKENIZER = "tokenizer.json"


def load(seed: int = 0) -> Any:
    """What the loader `text` gives: UTF-8 in uint8 (samples, 288) in three splits, labels int64.

    Raises:
        InputError: the files do not lie in `LEPTON_DATA`.
    """
    return load_text(TextLoader.model_validate(SENTENCES), Path(), seed)


def tokens(raw: np.ndarray, folder: Path) -> np.ndarray:
    """What the preprocessing `text` gives with the tokenizer of a folder: int64 (samples, 64)."""
    spec = TensorSpec("text", raw.dtype.name, ("batch", *raw.shape[1:]))
    return text(Text(tokenizer=TOKENIZER, length=LENGTH), spec, folder).apply(raw)


def write_tokenizer(sentences: list[str], folder: Path) -> None:
    """Whole words and pieces of the training sentences, in lower case: all characters, the 500
    commonest endings of two to five letters, and the commonest words. The package's own trainer
    breaks ties anew each time, so that two trainings would differ."""
    lower, parted = Lowercase(), Whitespace()
    words = Counter(
        word
        for sentence in sentences
        for word, _ in parted.pre_tokenize_str(lower.normalize_str(sentence))
    )
    endings: Counter[str] = Counter()
    for word, count in words.items():
        for length in range(2, min(6, len(word))):
            endings[f"##{word[-length:]}"] += count
    letters = sorted(set("".join(words)))
    held = ["[PAD]", "[UNK]", *letters, *(f"##{each}" for each in letters)]
    held += _commonest(endings, 500)
    held += _commonest(
        Counter({k: n for k, n in words.items() if len(k) > 1}), VOCABULARY - len(held)
    )
    vocabulary = {piece: number for number, piece in enumerate(held)}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    made.normalizer = lower
    made.pre_tokenizer = parted
    made.add_special_tokens(["[PAD]", "[UNK]"])
    made.save(str(folder / TOKENIZER))


def _commonest(counts: Counter[str], most: int) -> list[str]:
    """The commonest, those of one count by the alphabet."""
    return sorted(counts, key=lambda each: (-counts[each], each))[:most]


def bag_of_words(train: tuple[list[str], np.ndarray], held: list[str]) -> np.ndarray:
    """Answers (samples,) of a logistic regression on counts of words: what a network must beat."""
    counter = CountVectorizer(token_pattern=r"\S+")  # noqa: S106
    model = LogisticRegression(max_iter=500).fit(counter.fit_transform(train[0]), train[1])
    found: np.ndarray = model.predict(counter.transform(held))
    return found


def log_count_ratios(ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much likelier a token is in a positive sentence than in a negative one: naive Bayes'
    logarithms of ratios (Wang and Manning, 2012), float32 (vocabulary).

    Args:
        ids: int64 (sentences, length), 0 behind the end.
        labels: (sentences) of 0 and 1.
    """
    shares = []
    for label in (0, 1):
        held = np.zeros(VOCABULARY)
        for row in ids[labels == label]:
            held[np.unique(row)] += 1
        shares.append((held + 1) / (held + 1).sum())
    made: np.ndarray = np.log(shares[1] / shares[0]).astype(np.float32)
    made[:2] = 0  # padding, and what is unknown
    return made


def smoothed(outputs: list[Tensor], _: dict[str, Tensor], targets: Tensor | None) -> Tensor:
    """Cross-entropy with labels smoothed by 10 % (Szegedy et al., 2016)."""
    if targets is None:
        raise ValueError("sentences have labels")
    return functional.cross_entropy(outputs[0], targets, label_smoothing=0.1)


def train_and_write(
    name: str,
    about: str,
    make: Callable[[np.ndarray], nn.Module],
    schedule: Schedule,
    folder: Path,
    *notes: str,
) -> None:
    """Train, compare with the bag of words, and write the tokenizer, the weights and the card.

    Args:
        make: gives the network; may begin at `log_count_ratios` of the tokens.
        notes: of the card.
    """
    parts = load()
    words = {
        split: [each.tobytes().rstrip(b"\0").decode() for each in parts[split]["inputs"]["text"]]
        for split in ("train", "evaluation")
    }
    write_tokenizer(words["train"], folder)
    given = {
        split: tokens(parts[split]["inputs"]["text"], folder) for split in ("train", "evaluation")
    }
    labels, wanted = parts["train"]["targets"], parts["evaluation"]["targets"]
    ratios = log_count_ratios(given["train"], labels)
    split = Split({"ids": given["train"]}, labels)
    made = fit(lambda: make(ratios), split, schedule, label=name, loss=smoothed)
    found = answers(made.module, {"ids": given["evaluation"]}).argmax(1)
    simple = bag_of_words((words["train"], labels), words["evaluation"])
    parameters, macs = card.size(made.module, {"ids": given["evaluation"]})
    card.write(
        folder,
        card.Card(
            name=name,
            about=about,
            data="sentence polarity dataset 1.0, 5,331 positive and 5,331 negative sentences of "
            "film reviews (Pang and Lee, 2005); for research.",
            split="by seed 0: 75 % to train (the tokenizer too), 5 % to calibrate, 20 % to "
            "evaluate.",
            retrain=f"python -m reference_models.{name}.train",
            measured=(
                card.accuracy("evaluation", found, wanted),
                card.accuracy("evaluation, a bag of words instead", simple, wanted),
            ),
            parameters=parameters,
            macs=macs,
            bytes=save(made.module, folder),
            seconds=made.seconds,
            notes=(NOTE, *notes),
        ),
    )


NOTE = (
    "The bag of words is scikit-learn's logistic regression on counts of words, trained and "
    "evaluated on the same sentences. Nothing here was pretrained on other text."
)
