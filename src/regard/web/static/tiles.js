/** The tiles of all layers: what is in view is fetched, nearest to the centre first, and drawn when it comes.
 *
 * A cell is a place of the tile grid. Its prediction, reference and imagery are fetched once, whatever layers show them.
 */

import { Failure, request } from './api.js';
import { hatch, NOTHING, draw, palette, SIDE, unpack } from './colours.js';
import { about, on, state } from './state.js';

/** @typedef {import('./colours.js').Values} Values */
/** @typedef {'scene' | 'labels' | 'coarse' | 'prediction'} Kind */
/** @typedef {{ tries: number, due: number, reason: string, final: boolean }} Trouble */
/** @typedef {{ z: number, x: number, y: number, scene: ImageBitmap | null, look: string, prediction: Values | null,
 *   labels: Values | null, canvases: Map<string, WeakRef<HTMLCanvasElement>>, troubles: Map<Kind, Trouble>,
 *   waiting: Map<string, [HTMLCanvasElement, (canvas: HTMLCanvasElement) => void]> }} Cell */

const AT_ONCE = /** @type {Record<Kind, number>} */ ({ scene: 6, labels: 4, coarse: 1, prediction: 2 });
const BACK_OFF = [1000, 3000, 9000, 30_000]; // ms until a tile that failed is asked for again
const NEEDS = /** @type {Record<string, string[]>} */ ({ scene: ['scene'], labels: ['labels'], prediction: ['prediction'], confidence: ['prediction'], errors: ['prediction', 'labels'] });
/** @type {Map<string, Cell>} */ const cells = new Map();
/** @type {Map<string, AbortController>} */ const running = new Map();
const gone = new FinalizationRegistry((/** @type {[string, string]} */ [key, layer]) => {
  const cell = cells.get(key);
  if (cell && !cell.canvases.get(layer)?.deref()) cell.canvases.delete(layer);
  if (cell?.canvases.size === 0) cells.delete(key);
});

/** Set by the map: the zoom of the tiles in view, the tiles' range there, and how to draw a layer again. */
export const view = {
  z: 0, left: 0, top: 0, right: -1, bottom: -1, x: 0, y: 0,
  draw: (/** @type {string} */ _layer) => {},
  update: () => {},
};

let table = palette();
let version = 0;
let timer = 0;
const look = () => `${state.imagery.bands.join()}/${state.imagery.cut ?? ''}/${version}`;
const keyOf = (/** @type {{ z: number, x: number, y: number }} */ { z, x, y }) => `${z}/${x}/${y}`;
const inView = (/** @type {Cell} */ { z, x, y }) => z === view.z && x >= view.left && x <= view.right && y >= view.top && y <= view.bottom;
const distance = (/** @type {Cell} */ { x, y }) => Math.hypot(x + 0.5 - view.x, y + 0.5 - view.y);

/** The loader of a layer's tiles for OpenLayers. @param {string} layer @returns {(z: number, x: number, y: number) => Promise<HTMLCanvasElement>} */
export function loaderOf(layer) {
  return (z, x, y) => {
    const key = keyOf({ z, x, y }), canvas = document.createElement('canvas');
    canvas.width = canvas.height = SIDE;
    const cell = cells.get(key) ?? { z, x, y, scene: null, look: '', prediction: null, labels: null, canvases: new Map(), troubles: new Map(), waiting: new Map() };
    cells.set(key, cell);
    cell.canvases.set(layer, new WeakRef(canvas));
    gone.register(canvas, [key, layer]);
    return new Promise((resolve) => {
      cell.waiting.set(layer, [canvas, resolve]);
      show(cell, layer);
      schedule();
    });
  };
}

/** @param {Cell} cell @param {string} need */
const has = (cell, need) => (need === 'scene' ? cell.scene !== null : cell[/** @type {'prediction' | 'labels'} */ (need)] !== null);

