/** The map: the scene in its own pixels, with the layers on it; places are columns and rows from the top left. */

import { Feature, ImageLayer, ImageTile, interactions, Map as OlMap, Point, Polygon, Projection, RegularShape, Static, Stroke, Style, fromExtent, TileGrid, TileLayer, VectorLayer, VectorSource, View } from './ol.js';
import { SIDE } from './colours.js';
import { $ } from './page.js';
import { about, LAYERS, on, state, update } from './state.js';
import { loaderOf, schedule, view as seen } from './tiles.js';

const [HEIGHT, WIDTH] = about.size;
const EXTENT = [0, -HEIGHT, WIDTH, 0];
const projection = new Projection({ code: 'scene', units: 'pixels', extent: EXTENT });
const resolutions = Array.from({ length: about.finest + 1 }, (_, z) => 2 ** (about.finest - z));
const tileGrid = new TileGrid({ extent: EXTENT, origin: [0, 0], resolutions, tileSize: SIDE });
/** @typedef {import('./state.js').Pixel} Pixel */ export const toMap = (/** @type {Pixel} */ { x, y }) => [x, -y];
export const toPixel = (/** @type {number[]} */ [x, y]) => ({ x, y: -y });
export const isInside = (/** @type {Pixel} */ { x, y }) => x >= 0 && y >= 0 && x < WIDTH && y < HEIGHT;
/** @type {Record<string, any>} */ const layers = {};
for (const [order, name] of LAYERS.entries()) {
  const source = new ImageTile({ loader: loaderOf(name), projection, tileGrid, transition: 0, interpolate: name === 'scene', wrapX: false });
  layers[name] = new TileLayer({ source, zIndex: order, cacheSize: 128, extent: EXTENT });
}
export const drawings = new VectorSource();
const cross = (/** @type {string} */ color, /** @type {number} */ width) => new Style({ image: new RegularShape({ points: 4, radius: 14, radius2: 0, angle: 0, stroke: new Stroke({ color, width }) }), zIndex: 2 });
const pixelMark = new Feature();
pixelMark.setStyle([cross('#fff', 4), cross('#111', 1.5)]);
drawings.addFeature(pixelMark);
const overlay = new ImageLayer({ zIndex: 50 });
const frame = new Feature();
frame.setStyle([new Style({ stroke: new Stroke({ color: '#111', width: 3 }) }), new Style({ stroke: new Stroke({ color: '#fff', width: 1.5, lineDash: [5, 5] }) })]);
drawings.addFeature(frame);

const view = new View({
  projection, center: [WIDTH / 2, -HEIGHT / 2], resolution: 1, constrainResolution: false, enableRotation: false, showFullExtent: true,
  minResolution: 1 / 32, maxResolution: Math.max(1, (2 * Math.max(WIDTH, HEIGHT)) / 300), extent: [-WIDTH / 2, -1.5 * HEIGHT, 1.5 * WIDTH, HEIGHT / 2],
});
export const map = new OlMap({
  target: 'map', view, layers: [...Object.values(layers), overlay, new VectorLayer({ source: drawings, zIndex: 60 })], controls: [],
  interactions: interactions({ altShiftDragRotate: false, pinchRotate: false }), maxTilesLoading: 4096, moveTolerance: 4,
});

/** Show the whole scene. */
export function fit(duration = 0) { view.fit(EXTENT, { padding: [24, 24, 24, 24], duration }); }

/** Bring a pixel into the middle. @param {Pixel} pixel */
export function goTo(pixel, resolution = Math.min(1, view.getResolution()), duration = 300) {
  view.animate({ center: toMap(pixel), resolution, duration });
}

export const zoomBy = (/** @type {number} */ steps) => view.animate({ resolution: view.getConstrainedResolution(view.getResolution() * 2 ** -steps), duration: 180 });
export const centre = () => toPixel(view.getCenter());

/** The columns and rows in view: left, top, right, bottom. @returns {[number, number, number, number]} */
export function extentInView() {
  const [left, bottom, right, top] = view.calculateExtent(map.getSize());
  return [Math.max(0, left), Math.max(0, -top), Math.min(WIDTH, right), Math.min(HEIGHT, -bottom)];
}

