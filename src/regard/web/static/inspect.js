/** One pixel: at once its class, probabilities and band values; on request what it attends to. */

import { json } from './api.js';
import { goTo, isInside, map, showOverlay, toPixel } from './map.js';
import { $, copy, make } from './page.js';
import { about, on, state, update } from './state.js';
import { known } from './tiles.js';

/** @type {AbortController | null} */ let asking = null;
let preferred = '';

const digits = () => (about.place?.geographic ? 6 : Math.max(0, 2 - Math.floor(Math.log10(about.place?.metres ?? 1))));

/** Degrees as people write them. @param {number[]} place longitude and latitude */
export function degrees([longitude, latitude]) {
  const round = Math.max(3, Math.min(8, Math.round(6 - Math.log10(about.place.metres))));
  return `${Math.abs(latitude).toFixed(round)}° ${latitude < 0 ? 'S' : 'N'}, ${Math.abs(longitude).toFixed(round)}° ${longitude < 0 ? 'W' : 'E'}`;
}

/** A pixel in the scene's coordinates; its column and row where it has no others. @param {{ x: number, y: number }} pixel */
export function coordinates({ x, y }) {
  if (!about.place) return `${Math.floor(x)}, ${Math.floor(y)}`;
  const [a, b, c, d, e, f] = about.place.transform;
  return [a * x + b * y + c, d * x + e * y + f].map((each) => each.toFixed(digits())).join(', ');
}

/** A name, a bar and a number. @param {string} name @param {number} value @param {string} [colour] @param {Node[]} before */
function bar(name, value, colour, ...before) {
  const fill = make('i');
  fill.style.width = `${100 * value}%`;
  if (colour) fill.style.backgroundColor = colour;
  return [...before, make('span', 'text', {}, name), make('span', 'track', {}, fill), make('span', 'number', {}, value.toFixed(2))];
}

/** How much a block adds, in words: its factor is learned, and 0 before training. @param {number | null} gate */
function strength(gate) {
  if (typeof gate !== 'number') return '';
  const size = Math.abs(gate);
  return size < 0.05 ? 'adds almost nothing' : size < 0.3 ? 'adds a little' : size < 1 ? 'adds clearly' : 'adds strongly';
}

/** Inspect a pixel. @param {{ x: number, y: number }} place */
export function inspect(place) {
  const pixel = { x: Math.floor(place.x), y: Math.floor(place.y) };
  if (!isInside(pixel)) return;
  update({ pixel });
}

/** @param {{ x: number, y: number }} pixel */ async function ask(pixel) {
  asking?.abort();
  asking = new AbortController();
  showOverlay(null);
  $('answer').hidden = false;
  for (const id of ['facts', 'bars', 'choices']) $(id).replaceChildren();
  $('why').hidden = $('views').hidden = $('heat').hidden = true;
  const seen = known(pixel.x, pixel.y);
  $('message').textContent = seen ? `${about.classes[seen.label].name}${seen.confidence ? `, confidence ${seen.confidence.toFixed(2)}` : ''}${seen.exact ? '' : ' (coarse)'}` : 'Predicting …';
  fact('Pixel', `${pixel.x}, ${pixel.y}`);
  if (about.place) fact(about.place.code ?? about.place.name, coordinates({ x: pixel.x + 0.5, y: pixel.y + 0.5 }));
  try {
    show(await json('pixel.json', { query: pixel, signal: asking.signal }));
  } catch (error) {
    if (/** @type {Error} */ (error).name !== 'AbortError') $('message').textContent = /** @type {Error} */ (error).message;
  }
}

/** @param {string} name @param {string} value */ function fact(name, value) {
  const button = make('button', 'copy', { type: 'button', 'aria-label': `Copy ${name}`, onclick: () => copy(value, button) }, 'Copy');
  $('facts').append(make('div', 'line', {}, make('span', 'quiet', {}, name), make('span', 'text value', {}, value), button));
}