/** Draw a cell in a layer, if what it needs is there or has failed, and hand the canvas to OpenLayers. @param {Cell} cell @param {string} layer */
function show(cell, layer) {
  const [canvas, resolve] = cell.waiting.get(layer) ?? [cell.canvases.get(layer)?.deref(), null];
  const context = canvas?.getContext('2d', { willReadFrequently: true });
  if (!canvas || !context) return;
  const ready = NEEDS[layer].every((need) => has(cell, need));
  if (!ready && !NEEDS[layer].some((need) => cell.troubles.has(/** @type {Kind} */ (need)))) return;
  if (!ready) hatch(context);
  else if (layer === 'scene') {
    context.clearRect(0, 0, SIDE, SIDE);
    if (cell.scene) context.drawImage(cell.scene, 0, 0);
  } else draw(context, layer, cell.prediction ?? /** @type {Values} */ (cell.labels), cell.labels, table);
  cell.waiting.delete(layer);
  resolve?.(canvas);
  view.draw(layer);
}

/** @param {Cell} cell */ const showAll = (cell) => { for (const layer of [...cell.canvases.keys()]) show(cell, layer); };

/** What a cell in view lacks next, by the layers that are visible; null where nothing, or not yet. @param {Cell} cell @returns {Kind | null} */
function lacks(cell) {
  const wanted = new Set([...cell.canvases.keys()].filter((name) => state.layers[name].visible).flatMap((name) => NEEDS[name]));
  const kinds = /** @type {Kind[]} */ ([]);
  if (wanted.has('scene') && (cell.scene === null || cell.look !== look())) kinds.push('scene');
  if (wanted.has('labels') && cell.labels === null) kinds.push('labels');
  if (wanted.has('prediction') && !state.paused) {
    if (about.coarse && cell.z < about.finest && cell.prediction === null) kinds.push('coarse');
    if (cell.z >= about.exact_from && !cell.prediction?.exact) kinds.push('prediction');
  }
  return kinds.find((kind) => !running.has(`${kind}/${keyOf(cell)}`) && !((cell.troubles.get(kind)?.due ?? 0) > performance.now())) ?? null;
}

/** Ask for what the cells in view lack: what is seen at once first, then the nearest. */
function pump() {
  view.update();
  for (const [key, controller] of running) {
    const cell = cells.get(key.slice(key.indexOf('/') + 1));
    if (!cell || !inView(cell) || (state.paused && !key.startsWith('scene'))) controller.abort(new DOMException('out of view', 'AbortError'));
  }
  for (const cell of cells.values()) if (!inView(cell)) leave(cell);
  const order = ['scene', 'labels', 'coarse', 'prediction'];
  const lacking = [...cells.values()].filter(inView).map((cell) => ({ cell, kind: lacks(cell) })).filter(({ kind }) => kind);
  lacking.sort((one, two) => order.indexOf(/** @type {Kind} */ (one.kind)) - order.indexOf(/** @type {Kind} */ (two.kind)) || distance(one.cell) - distance(two.cell));
  for (const { cell, kind } of lacking) {
    if (!kind || [...running.keys()].filter((key) => key.startsWith(`${kind}/`)).length >= AT_ONCE[kind]) continue;
    if (kind === 'prediction' && lacking.some((other) => other.kind === 'coarse')) continue;
    fetchTile(cell, kind);
  }
  progress();
}

/** Hand over what has not come of a cell that left the view, empty: it is fetched when it is seen again. @param {Cell} cell */
function leave(cell) {
  for (const [canvas, resolve] of cell.waiting.values()) resolve(canvas);
  cell.waiting.clear();
}

/** Pump once, soon. */
export function schedule(wait = 60) { clearTimeout(timer); timer = setTimeout(pump, wait); }

/** @param {Cell} cell @param {Kind} kind */ async function fetchTile(cell, kind) {
  const key = `${kind}/${keyOf(cell)}`, controller = new AbortController(), wanted = look();
  running.set(key, controller);
  try {
    const query = kind === 'scene' ? sceneQuery() : undefined;
    const response = await request(`pixels/${key}${kind === 'scene' ? '.png' : ''}`, { query, signal: controller.signal, retries: 0 });
    if (kind === 'scene') {
      cell.scene?.close();
      cell.scene = await createImageBitmap(await response.blob());
      cell.look = wanted;
    } else {
      const values = unpack(await response.arrayBuffer(), kind !== 'coarse');
      if (kind === 'labels') cell.labels = values;
      else if (!cell.prediction?.exact) cell.prediction = values;
    }
    cell.troubles.delete(kind);
  } catch (error) {
    if (controller.signal.aborted) return;
    fail(cell, kind, error);
  } finally {
    running.delete(key);
    showAll(cell);
    schedule(0);
  }
}

