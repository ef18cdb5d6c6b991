#!/usr/bin/env bash
# Goes on with danet_ocr of run.sh on CamVid at stride 8, and with the bundled dubai-s on Dubai, both with rare classes weighted
# up and cross entropy + Dice, and scores them on val. About two hours of one CPU core. Run it again and it goes on.
set -euo pipefail
DATA=${1:?usage: longer.sh DATA OUT}
OUT=${2:?usage: longer.sh DATA OUT}    # that of run.sh
common=(--batch 4 --crop 384 --loss ce+dice --class-weights balanced --balance 0.5 --backbone-rate 1.0 --warmup 20)
${RUN:-} regard train "$DATA/camvid" --out "$OUT/camvid-longer" --init "$OUT/camvid-danet_ocr/last.safetensors" "${common[@]}" \
    --config.output-stride 8 --steps 700 --seed 1 --learning-rate 1e-3 --average 0.98 --scale 1.0 2.0 --evaluate-every 175
${RUN:-} regard train "$DATA/dubai" --out "$OUT/dubai-longer" --init dubai-s "${common[@]}" \
    --overhead --steps 200 --seed 2 --learning-rate 5e-4 --average 0.97 --scale 0.75 2.0 --evaluate-every 50
for set in camvid dubai; do
    place=$OUT/$set-longer
    [ -s "$place/one.json" ] || ${RUN:-} regard evaluate "$place/last.safetensors" "$DATA/$set" --save "$place/one.json"
    [ -s "$place/many.json" ] || ${RUN:-} regard evaluate "$place/last.safetensors" "$DATA/$set" --scales 1.0 1.5 --flip \
        --save "$place/many.json"
done
