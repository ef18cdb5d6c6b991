#!/usr/bin/env bash
# Continues the three networks of run.sh on CamVid at stride 8, with rare classes weighted up and cross entropy + Dice, and
# scores them on val. About two hours of one CPU core each. Run it again and it resumes.
set -euo pipefail
DATA=${1:?usage: longer.sh DATA OUT}
OUT=${2:?usage: longer.sh DATA OUT}    # that of run.sh
for network in danet_ocr danet ocrnet; do
    place=$OUT/camvid-longer-$network
    ${RUN:-} regard train "$DATA/camvid" --out "$place" --init "$OUT/camvid-$network/last.safetensors" --config.output-stride 8 \
        --steps 700 --batch 4 --crop 384 --seed 1 --loss ce+dice --class-weights balanced --balance 0.5 --learning-rate 1e-3 \
        --backbone-rate 1.0 --warmup 20 --ema 0.98 --scale 1.0 2.0 --evaluate-every 175
    [ -s "$place/one.json" ] || ${RUN:-} regard evaluate "$place/last.safetensors" "$DATA/camvid" --save "$place/one.json"
    [ -s "$place/many.json" ] || ${RUN:-} regard evaluate "$place/last.safetensors" "$DATA/camvid" --scales 1.0 1.5 --flip \
        --save "$place/many.json"
done
