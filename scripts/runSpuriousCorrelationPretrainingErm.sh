#!/bin/sh
# Run from the project's root. WATERBIRDS and CELEBA name the data folders; what is given here is added as further flags.
set -e
"${PYTHON:-python}" scripts/SpuriousCorrelationPretrainingErm.py \
    --experiment_dataset="waterbirds" \
    --experiment_arch="resnet50" \
    --celeba_dataset_path="${CELEBA:-data/celeba}" \
    --waterbird_dataset_path="${WATERBIRDS:-data/waterbird_complete95_forest2water2}" "$@"
