#!/bin/sh
# Run this in the project's root. WATERBIRDS and CELEBA name the data folders. Further flags are passed on.
set -e
"${PYTHON:-python}" scripts/SpuriousCorrelationFinetuningPruning.py \
    --experiment_dataset="waterbirds" \
    --experiment_arch="resnet50" \
    --celeba_dataset_path="${CELEBA:-data/celeba}" \
    --waterbird_dataset_path="${WATERBIRDS:-data/waterbird_complete95_forest2water2}" "$@"
