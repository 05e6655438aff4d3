"""What folders of splits are called."""

import re

ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "eval", "evaluation", "dev", "calib", "calibration"),
}
_NOUNS = ("set", "data", "dataset", "image", "images", "img", "imgs", "split", "folder", "files", "photos", "pictures")
"""Words that may follow a split's, as one with it or apart: ``testset``, ``train2017``, ``Training Data``."""
_ROLE_OF = {word + noun: role for role, words in ROLES.items() for word in words for noun in ("", *_NOUNS)}
_UNLABELLED = frozenset(
    ["pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "unknown", "unsup", "unsupervised"]
)
_WORDS = re.compile(r"[^\W\d_]+|\d+")


def split_role(name: str) -> str | None:
    """Return ``train``, ``test`` or ``val`` where a folder of this ``name`` may be that split, e.g. ``seg_train``.

    The word stands at the end, after any prefix, in any case; a name of two splits (``train_val``) is none.
    """
    words = _words(name)
    while len(words) > 1 and (words[-1] in _NOUNS or words[-1].isdecimal()):
        words.pop()
    roles = {_ROLE_OF[word] for word in words if word in _ROLE_OF}
    return _ROLE_OF.get(words[-1]) if words and len(roles) == 1 else None


def is_bare(name: str) -> bool:
    """Return whether ``name`` is a split's and nothing more."""
    return any(name.lower() in words for words in ROLES.values())


def is_unlabelled(name: str) -> bool:
    """Return whether a folder of this ``name`` holds images without classes, e.g. ``seg_pred``."""
    return not _UNLABELLED.isdisjoint(_words(name))


def _words(name: str) -> list[str]:
    """Return the words of ``name`` in lower case, camel case divided."""
    return _WORDS.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
