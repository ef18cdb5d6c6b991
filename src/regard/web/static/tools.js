/** Tools over the map: coordinates under the pointer, measuring, and going to a place. */

import { json } from './api.js';
import { coordinates, degrees } from './inspect.js';
import { centre, fit, goTo, isInside, map, drawings, toPixel, zoomBy } from './map.js';
import { CircleStyle, Draw, Fill, Stroke, Style } from './ol.js';
import { $, banner } from './page.js';
import { about, on, state, update } from './state.js';

const RULER = [
  new Style({ stroke: new Stroke({ color: '#fff', width: 5 }), image: new CircleStyle({ radius: 5, fill: new Fill({ color: '#fff' }) }) }),
  new Style({ stroke: new Stroke({ color: '#0b57d0', width: 2.5 }), fill: new Fill({ color: 'rgb(11 87 208 / .15)' }), image: new CircleStyle({ radius: 3.5, fill: new Fill({ color: '#0b57d0' }) }) }),
];
const PATTERN = /(-?\d+(?:\.\d+)?)\s*°?\s*([NSEW])?[\s,;]+(-?\d+(?:\.\d+)?)\s*°?\s*([NSEW])?/i;

/** @type {any} */ let draw = null;
/** @type {any} */ let drawn = null;

/** @param {number} value @param {[number, string][]} units from large to small */ export function rounded(value, units) {
  const [size, name] = units.find(([each]) => value >= each) ?? units[units.length - 1];
  return `${Number((value / size).toPrecision(5)).toLocaleString('en')} ${name}`;
}

/** Length and area of what is drawn, on the ellipsoid; in pixels where there is none. @param {any} geometry */
async function measure(geometry) {
  const isArea = geometry.getType() === 'Polygon', ring = (isArea ? geometry.getCoordinates()[0] : geometry.getCoordinates()).map(toPixel);
  if (ring.length < 2) return;
  const length = ring.slice(1).reduce((/** @type {number} */ sum, /** @type {any} */ each, /** @type {number} */ k) => sum + Math.hypot(each.x - ring[k].x, each.y - ring[k].y), 0);
  const area = Math.abs(ring.reduce((/** @type {number} */ sum, /** @type {any} */ each, /** @type {number} */ k) => sum + each.x * ring[(k + 1) % ring.length].y - ring[(k + 1) % ring.length].x * each.y, 0)) / 2;
  let text = isArea ? `${Math.round(area).toLocaleString('en')} px²` : `${length.toFixed(1)} px`;
  if (about.place) {
    const points = ring.map((/** @type {any} */ each) => `${each.x.toFixed(2)},${each.y.toFixed(2)}`).join(';');
    try {
      const found = await json('measure.json', { query: { points }, retries: 0 });
      text = isArea ? rounded(found.square_metres, [[1e6, 'km²'], [1e4, 'ha'], [1, 'm²']]) : rounded(found.metres, [[1000, 'km'], [1, 'm'], [0.01, 'cm']]);
    } catch (error) { text = /** @type {Error} */ (error).message; }
  }
  $('measured').textContent = `${isArea ? 'Area' : 'Length'}: ${text}`;
}

/** Begin or end a tool. */
function renderTool() {
  if (draw) map.removeInteraction(draw);
  if (drawn) drawings.removeFeature(drawn);
  draw = drawn = null;
  for (const button of document.querySelectorAll('[data-tool]')) button.setAttribute('aria-pressed', String(/** @type {HTMLElement} */ (button).dataset.tool === state.tool));
  const rules = state.tool === 'line' || state.tool === 'area';
  $('measured').hidden = !rules;
  if (!rules) return;
  $('measured').textContent = 'Click to add points, double-click to end, Esc to leave';
  draw = new Draw({ source: drawings, type: state.tool === 'area' ? 'Polygon' : 'LineString', style: RULER, stopClick: true });
  draw.on('drawstart', (/** @type {any} */ { feature }) => {
    if (drawn) drawings.removeFeature(drawn);
    drawn = null;
    let count = 0;
    feature.getGeometry().on('change', () => {
      const points = feature.getGeometry().getCoordinates(), now = (state.tool === 'area' ? points[0] : points).length;
      if (now !== count) measure(feature.getGeometry());
      count = now;
    });
  });
  draw.on('drawend', (/** @type {any} */ { feature }) => {
    drawn = feature;
    feature.setStyle(RULER);
    measure(feature.getGeometry());
  });
  map.addInteraction(draw);
}

