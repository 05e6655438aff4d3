"""Which folders are splits and which are classes, judged by what they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.printable import printable
from pipeline.core.text_table import counted
from pipeline.data.image_kinds import IMAGE_KINDS
from pipeline.data.sources.image_tree import ImageTree
from pipeline.data.sources.split_names import is_bare, is_unlabelled, split_role

Show = Callable[[Path], str]
"""From a path to what the user calls it."""
ClassFolders = dict[str, list[ImageTree]]
"""From a class to its folders: one, or several whose names are the same to people."""

EXPECTED = "expected <class>/<images>, or train/<class>/<images> with test/<class> or val/<class> beside it"
READ = ", ".join(kind.name for kind in IMAGE_KINDS)
JOINER, NON_JOINER = "\u200d", "\u200c"
"""Characters without a form of their own that Persian, Indian scripts and emoji are written with."""
LISTED = 8
"""Names that a message lists."""


@dataclass
class Layout:
    """The class folders of each split."""

    splits: dict[str, ClassFolders]
    """``train`` always; ``test`` and ``val`` where there are such folders."""
    unused: list[ImageTree] = field(default_factory=list)
    """Folders with images that are no class's."""
    remarks: list[str] = field(default_factory=list)
    """What the user should know of how the folders were understood."""


def find_layout(top: ImageTree, show: Show) -> Layout:
    """Return what the folders in ``top`` are.

    A class is a folder that holds images, itself or below; a split is a folder of class folders with a split's name.
    Folders around all of it, or doubled ones, are stepped into. Images without a class beside splits are not used.

    Raises:
        UserError: there is more than one way to understand the folders, or none.
    """
    layout = _layout(_entered(top), show)
    layout.remarks += _alike(layout.splits["train"], show)
    return layout


def _layout(node: ImageTree, show: Show) -> Layout:
    splits = _splits(node)
    if splits:
        return _with_splits(node, splits, show)
    if _has_splits_inside_classes(node):
        return _splits_inside_classes(node, show)
    _check_no_splits(node, show)
    layout = Layout({"train": _classes(node, show)}, remarks=_twins(node.holding, show))
    if node.images:
        layout.remarks.append(_lost(node, show))
    return layout


def names_of(trees: Sequence[ImageTree] | Sequence[str]) -> str:
    """Return the first names of ``trees``, as a message lists them."""
    names = [printable(tree if isinstance(tree, str) else tree.name) for tree in trees]
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")


def _entered(top: ImageTree) -> ImageTree:
    """Return the folder that holds the splits or classes: ``top``, or the only folder with images, and so on."""
    node = top
    while len(node.holding) == 1:
        (inner,) = node.holding
        if not inner.holding or (split_role(inner.name) and not _splits(inner)):
            break
        node = inner
    return node


def _splits(node: ImageTree) -> list[ImageTree]:
    """Return the folders of ``node`` that are called like splits and hold class folders."""
    return [tree for tree in node.holding if split_role(tree.name) and _holds_classes(tree)]


def _holds_classes(tree: ImageTree) -> bool:
    """Return whether there are class folders in ``tree``: not only one around images that have no class."""
    inner = tree.holding
    if len(inner) != 1 or not inner[0].is_loose:
        return bool(inner)
    name = inner[0].name
    return not (name == tree.name or split_role(name) or is_unlabelled(name) or name.lower() in {"images", "all"})


def _with_splits(node: ImageTree, splits: Sequence[ImageTree], show: Show) -> Layout:
    by_role: dict[str, ImageTree] = {}
    for tree in splits:
        role = str(split_role(tree.name))
        if role in by_role:
            raise UserError(
                f"{show(node.path)}: {names_of([by_role[role], tree])} could both be the {role} split; rename "
                f"or remove one of them ({EXPECTED})"
            )
        by_role[role] = tree
    others = [tree for tree in node.holding if tree not in splits]
    if "train" not in by_role:
        raise UserError(
            f"{show(node.path)}: has {names_of(splits)} but no train folder; {EXPECTED}"
            + (f"; beside it lie {names_of(others)}" if others else "")
        )
    for tree in others:
        expected_here = split_role(tree.name) or is_unlabelled(tree.name) or len(by_role) > 1
        if not (tree.is_loose and expected_here):
            raise UserError(
                f"{show(tree.path)}: holds images, and {names_of(splits)} beside it class folders, so it is neither "
                f"surely a split nor surely a class; {EXPECTED}; move or remove it"
            )
    layout = Layout({}, unused=others)
    for role in ("train", "test", "val"):
        if role in by_role:
            _add_split(layout, role, by_role[role], show)
    if node.images:
        layout.remarks.append(_lost(node, show))
    empty = [tree for tree in node.folders if split_role(tree.name) and not tree.count]
    layout.remarks += [f"{show(tree.path)}: holds no images, so it is not used" for tree in empty]
    return layout


def _add_split(layout: Layout, role: str, tree: ImageTree, show: Show) -> None:
    known = layout.splits.get("train", {})
    while len(tree.holding) == 1 and tree.holding[0].holding and tree.holding[0].name not in known:
        (tree,) = tree.holding  # the folder is doubled
    if tree.images:
        layout.remarks.append(_lost(tree, show))
    layout.splits[role] = _classes(tree, show) if role == "train" else _matched(tree, known, layout.remarks, show)


