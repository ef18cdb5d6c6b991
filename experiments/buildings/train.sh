#!/usr/bin/env bash
# Trains buildings-s. DATA holds the folders `banepa`, `oam_buildings` and `weights` (timm's tf_efficientnet_lite0.pth).
# Run it again and it resumes.
set -euo pipefail
DATA=${1:?usage: train.sh DATA OUT}
OUT=${2:?usage: train.sh DATA OUT}
[ -f "$OUT/data/train.txt" ] || python -m experiments.buildings.data "$DATA" "$OUT/data"

common=(--batch 8 --crop 256 --scale 0.6 1.7 --rot90 --colour 0.5 --band-jitter 0.15 --blur 0.3 --balance 0.5
        --loss ce+dice --backbone-rate 1.0)

# Most of the way at stride 16, where a step costs a third; then at stride 8, where small roofs are seen.
regard train "$OUT/data" --out "$OUT/runs/stride-16" "${common[@]}" \
    --architecture danet_ocr --backbone tf_efficientnet_lite0 --config.width 128 --config.output_stride 16 \
    --pretrained "$DATA/weights/tf_efficientnet_lite0.pth" \
    --steps 600 --learning-rate 1e-3 --warmup 40 --ema 0.99 --evaluate-every 200
regard train "$OUT/data" --out "$OUT/runs/stride-8" "${common[@]}" --init "$OUT/runs/stride-16/best.safetensors" \
    --config.output_stride 8 \
    --steps 160 --learning-rate 6e-4 --warmup 10 --ema 0.97 --seed 1 --evaluate-every 80

for run in stride-16 stride-8; do
    python -m experiments.buildings.score "$OUT/runs/$run/best.safetensors" "$DATA/banepa" "$DATA/oam_buildings" \
        --save "$OUT/runs/$run/scores.json"
done
