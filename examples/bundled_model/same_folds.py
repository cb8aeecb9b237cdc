"""Give the split of a workspace the folds of a packed model.

    skinlesion download --from isic2018 --split kfold --folds 3
    skinlesion download --from isic2017 --append --source-name isic2017
    python examples/bundled_model/same_folds.py builtin --workspace WORKSPACE

`train --init MODEL --folds K` refuses folds other than those of the model: a network would be evaluated on
images that it had been trained on. The folds that `download` makes depend on its revision; those of the model
are packed with it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from skinlesion_cli.artifacts.bundle import resolve_model
from skinlesion_cli.artifacts.manifest import Manifest
from skinlesion_cli.artifacts.predictions import Predictions
from skinlesion_cli.artifacts.split import Split
from skinlesion_cli.artifacts.workspace import Workspace
from skinlesion_cli.errors import name_items


def main() -> None:
    """Write the split of the workspace again, with the folds of the model."""
    parser = argparse.ArgumentParser(description="Give the split of a workspace the folds of a packed model.")
    parser.add_argument("model", help="builtin, or the folder of a model that was packed --with-predictions")
    parser.add_argument(
        "--workspace", type=Path, required=True, help="in which `download --split kfold` has run"
    )
    arguments = parser.parse_args()

    workspace = Workspace(arguments.workspace)
    manifest = Manifest.load(workspace.manifest)
    split = Split.load(workspace.split, manifest)
    packed = Predictions.load(resolve_model(arguments.model).ensemble_predictions("val")).table
    folds = split.table["id"].map(packed.set_index("id")["fold"])
    unknown = split.table["id"][folds.isna()].tolist()
    if unknown:
        parser.error(
            f"the model has no fold for {len(unknown)} images of the workspace: {name_items(unknown)}"
        )
    # Saving checks that no lesion is in two folds.
    replace(split, table=split.table.assign(fold=folds)).save(workspace.split, manifest)
    sizes = ", ".join(str(n) for n in folds.value_counts().sort_index())
    print(f"{workspace.split}: {folds.nunique()} folds of {sizes} images")


if __name__ == "__main__":
    main()
