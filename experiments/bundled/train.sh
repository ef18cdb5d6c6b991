#!/usr/bin/env bash
# Trains the two bundled models. DATA holds the folders `dubai` and `bluemarble_landcover`, and `weights` with timm's
# tf_efficientnet_lite0.pth. On 2 CPU cores about 45 min and 25 min.
set -euo pipefail
DATA=${1:?usage: train.sh DATA OUT}
OUT=${2:?usage: train.sh DATA OUT}
common=(--architecture danet_ocr --backbone tf_efficientnet_lite0 --pretrained "$DATA/weights/tf_efficientnet_lite0.pth"
        --config.width 128 --batch 4 --learning-rate 1e-3 --backbone-rate 1.0)

regard train "$DATA/dubai" --out "$OUT/dubai-s" "${common[@]}" --config.output_stride 16 \
    --steps 1000 --crop 512 --overhead --evaluate-every 200
regard train "$DATA/bluemarble_landcover" --out "$OUT/globe-s" "${common[@]}" --config.output_stride 8 \
    --steps 800 --crop 256 --scale 0.75 2.0 --evaluate-every 200
