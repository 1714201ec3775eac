#!/bin/sh
# Run this in the project's root. WATERBIRDS and CELEBA name the data folders. Further flags are passed on.
set -e
"${PYTHON:-python}" scripts/StudyChannelwiseMostActivatedNeuronExperiments.py \
    --experiment_dataset="waterbirds" \
    --experiment_split="train" \
    --modification_mode="zero" --noise_std=0 --row_back_n_epochs=0 --top_k=3 \
    --celeba_dataset_path="${CELEBA:-data/celeba}" \
    --waterbird_dataset_path="${WATERBIRDS:-data/waterbird_complete95_forest2water2}" "$@"
