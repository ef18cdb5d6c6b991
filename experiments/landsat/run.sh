#!/usr/bin/env bash
# Six bands of Landsat 7 and 34 polygons: train, score, map; other bands are refused. DATA holds `landsat7_nc` and `weights`
# with timm's tf_efficientnet_lite0.pth. About 1 minute of one CPU core's time for each of three seeds. Needs ogr2ogr and
# gdal_translate.
set -euo pipefail
DATA=${1:?usage: run.sh DATA OUT}
OUT=${2:?usage: run.sh DATA OUT}
mkdir -p "$OUT"
cp "$DATA/landsat7_nc/image.tif" "$OUT/image.tif"
# The GeoJSON says EPSG:4326 by its format; its coordinates are the scene's.
gdalsrsinfo -o wkt "$OUT/image.tif" > "$OUT/crs.wkt"
rm -f "$OUT/fields.gpkg"
ogr2ogr -unsetFid -a_srs "$OUT/crs.wkt" "$OUT/fields.gpkg" "$DATA/landsat7_nc/training_polygons.geojson"
cat > "$OUT/fields.json" <<JSON
{"images": ["image.tif"], "labels": "fields.gpkg", "column": "label", "touched": true,
 "classes": ["developed", "agriculture", "herbaceous", "shrubland", "forest", "water", "sediment"]}
JSON
network=(--architecture danet_ocr --backbone tf_efficientnet_lite0 --config.width 128 --config.output-stride 8
         --pretrained "$DATA/weights/tf_efficientnet_lite0.pth")
# Val is scored in windows as large as the crops (--window 96, what regard takes for a scene): a network that looks at a
# whole image was never trained on so much ground at once.
for seed in 0 1 2; do
    regard train "$OUT/fields.json" -o "$OUT/seed$seed" "${network[@]}" --balance 1 --rot90 --colour 0 --batch 4 \
        --crop 96 --window 96 --scale 1 2 --steps 80 --evaluate-every 20 --backbone-rate 1.0 --learning-rate 1e-3 \
        --warmup 10 --ema 0.95 --seed "$seed"
    for which in best last; do
        regard evaluate "$OUT/seed$seed/$which.safetensors" "$OUT/fields.json" --window 96 \
            --save "$OUT/seed$seed/$which.json"
        regard evaluate "$OUT/seed$seed/$which.safetensors" "$OUT/fields.json" --save "$OUT/seed$seed/${which}_whole.json"
    done
done
python -m experiments.landsat.pixels "$OUT/fields.json"
regard predict "$OUT/seed0/best.safetensors" "$OUT/image.tif" -o "$OUT/map.tif" --tile 96 --overlap 32
gdal_translate -q -b 3 -b 2 -b 1 "$OUT/image.tif" "$OUT/three.tif"
if regard predict "$OUT/seed0/best.safetensors" "$OUT/three.tif" -o "$OUT/no.tif"; then exit 1; fi
