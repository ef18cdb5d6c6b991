/** The panel of layers and the legend: what is shown, how strongly, and in which colours. */

import { json } from './api.js';
import { areaOfRow, extentInView, map } from './map.js';
import { $, banner, make, percent } from './page.js';
import { about, COLOURS, isShown, LAYERS, on, state, TITLES, update, updateLayer } from './state.js';
import { onProgress, refreshScene, retry, shares } from './tiles.js';

/** One line of the panel: a tick, and how opaque the layer is. @param {string} name */
function layerLine(name) {
  const tick = make('input', '', { type: 'checkbox', onchange: () => updateLayer(name, { visible: tick.checked }) });
  const slider = make('input', '', { type: 'range', min: '0', max: '100', step: '5', 'aria-label': `Opacity of ${TITLES[name]}`, oninput: () => updateLayer(name, { opacity: Number(slider.value) }) });
  const render = () => {
    tick.checked = state.layers[name].visible;
    slider.value = String(state.layers[name].opacity);
    slider.title = `Opacity ${slider.value} %`;
  };
  on(['layers'], render);
  render();
  return make('li', 'line', { 'data-layer': name }, make('label', 'text', {}, tick, make('span', '', {}, TITLES[name])), slider);
}

/** One class of the legend: tick, colour, name, alone, and its share of the view. @param {{ name: string }} each @param {number} label */
function classLine({ name }, label) {
  const tick = make('input', '', { type: 'checkbox', onchange: () => toggle(label, tick.checked) });
  const colour = make('input', 'swatch', { type: 'color', 'aria-label': `Colour of ${name}`, title: 'Change the colour', oninput: () => update({ colours: state.colours.map((each, k) => (k === label ? colour.value : each)) }) });
  const only = make('button', 'only', { type: 'button', 'aria-label': `Show only ${name}`, onclick: () => update({ alone: state.alone === label ? null : label }) }, 'only');
  const render = () => {
    tick.checked = isShown(label);
    colour.value = state.colours[label];
    only.setAttribute('aria-pressed', String(state.alone === label));
  };
  on(['hidden', 'alone', 'colours'], render);
  render();
  return make('li', 'line', {}, colour, make('label', 'text', {}, tick, make('span', '', {}, name)), only, make('span', 'number share', {}));
}

/** @param {number} label @param {boolean} shown */ function toggle(label, shown) {
  const hidden = new Set(state.alone === null ? state.hidden : COLOURS.map((_, k) => k).filter((k) => k !== state.alone));
  if (shown) hidden.delete(label);
  else hidden.add(label);
  update({ hidden, alone: null });
}

let timer = 0;

/** Count the classes in view, a moment after the last tile. */
function countSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => {
    const found = shares(extentInView(), areaOfRow);
    document.querySelectorAll('#classes .share').forEach((cell, k) => {
      cell.textContent = found && found[k] >= 0.0005 ? percent(found[k]) : found ? '–' : '';
    });
  }, 200);
}

/** The job of the view: how many tiles are predicted, and what failed. @param {{ done: number, total: number, coarse: number, failed: number, reasons: string[] }} facts */
function renderJob({ done, total, coarse, failed, reasons }) {
  const open = total - done;
  $('job').hidden = Boolean(about.map) || (open === 0 && coarse === 0);
  $('job-text').textContent = open === 0 ? 'Coarse prediction, from the overview' : state.paused ? `Stopped: ${done} of ${total} tiles` : `Predicting: ${done} of ${total} tiles${coarse ? `, ${coarse} coarse` : ''}`;
  /** @type {HTMLProgressElement} */ ($('job-bar')).max = Math.max(1, total);
  /** @type {HTMLProgressElement} */ ($('job-bar')).value = done;
  $('job-bar').hidden = $('job-stop').hidden = open === 0;
  $('job-stop').textContent = state.paused ? 'Resume' : 'Cancel';
  $('coarse').hidden = coarse === 0;
  banner('tiles', failed ? `${failed} ${failed === 1 ? 'tile' : 'tiles'} failed: ${reasons.join(' ')}` : '', { label: 'Try again', run: retry });
  countSoon();
}