function sceneQuery() {
  const { bands, cut } = state.imagery;
  const query = /** @type {Record<string, any>} */ (bands.join() === about.bands.shown.join() ? {} : { bands: bands.join() });
  return { ...query, ...(cut === null ? {} : { cut }), ...(version ? { read: version } : {}) };
}

/** Note a failure, and when to try again; a changed file does not come back. @param {Cell} cell @param {Kind} kind @param {unknown} error */
function fail(cell, kind, error) {
  const tries = (cell.troubles.get(kind)?.tries ?? 0) + 1, final = tries > BACK_OFF.length || (error instanceof Failure && error.status === 409);
  const wait = BACK_OFF[Math.min(tries, BACK_OFF.length) - 1];
  cell.troubles.set(kind, { tries, due: final ? Infinity : performance.now() + wait, reason: error instanceof Error ? error.message : String(error), final });
  if (!final) setTimeout(schedule, wait + 20);
}

/** Ask again for all that failed. */
export function retry() {
  for (const cell of cells.values()) cell.troubles.clear();
  schedule(0);
}

/** @type {((progress: { done: number, total: number, coarse: number, reasons: string[], failed: number }) => void)[]} */
const watchers = [];
export const onProgress = (/** @type {typeof watchers[number]} */ watcher) => watchers.push(watcher);

/** Tell how far the prediction of the view is, and what failed. */
function progress() {
  const seen = [...cells.values()].filter(inView);
  const predicted = seen.filter((cell) => ['prediction', 'confidence', 'errors'].some((name) => cell.canvases.has(name) && state.layers[name].visible));
  const troubles = seen.flatMap((cell) => [...cell.troubles.values()]);
  const near = view.z >= about.exact_from;
  const facts = {
    done: predicted.filter((cell) => cell.prediction && (cell.prediction.exact || !near)).length,
    total: predicted.length,
    coarse: predicted.filter((cell) => cell.prediction && !cell.prediction.exact).length,
    failed: troubles.length,
    reasons: [...new Set(troubles.map(({ reason }) => reason))],
  };
  for (const watcher of watchers) watcher(facts);
}

/** How often each class is predicted in the view, weighted by the area of its rows. @param {[number, number, number, number]} extent of the view, in pixels @param {(row: number) => number} area of a row's pixel */
export function shares([left, top, right, bottom], area) {
  const counts = new Float64Array(NOTHING + 1), step = 2 ** (about.finest - view.z);
  for (const cell of cells.values()) {
    if (!cell.prediction || !inView(cell)) continue;
    for (let row = 0; row < SIDE; row += 2) { // every other row and column: enough for a share
      const y = (cell.y * SIDE + row + 0.5) * step;
      if (y < top || y > bottom) continue;
      const weight = area(y), begin = cell.x * SIDE;
      const from = Math.max(0, Math.ceil(left / step - begin)), to = Math.min(SIDE - 1, Math.floor(right / step - begin));
      for (let column = from; column <= to; column += 2) counts[cell.prediction.labels[row * SIDE + column]] += weight;
    }
  }
  const known = counts.subarray(0, about.classes.length), sum = known.reduce((total, each) => total + each, 0);
  return sum ? Array.from(known, (each) => each / sum) : null;
}

/** What the tiles in view say of a pixel: its class and confidence; null where none has come. @param {number} x @param {number} y */
export function known(x, y) {
  const step = 2 ** (about.finest - view.z), column = Math.floor(x / step), row = Math.floor(y / step);
  const cell = cells.get(`${view.z}/${column >> 8}/${row >> 8}`), place = (row & 255) * SIDE + (column & 255);
  const label = cell?.prediction?.labels[place] ?? NOTHING;
  return label === NOTHING ? null : { label, confidence: (cell?.prediction?.confidence[place] ?? 0) / 255, exact: cell?.prediction?.exact === true };
}

/** Fetch the imagery in view again: more of the file has been read. */
export function refreshScene() { version += 1; schedule(0); }

/** Forget all predictions: there is a better map. */
export function forgetPredictions() {
  for (const cell of cells.values()) cell.prediction = null;
  schedule(0);
}

on(['colours', 'hidden', 'alone'], () => { table = palette(); for (const cell of cells.values()) showAll(cell); });
on(['layers', 'imagery', 'paused'], () => schedule(0));
