#!/usr/bin/env bash
# Trains danet, ocrnet and danet_ocr with the same settings on CamVid and on Dubai, and scores them on val at one scale and at several with
# flip. DATA holds `camvid`, `dubai` and, in `weights`, timm's tf_efficientnet_lite0.pth. About an hour of one CPU core.
# Run it again and it resumes. RUN, if set, stands before each command (taskset -c 1, for instance).
set -euo pipefail
DATA=${1:?usage: run.sh DATA OUT}
OUT=${2:?usage: run.sh DATA OUT}
common=(--backbone tf_efficientnet_lite0 --pretrained "$DATA/weights/tf_efficientnet_lite0.pth"
        --config.width 128 --config.output_stride 16 --steps 250 --batch 4 --crop 384 --seed 0 --loss ce+dice
        --learning-rate 1e-3 --backbone-rate 1.0 --warmup 20 --ema 0.97 --evaluate-every 125)
camvid=(--scale 1.0 2.0 --balance 0.5)
dubai=(--scale 0.75 2.0 --rot90)
for part in camvid:danet_ocr dubai:danet_ocr camvid:danet camvid:ocrnet dubai:danet dubai:ocrnet; do
    set=${part%:*} network=${part#*:}
    declare -n own=$set
    place=$OUT/$set-$network
    extra=()
    [ "$network" != ocrnet ] || extra=(--config.key_width 64)
    ${RUN:-} regard train "$DATA/$set" --out "$place" --architecture "$network" "${common[@]}" "${extra[@]}" "${own[@]}"
done
for part in camvid:danet_ocr dubai:danet_ocr camvid:danet camvid:ocrnet dubai:danet dubai:ocrnet; do
    set=${part%:*} network=${part#*:} place=$OUT/${part/:/-}
    [ -s "$place/one.json" ] || ${RUN:-} regard evaluate "$place/last.safetensors" "$DATA/$set" --save "$place/one.json"
    [ -s "$place/many.json" ] || ${RUN:-} regard evaluate "$place/last.safetensors" "$DATA/$set" --scales 1.0 1.5 --flip \
        --save "$place/many.json"
done