/** The pixel that a text names: degrees with letters or as latitude, longitude; the scene's coordinates; or a pixel. @param {string} text @param {string} kind @returns {Promise<{ x: number, y: number } | null>} */
async function placeOf(text, kind) {
  const [, one, first, two, second] = text.match(PATTERN) ?? [];
  if (two === undefined) return null;
  if (kind === 'pixel') return { x: Number(one) + 0.5, y: Number(two) + 0.5 };
  if (kind === 'crs') {
    const [a, b, c, d, e, f] = about.place.transform, [dx, dy] = [Number(one) - c, Number(two) - f], whole = a * e - b * d;
    return { x: (e * dx - b * dy) / whole, y: (a * dy - d * dx) / whole };
  }
  const sign = (/** @type {string | undefined} */ letter) => (/[SW]/i.test(letter ?? '') ? -1 : 1), swapped = /[EW]/i.test(first ?? '');
  const values = [sign(first) * Number(one), sign(second) * Number(two)], [latitude, longitude] = swapped ? values.reverse() : values;
  const { pixel } = await json('place.json', { query: { longitude, latitude } });
  return pixel && { x: pixel[0], y: pixel[1] };
}

/** @param {Event} event */ async function travel(event) {
  event.preventDefault();
  const text = /** @type {HTMLInputElement} */ ($('place')).value, kind = /** @type {HTMLSelectElement} */ ($('place-kind')).value;
  const pixel = await placeOf(text, kind).catch(() => null);
  banner('place', !pixel ? `${text || 'That'} is no place of this scene. Write two numbers, such as ${kind === 'degrees' ? '27.71, 85.32' : coordinates(centre())}.` : !isInside(pixel) ? 'That place is outside the scene.' : '');
  if (!pixel || !isInside(pixel)) return;
  goTo(pixel);
  update({ pixel: { x: Math.floor(pixel.x), y: Math.floor(pixel.y) } });
}

/** Show a tool, or leave it if it is shown. @param {string | null} tool */
export const choose = (tool) => update({ tool: state.tool === tool ? null : tool });

/** Write where the pointer is. @param {any} event */
function follow(event) {
  const pixel = toPixel(event.coordinate);
  $('where').textContent = isInside(pixel) ? (about.place ? `${coordinates(pixel)}  ·  pixel ${Math.floor(pixel.x)}, ${Math.floor(pixel.y)}` : `x ${Math.floor(pixel.x)}, y ${Math.floor(pixel.y)}`) : '';
}

export function start() {
  for (const button of document.querySelectorAll('[data-tool]')) button.addEventListener('click', () => choose(/** @type {HTMLElement} */ (button).dataset.tool ?? null));
  $('zoom-in').addEventListener('click', () => zoomBy(1));
  $('zoom-out').addEventListener('click', () => zoomBy(-1));
  $('fit').addEventListener('click', () => fit(250));
  $('go').addEventListener('submit', travel);
  const kind = /** @type {HTMLSelectElement} */ ($('place-kind'));
  if (about.place) {
    kind.options[1].textContent = about.place.code ?? 'Scene coordinates';
    $('crs').textContent = about.place.code ?? about.place.name;
    $('crs').title = about.place.name;
  } else {
    kind.options[1].remove();
    kind.options[0].remove();
    $('crs').textContent = 'pixels';
  }
  on(['tool'], renderTool);
  map.on('pointermove', follow);
  map.getViewport().addEventListener('mouseleave', () => { $('where').textContent = ''; });
}

export { degrees };