seen.draw = (layer) => layers[layer].changed();
seen.update = () => {
  const extent = view.calculateExtent(map.getSize() ?? [1, 1]), resolution = view.getResolution() ?? 1;
  seen.z = tileGrid.getZForResolution(resolution);
  const side = SIDE * resolutions[seen.z];
  [seen.left, seen.top, seen.right, seen.bottom] = [extent[0], -extent[3], extent[2], -extent[1]].map((edge) => Math.floor(edge / side));
  [seen.x, seen.y] = [view.getCenter()[0] / side, -view.getCenter()[1] / side];
};

/** Show a picture over the map, with the frame of what the model saw; null takes it away. @param {{ picture: string, extent: number[] } | null} shown */
export function showOverlay(shown) {
  const [left, top, right, bottom] = shown?.extent ?? [0, 0, 0, 0], imageExtent = [left, -bottom, right, -top];
  overlay.setSource(shown ? new Static({ url: shown.picture, imageExtent, projection }) : null);
  frame.setGeometry(shown ? fromExtent(imageExtent) : undefined);
}

/** Outline what is labelled. @param {number[][]} corners in pixels */
export function frameOf(corners) {
  frame.setStyle([new Style({ stroke: new Stroke({ color: '#111', width: 4 }) }), new Style({ stroke: new Stroke({ color: '#ffd23f', width: 2 }) })]);
  frame.setGeometry(new Polygon([corners.map(([x, y]) => [x, -y])]));
}

/** Cut the layers that a swipe hides to the left of its line. */
for (const [name, layer] of Object.entries(layers)) {
  layer.on('prerender', (/** @type {any} */ event) => {
    const context = event.context, at = state.swipe?.layer === name ? state.swipe.at : 0;
    context.save();
    context.beginPath();
    context.rect(at * context.canvas.width, 0, context.canvas.width, context.canvas.height);
    context.clip();
  });
  layer.on('postrender', (/** @type {any} */ event) => event.context.restore());
}

function renderLayers() {
  for (const name of LAYERS) { layers[name].setVisible(state.layers[name].visible); layers[name].setOpacity(state.layers[name].opacity / 100); }
  map.render();
}

/** Metres that a pixel is wide at a row; null without a place on Earth. @param {number} row */
export function metresAt(row) {
  const { place } = about;
  if (!place) return null;
  return place.metres * (areaOfRow(row) / (areaOfRow(HEIGHT / 2) || 1));
}

/** The area of a pixel in a row, up to a factor: in degrees, rows shrink to the poles. @param {number} row */
export function areaOfRow(row) {
  const { place } = about;
  if (!place?.geographic) return 1;
  const [, , , , e, f] = place.transform;
  return Math.max(0, Math.cos(((f + e * row) * Math.PI) / 180));
}

/** The scale bar: a round length that is at most 120 px long. */
function renderScale() {
  const resolution = view.getResolution(), metres = metresAt(centre().y), unit = metres ?? 1;
  const most = 120 * resolution * unit, power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].map((digit) => digit * power).find((each) => each <= most) ?? power;
  $('scale-bar').style.width = `${length / unit / resolution}px`;
  const [value, name] = metres === null ? [length, 'px'] : length >= 1000 ? [length / 1000, 'km'] : length < 0.1 ? [length * 1000, 'mm'] : [length, 'm'];
  $('scale').textContent = `${Number(value.toPrecision(6))} ${name}`;
}

export function start() {
  map.updateSize();
  if (state.view) {
    view.setCenter(toMap(state.view));
    view.setResolution(state.view.resolution);
  } else fit();
  renderLayers();
  on(['layers', 'swipe'], renderLayers);
  on(['pixel'], () => pixelMark.setGeometry(state.pixel ? new Point(toMap({ x: state.pixel.x + 0.5, y: state.pixel.y + 0.5 })) : undefined));
  map.on('moveend', () => {
    update({ view: { ...centre(), resolution: view.getResolution() } });
    schedule();
  });
  view.on(['change:resolution', 'change:center'], renderScale);
  map.on('change:size', renderScale);
  renderScale();
}