def _lost(node: ImageTree, show: Show) -> str:
    return f"{show(node.path)}: {len(node.images)} image(s) in no class folder are not used"


def _check_none_is_empty(node: ImageTree, show: Show) -> None:
    """Raise UserError where a class folder in ``node`` has no images."""
    for tree in node.folders:
        if not tree.count:
            found = counted(tree.all_passed_over()) or "nothing"
            raise UserError(
                f"{show(tree.path)}: the class has no images, it holds {found} (read are {READ}); add some or remove "
                "it, or, where files say what is on each image, set prepare_data.source to coco, yolo or voc"
            )


def _classes(node: ImageTree, show: Show) -> ClassFolders:
    """Return the training classes, which are the folders in ``node``."""
    _check_none_is_empty(node, show)
    classes: ClassFolders = {}
    for tree in node.folders:
        classes.setdefault(tree.name, []).append(tree)
    if len(classes) < 2:
        inside = node.all_passed_over() + Counter({"image(s) in no folder": len(node.images)})
        beside = f", beside {counted(inside)}" if inside else ""
        raise UserError(
            f"{show(node.path)}: holds {len(classes)} class folder(s){beside}; {EXPECTED}, two classes or more"
        )
    unreadable = [name for name in classes if not name.replace(JOINER, "").replace(NON_JOINER, "").isprintable()]
    if unreadable:
        raise UserError(
            f"{show(node.path)}: the class name '{printable(unreadable[0])}' is not printable UTF-8; rename the folder"
        )
    return dict(sorted(classes.items()))


def _matched(node: ImageTree, known: ClassFolders, remarks: list[str], show: Show) -> ClassFolders:
    """Return the folders in ``node`` by the training classes ``known``, whose names may differ in case alone."""
    classes: ClassFolders = {}
    for tree in node.folders:
        name = tree.name
        alike = [other for other in known if other.casefold() == name.casefold()]
        if name not in known and len(alike) == 1 and tree.count:
            remarks.append(f"{show(tree.path)}: taken as class {alike[0]!r}, as training calls it")
            name = alike[0]
        if name in known:
            classes.setdefault(name, []).append(tree)
        elif tree.count:
            raise UserError(
                f"{show(node.path)}: class '{printable(name)}' is not among the {len(known)} training classes "
                f"({names_of(list(known))}); add it to train or remove it"
            )
    return classes


def _check_no_splits(node: ImageTree, show: Show) -> None:
    """Raise UserError where the folders in ``node`` look like splits without classes, or like several data sets."""
    named = [tree for tree in node.holding if split_role(tree.name)]
    roles = {split_role(tree.name) for tree in named}
    if len(roles) > 1 and (len(named) == len(node.holding) or len([tree for tree in named if is_bare(tree.name)]) > 1):
        raise UserError(
            f"{show(node.path)}: {names_of(named)} are called like splits but hold images and no class folders; "
            f"{EXPECTED}"
        )
    if len(node.holding) > 1 and all(_splits(tree) for tree in node.holding):
        raise UserError(
            f"{show(node.path)}: {names_of(node.holding)} hold splits each, as several data sets do; give one of them"
        )


def _has_splits_inside_classes(node: ImageTree) -> bool:
    """Return whether every folder in ``node`` is divided into splits, train among them: ``<class>/train/<images>``."""
    return len(node.holding) > 1 and all(
        not tree.images
        and all(split_role(inner.name) and inner.is_loose for inner in tree.holding)
        and "train" in {split_role(inner.name) for inner in tree.holding}
        for tree in node.holding
    )


def _splits_inside_classes(node: ImageTree, show: Show) -> Layout:
    _check_none_is_empty(node, show)
    splits: dict[str, ClassFolders] = {"train": {}}
    for tree in node.holding:
        for inner in tree.holding:
            splits.setdefault(str(split_role(inner.name)), {}).setdefault(tree.name, []).append(inner)
    splits["train"] = dict(sorted(splits["train"].items()))
    return Layout(splits, remarks=[_lost(node, show)] if node.images else [])


def _alike(classes: ClassFolders, show: Show) -> list[str]:
    """Return a remark on each group of ``classes`` whose names differ in case alone."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(name.casefold(), []).append(name)
    return [
        f"{show(classes[names[0]][0].path.parent)}: the classes {', '.join(map(repr, names))} differ in case alone; "
        "rename their folders alike if they are one class"
        for names in groups.values()
        if len(names) > 1
    ]


def _twins(classes: Sequence[ImageTree], show: Show) -> list[str]:
    """Return a remark where all ``classes`` hold the same folders, as splits of other names would."""
    inside = {tuple(tree.name for tree in found.holding) for found in classes if not found.images}
    if len(inside) != 1 or any(found.images for found in classes) or len(min(inside)) < 2:
        return []
    remark = (
        f"{show(classes[0].path.parent)}: {names_of(classes)} are taken as the classes; each holds the same folders "
        f"({names_of(list(min(inside)))}): if those are the classes, call the outer folders train, test and val"
    )
    return [remark]
