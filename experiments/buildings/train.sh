#!/usr/bin/env bash
# Trains buildings-s. DATA holds the folders `banepa`, `oam_buildings` and `weights` (timm's tf_efficientnet_lite0.pth).
# Run it again and it resumes.
set -euo pipefail
DATA=${1:?usage: train.sh DATA OUT}
OUT=${2:?usage: train.sh DATA OUT}
[ -f "$OUT/data/train.txt" ] || python -m experiments.buildings.data "$DATA" "$OUT/data"

common=(--rot90 --loss ce+dice --backbone-rate 1.0)
balanced=("${common[@]}" --batch 8 --crop 256 --balance 0.5)

# Half of the crops on a class drawn evenly.
regard train "$OUT/data" --out "$OUT/runs/stride-16" "${balanced[@]}" \
    --scale 0.6 1.7 --colour 0.5 --band-jitter 0.15 --blur 0.3 \
    --architecture danet_ocr --backbone tf_efficientnet_lite0 --config.width 128 --config.output_stride 16 \
    --pretrained "$DATA/weights/tf_efficientnet_lite0.pth" \
    --steps 600 --learning-rate 1e-3 --warmup 40 --ema 0.99 --evaluate-every 200

# Wider scales and colours. The best of its evaluations is the first, at 650; it may be stopped there.
wider=(--scale 0.45 2.0 --colour 0.6 --band-jitter 0.2 --blur 0.4)
regard train "$OUT/data" --out "$OUT/runs/long-16" "${balanced[@]}" "${wider[@]}" \
    --init "$OUT/runs/stride-16/best.safetensors" --config.output_stride 16 \
    --steps 2600 --learning-rate 1e-3 --warmup 40 --ema 0.995 --seed 2 --evaluate-every 650

# Crops drawn evenly over the ground, which raises the precision: buildings-s.
regard train "$OUT/data" --out "$OUT/runs/even-16" "${common[@]}" "${wider[@]}" --batch 6 --crop 320 \
    --init "$OUT/runs/long-16/best.safetensors" --config.output_stride 16 \
    --steps 400 --learning-rate 5e-4 --warmup 20 --ema 0.99 --seed 3 --evaluate-every 100

# A finer grid from the first of these runs, for comparison.
regard train "$OUT/data" --out "$OUT/runs/stride-8" "${balanced[@]}" \
    --scale 0.6 1.7 --colour 0.5 --band-jitter 0.15 --blur 0.3 \
    --init "$OUT/runs/stride-16/best.safetensors" --config.output_stride 8 \
    --steps 160 --learning-rate 6e-4 --warmup 10 --ema 0.97 --seed 1 --evaluate-every 80

for run in stride-16 long-16 even-16 stride-8; do
    python -m experiments.buildings.score "$OUT/runs/$run/best.safetensors" "$DATA/banepa" "$DATA/oam_buildings" \
        --save "$OUT/runs/$run/scores.json"
done

# The mean of three of these runs.
python -m experiments.buildings.soup "$OUT/runs/soup/best.safetensors" "$OUT/data" "1:$OUT/runs/stride-16/best.safetensors" \
    "1:$OUT/runs/long-16/best.safetensors" "2:$OUT/runs/even-16/best.safetensors" --lower 0.5
python -m experiments.buildings.score "$OUT/runs/soup/best.safetensors" "$DATA/banepa" "$DATA/oam_buildings" \
    --ground 0.1 --save "$OUT/runs/soup/scores.json"