/** @param {any} found */ function show(found) {
  const { classes } = about, name = (/** @type {number | null} */ label) => (label === null ? 'none' : classes[label].name);
  $('message').textContent = `${classes[found.class].name}, probability ${found.probabilities[found.class].toFixed(2)}`;
  if (found.degrees) fact('Degrees', degrees(found.degrees));
  if (about.map) fact('Class map', name(found.mapped));
  if (about.layers.includes('labels')) fact('Reference', name(found.reference));
  fact('Bands', found.bands.map((/** @type {any} */ band) => `${band.name} ${Number(band.value.toPrecision(6))}`).join(', '));
  const values = /** @type {number[]} */ (found.probabilities);
  const order = values.map((value, k) => [value, k]).sort((one, two) => two[0] - one[0]);
  const most = order.filter(([value], place) => place < 2 || (place < 6 && value >= 0.005));
  $('bars').replaceChildren(...most.map(([value, k]) => make('li', 'line', {}, ...bar(classes[k].name, value, state.colours[k]))));
  $('why').hidden = !found.attention;
}

/** Ask for the attention maps of the pixel, and show the one that was shown before. */
async function explain() {
  const button = /** @type {HTMLButtonElement} */ ($('why'));
  button.disabled = true;
  button.textContent = 'Computing …';
  try {
    const { overlays } = await json('attention.json', { query: state.pixel ?? {}, signal: asking?.signal });
    const choices = [{ name: 'none', group: '' }, ...overlays].map((each) => choice(each));
    $('choices').replaceChildren(...choices);
    $('views').hidden = false;
    button.hidden = true;
    const before = overlays.findIndex((/** @type {any} */ each) => `${each.group} ${each.name}` === preferred);
    const first = choices[Math.max(0, before) + 1] ?? choices[0];
    first.querySelector('input')?.click();
  } catch (error) {
    if (/** @type {Error} */ (error).name !== 'AbortError') $('message').textContent = /** @type {Error} */ (error).message;
  } finally { button.disabled = false; button.textContent = 'Show attention maps'; }
}

/** One overlay to choose: attention with its block's strength, a region with its weight. @param {any} overlay */
function choice(overlay) {
  const input = make('input', '', { type: 'radio', name: 'view', onchange: () => choose(overlay) });
  const named = overlay.group === 'Regions' ? `region: ${overlay.name}` : overlay.name;
  if (overlay.weight !== undefined) return make('label', 'line', {}, ...bar(named, overlay.weight, undefined, input));
  const gate = strength(overlay.gate), title = gate && `The block's learned factor is ${overlay.gate.toFixed(3)}`;
  return make('label', 'line', {}, input, make('span', 'text', {}, named), make('span', 'quiet', { title }, gate));
}

/** @param {any} overlay */ function choose(overlay) {
  showOverlay(overlay.picture ? overlay : null);
  if (overlay.group) preferred = `${overlay.group} ${overlay.name}`;
  $('heat').hidden = !overlay.picture;
  if (!overlay.picture) return;
  [$('low').textContent, $('high').textContent] = overlay.scale.map((/** @type {number} */ value) => value.toFixed(1));
  $('unit').textContent = overlay.unit;
}

/** Close the card. */
export function close() {
  asking?.abort();
  showOverlay(null);
  $('answer').hidden = true;
  update({ pixel: null });
}

export function start() {
  on(['pixel'], () => { if (state.pixel) ask(state.pixel); });
  map.on('singleclick', (/** @type {any} */ event) => { if (!state.tool) inspect(toPixel(event.coordinate)); });
  $('close').addEventListener('click', close);
  $('why').addEventListener('click', explain);
  $('centre').addEventListener('click', () => { if (state.pixel) goTo({ x: state.pixel.x + 0.5, y: state.pixel.y + 0.5 }); });
  if (state.pixel) update({ pixel: state.pixel });
}
