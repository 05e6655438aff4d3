"""Read the images, split them, and pack them."""

from pathlib import Path

import click

from pipeline.core.files import replaced_folder
from pipeline.data.packing import write_splits
from pipeline.data.sources.registry import open_source
from pipeline.data.splits import make_splits
from pipeline.params.loading import load_params
from stages.common import exit_codes, params_option, path_option


@click.command()
@params_option
@path_option("--out", "Folder to write: the splits and data.json.")
@exit_codes
def main(params_path: Path, out: Path) -> None:
    """Pack the images of the chosen source into training, calibration and test splits."""
    params = load_params(params_path)
    data = params.prepare_data
    root = Path(data.root) if data.root else None
    with replaced_folder(out) as folder, open_source(data.source, root, download=data.download) as source:
        splits = make_splits(
            source,
            test_fraction=data.test_fraction,
            calib_fraction=data.calib_fraction,
            max_train_images=data.max_train_images,
            max_test_images=data.max_test_images,
            seed=params.base.seed,
        )
        write_splits(
            splits,
            source.classes,
            folder,
            source=data.source,
            root=data.root,
            image_size=data.image_size,
            max_packed_gib=data.max_packed_gib,
            storage=data.storage,
            unreadable=data.unreadable,
        )


if __name__ == "__main__":
    main()
