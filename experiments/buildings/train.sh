#!/usr/bin/env bash
# Trains buildings-s. DATA holds the folders `banepa`, `oam_buildings` and `weights` (timm's tf_efficientnet_lite0.pth).
# A run that was stopped resumes. On one CPU core about two hours.
set -euo pipefail
DATA=${1:?usage: train.sh DATA OUT}
OUT=${2:?usage: train.sh DATA OUT}
[ -f "$OUT/data/train.txt" ] || python "$(dirname "$0")/data.py" "$DATA" "$OUT/data"

common=(--batch 8 --crop 256 --scale 0.6 1.7 --overhead --colour 0.5 --band-jitter 0.15 --blur 0.3 --balance 0.5
        --loss ce+dice --backbone-rate 1.0)

# Most of the way at stride 16, where a step costs a third; then at stride 8, where small roofs are seen.
regard train "$OUT/data" --out "$OUT/stride-16" "${common[@]}" \
    --architecture danet_ocr --backbone tf_efficientnet_lite0 --config.width 128 --config.output_stride 16 \
    --pretrained "$DATA/weights/tf_efficientnet_lite0.pth" \
    --steps 600 --learning-rate 1e-3 --warmup 40 --average 0.99 --evaluate-every 200
regard train "$OUT/data" --out "$OUT/stride-8" "${common[@]}" --init "$OUT/stride-16/best.safetensors" \
    --config.output_stride 8 \
    --steps 160 --learning-rate 6e-4 --warmup 10 --average 0.97 --seed 1 --evaluate-every 80
