/** What the page shows, in one object; a part of it is the address's, so that a view can be kept and sent. */

import { json } from './api.js';

/** @typedef {{ visible: boolean, opacity: number }} Shown */
/** @typedef {{ x: number, y: number }} Pixel */

/** Facts of scene, map and model, by the server. */
export const about = await json('about.json');
export const LAYERS = /** @type {string[]} */ (['scene', ...about.layers]);
export const TITLES = /** @type {Record<string, string>} */ ({
  scene: 'Imagery', prediction: about.map ? 'Class map' : 'Prediction', confidence: 'Confidence', labels: 'Reference', errors: 'Errors (misclassified)',
});
const hex = (/** @type {number[]} */ colour) => `#${colour.map((part) => part.toString(16).padStart(2, '0')).join('')}`;
export const COLOURS = /** @type {string[]} */ (about.classes.map((/** @type {any} */ each) => hex(each.colour)));

export const state = {
  /** @type {{ x: number, y: number, resolution: number } | null} */ view: null,
  layers: /** @type {Record<string, Shown>} */ (Object.fromEntries(
    LAYERS.map((name) => [name, { visible: ['scene', 'prediction'].includes(name), opacity: name === 'scene' ? 100 : 60 }]),
  )),
  hidden: /** @type {Set<number>} */ (new Set()),
  /** @type {number | null} */ alone: null, // the class that is shown without the others
  colours: [...COLOURS],
  /** @type {{ layer: string, at: number } | null} */ swipe: null, // `at`: share of the width
  /** @type {{ bands: number[], cut: number | null }} */ imagery: { bands: about.bands.shown, cut: null },
  /** @type {Pixel | null} */ pixel: null, // that is inspected
  /** @type {string | null} */ tool: null, // 'line', 'area', 'note'
  paused: false, // predictions are not asked for
  whole: 0, // how often the whole-scene map has changed
};

/** @type {[string[], () => void][]} */ const listeners = [];
/** Call `render` now and whenever one of `parts` of the state is set. @param {string[]} parts @param {() => void} render */
export function on(parts, render) { listeners.push([parts, render]); }

/** Change the state; whatever shows a changed part renders itself again. @param {Partial<typeof state>} changes */
export function update(changes) {
  Object.assign(state, changes);
  for (const [parts, render] of listeners) if (parts.some((part) => part in changes)) render();
  keep();
}

/** @param {string} name @param {Partial<Shown>} change */
export function updateLayer(name, change) { update({ layers: { ...state.layers, [name]: { ...state.layers[name], ...change } } }); }
/** Whether a class is shown. @param {number} label */
export const isShown = (label) => (state.alone === null ? !state.hidden.has(label) : state.alone === label);
const round = (/** @type {number} */ value, digits = 2) => Number(value.toFixed(digits));

/** The state as the part of an address behind its #. */
export function toHash() {
  const { view, layers, hidden, alone, colours, swipe, imagery, pixel } = state, found = new URLSearchParams();
  if (view) found.set('view', [round(view.x), round(view.y), round(view.resolution, 5)].join(','));
  found.set('layers', LAYERS.map((name) => `${layers[name].visible ? '' : '-'}${name}:${layers[name].opacity}`).join(','));
  if (hidden.size) found.set('hidden', [...hidden].join(','));
  if (alone !== null) found.set('only', String(alone));
  const changed = colours.map((colour, k) => (colour === COLOURS[k] ? '' : `${k}:${colour.slice(1)}`)).filter(Boolean);
  if (changed.length) found.set('colours', changed.join(','));
  if (swipe) found.set('swipe', `${swipe.layer}:${round(swipe.at)}`);
  if (imagery.bands.join() !== about.bands.shown.join() || imagery.cut !== null) found.set('imagery', [...imagery.bands, imagery.cut ?? ''].join(','));
  if (pixel) found.set('at', `${pixel.x},${pixel.y}`);
  return found.toString().replaceAll('%2C', ',').replaceAll('%3A', ':');
}

/** @param {string | null} text */ const numbers = (text) => (text ?? '').split(',').filter(Boolean).map(Number).filter(Number.isFinite);
const isClass = (/** @type {number} */ label) => Number.isInteger(label) && label >= 0 && label < COLOURS.length;

/** Read what an address says; what it does not say, or says wrongly, stays as it is. @param {string} hash */
export function fromHash(hash) {
  const found = new URLSearchParams(hash.replace(/^#/, ''));
  const [x, y, resolution] = numbers(found.get('view')), [column, row] = numbers(found.get('at'));
  if (resolution > 0) state.view = { x, y, resolution };
  if (row !== undefined) state.pixel = { x: column, y: row };
  for (const part of (found.get('layers') ?? '').split(',')) {
    const [, off, name, opacity] = part.match(/^(-?)(\w+):(\d{1,3})$/) ?? [];
    if (name in state.layers) state.layers[name] = { visible: !off, opacity: Math.min(100, Number(opacity)) };
  }
  state.hidden = new Set(numbers(found.get('hidden')).filter(isClass));
  state.alone = numbers(found.get('only')).find(isClass) ?? null;
  for (const part of (found.get('colours') ?? '').split(',')) {
    const [, label, colour] = part.match(/^(\d+):([0-9a-f]{6})$/) ?? [];
    if (colour && isClass(Number(label))) state.colours[Number(label)] = `#${colour}`;
  }
  const [, layer, at] = (found.get('swipe') ?? '').match(/^(\w+):([01](?:\.\d+)?)$/) ?? [];
  if (layer in state.layers) state.swipe = { layer, at: Number(at) };
  const [red, green, blue, cut] = numbers(found.get('imagery'));
  const known = (/** @type {number} */ band) => Number.isInteger(band) && band >= 1 && band <= about.bands.names.length;
  if ([red, green, blue].every(known)) state.imagery = { bands: [red, green, blue], cut: cut >= 0 && cut <= 40 ? cut : null };
}

let timer = 0;

/** Keep the state in the address, a moment after the last change. */
function keep() {
  clearTimeout(timer);
  timer = setTimeout(() => history.replaceState(null, '', `#${toHash()}`), 250);
}

fromHash(location.hash);
