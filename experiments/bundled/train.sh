#!/usr/bin/env bash
# Trains the two bundled models. DATA holds the folders `dubai` and `bluemarble_landcover`, and `weights` with timm's
# tf_efficientnet_lite0.pth. On 2 CPU cores about three hours in all.
set -euo pipefail
DATA=${1:?usage: train.sh DATA OUT}
OUT=${2:?usage: train.sh DATA OUT}
network=(--architecture danet_ocr --backbone tf_efficientnet_lite0 --config.width 128
         --pretrained "$DATA/weights/tf_efficientnet_lite0.pth")
common=(--batch 4 --backbone-rate 1.0)

# Dubai: most of the way at stride 16, where a step is cheap, then at stride 8, where roads are seen.
regard train "$DATA/dubai" --out "$OUT/dubai-16" "${network[@]}" --config.output_stride 16 "${common[@]}" --rot90 \
    --steps 1000 --crop 512 --learning-rate 1e-3 --evaluate-every 200
regard train "$DATA/dubai" --out "$OUT/dubai-8" --init "$OUT/dubai-16/best.safetensors" \
    --config.output_stride 8 "${common[@]}" --rot90 \
    --steps 260 --crop 384 --scale 0.75 2.0 --learning-rate 5e-4 --warmup 20 --ema 0.98 --evaluate-every 130
regard train "$DATA/dubai" --out "$OUT/dubai-s" --init "$OUT/dubai-8/best.safetensors" "${common[@]}" --rot90 \
    --steps 600 --crop 384 --scale 0.75 2.0 --learning-rate 7e-4 --warmup 20 --ema 0.99 --seed 1 --evaluate-every 150

# The globe, in three parts; from the second on, windows of open sea are left out; the second was stopped at step 240; in
# the third, half of the windows are of a class drawn evenly among all.
globe=("$DATA/bluemarble_landcover" "${common[@]}" --crop 256 --window 0 --scale 0.75 2.0 --learning-rate 1e-3)
regard train "${globe[@]}" --out "$OUT/globe-320" "${network[@]}" --config.output_stride 8 --steps 320 --evaluate-every 160
regard train "${globe[@]}" --out "$OUT/globe-240" --init "$OUT/globe-320/last.safetensors" --steps 480 --warmup 20 \
    --ema 0.98 --seed 1 --evaluate-every 120
regard train "${globe[@]}" --out "$OUT/globe-s" --init "$OUT/globe-240/best.safetensors" --steps 420 --warmup 20 \
    --ema 0.99 --seed 2 --balance 0.5 --evaluate-every 140
