"""What is said where the files of another source of objects lie in the folder."""

from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.data.sources.settings import PrepareData
from pipeline.data.sources.table import SOURCES

FILES = {"coco": "train/_annotations.coco.json", "yolo": "data.yaml", "voc": "Annotations/1.xml"}


@pytest.mark.parametrize("own", FILES)
@pytest.mark.parametrize("other", FILES)
def test_the_source_that_would_read_a_folder_is_named(own: str, other: str, tmp_path: Path) -> None:
    if own == other:
        return
    (tmp_path / "labels").mkdir()
    file = tmp_path / FILES[other]
    file.parent.mkdir(exist_ok=True)
    file.touch()
    with pytest.raises(UserError, match=rf"; it has files as prepare_data\.source={other} reads them$"):
        SOURCES[own].state(PrepareData(source=own, root=str(tmp_path)))


@pytest.mark.parametrize("own", ["coco", "voc"])
def test_a_yaml_without_labels_names_no_source(own: str, tmp_path: Path) -> None:
    (tmp_path / "notes.yaml").touch()
    with pytest.raises(UserError, match=r"expected (is|are)") as caught:
        SOURCES[own].state(PrepareData(source=own, root=str(tmp_path)))
    assert "prepare_data.source" not in str(caught.value)