/** A large file without overviews is being read: show how far, and what has been read. */
async function followLoading() {
  const { progress } = await json('about.json');
  banner('loading', progress < 1 ? `Reading the scene: ${Math.floor(100 * progress)} %` : '', undefined, false);
  if (progress > about.progress) refreshScene();
  about.progress = progress;
  if (progress < 1) setTimeout(followLoading, 1000);
}

/** Which bands are red, green and blue, and what is black and white. */
function makeImagery() {
  const { names, shown } = about.bands;
  const selects = ['Red', 'Green', 'Blue'].map((title, place) => {
    const select = make('select', '', { 'aria-label': title, onchange: () => update({ imagery: { ...state.imagery, bands: state.imagery.bands.map((band, k) => (k === place ? Number(select.value) : band)) } }) },
      ...names.map((/** @type {string} */ name, /** @type {number} */ k) => make('option', '', { value: String(k + 1) }, name)));
    return select;
  });
  const cut = make('select', '', { 'aria-label': 'Stretch', onchange: () => update({ imagery: { ...state.imagery, cut: cut.value === '' ? null : Number(cut.value) } }) },
    ...[['', about.bands.bytes ? 'as stored' : 'clip 2 % (default)'], ['0.5', 'clip 0.5 %'], ['2', 'clip 2 %'], ['5', 'clip 5 %'], ['10', 'clip 10 %']].map(([value, text]) => make('option', '', { value }, text)));
  const render = () => {
    selects.forEach((select, place) => { select.value = String(state.imagery.bands[place]); });
    cut.value = state.imagery.cut === null ? '' : String(state.imagery.cut);
  };
  const back = make('button', '', { type: 'button', onclick: () => update({ imagery: { bands: [...shown], cut: null } }) }, 'Reset');
  on(['imagery'], render);
  render();
  $('imagery').append(...selects.map((select, place) => make('label', 'line', {}, make('span', 'text', {}, ['Red', 'Green', 'Blue'][place]), select)), make('label', 'line', {}, make('span', 'text', {}, 'Stretch'), cut), back);
}

/** The swipe: the line of a slider over the map, to its left a layer is not drawn. */
function makeSwipe() {
  const choice = /** @type {HTMLSelectElement} */ ($('swipe-layer')), slider = /** @type {HTMLInputElement} */ ($('swipe'));
  choice.append(make('option', '', { value: '' }, 'off'), ...LAYERS.filter((name) => name !== 'scene').map((name) => make('option', '', { value: name }, TITLES[name])));
  choice.addEventListener('change', () => {
    update({ swipe: choice.value ? { layer: choice.value, at: state.swipe?.at ?? 0.5 } : null });
    if (choice.value) updateLayer(choice.value, { visible: true });
  });
  slider.addEventListener('input', () => { if (state.swipe) update({ swipe: { ...state.swipe, at: Number(slider.value) / 1000 } }); });
  const render = () => {
    choice.value = state.swipe?.layer ?? '';
    slider.hidden = $('swipe-line').hidden = !state.swipe;
    if (!state.swipe) return;
    slider.value = String(Math.round(1000 * state.swipe.at));
    $('swipe-line').style.left = `${100 * state.swipe.at}%`;
  };
  on(['swipe'], render);
  render();
}

export function start() {
  $('layers').append(...[...LAYERS].reverse().map(layerLine));
  $('classes').append(...about.classes.map(classLine));
  $('all').addEventListener('click', () => update({ hidden: new Set(), alone: null }));
  $('none').addEventListener('click', () => update({ hidden: new Set(COLOURS.map((_, k) => k)), alone: null }));
  $('recolour').addEventListener('click', () => update({ colours: [...COLOURS] }));
  $('job-stop').addEventListener('click', () => update({ paused: !state.paused }));
  on(['colours'], () => { $('recolour').hidden = state.colours.join() === COLOURS.join(); });
  on(['layers'], () => { $('confidence').hidden = !state.layers.confidence?.visible; });
  makeImagery();
  makeSwipe();
  update({ layers: state.layers, colours: state.colours });
  onProgress(renderJob);
  map.on('moveend', countSoon);
  if (about.progress < 1) followLoading();
}
