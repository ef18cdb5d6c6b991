/** Classes, confidences and errors of a tile as pixels: coloured here, so that a change of colours asks for nothing. */

import { COLOURS, isShown, state } from './state.js';

export const SIDE = 256;
export const NOTHING = COLOURS.length <= 255 ? 255 : 65535;
const WRONG = 0xff3928d6; // #d62839; bytes are red, green, blue, opacity, and the first is the lowest
const VIRIDIS = ['#440154', '#482878', '#3e4a89', '#31688e', '#26828e', '#1f9e89', '#35b779', '#6ece58', '#b5de2b', '#fde725'];

/** @typedef {{ labels: Uint8Array | Uint16Array, confidence: Uint8Array, exact: boolean }} Values */

/** @param {string} colour */ const parts = (colour) => [1, 3, 5].map((place) => Number.parseInt(colour.slice(place, place + 2), 16));
const packed = (/** @type {number[]} */ [red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

const HEAT = Uint32Array.from({ length: 256 }, (_, strength) => {
  if (strength === 0) return 0;
  const place = (strength / 255) * (VIRIDIS.length - 1), low = Math.min(VIRIDIS.length - 2, Math.floor(place));
  const [from, to] = [parts(VIRIDIS[low]), parts(VIRIDIS[low + 1])];
  return packed(from.map((value, k) => Math.round(value + (place - low) * (to[k] - value))));
});

/** The colour of each label; those of hidden classes, and the last, for no class, are clear. */
export function palette() {
  const table = new Uint32Array(NOTHING + 1);
  state.colours.forEach((colour, label) => { table[label] = isShown(label) ? packed(parts(colour)) : 0; });
  return table;
}

/** Labels and confidences as the server packs them. @param {ArrayBuffer} buffer @param {boolean} exact @returns {Values} */
export function unpack(buffer, exact) {
  const labels = NOTHING === 255 ? new Uint8Array(buffer, 0, SIDE * SIDE) : new Uint16Array(buffer, 0, SIDE * SIDE);
  return { labels, confidence: new Uint8Array(buffer, labels.byteLength), exact };
}

/** Draw a tile of a layer. What is predicted from the overview only is marked by fine dots.
 * @param {CanvasRenderingContext2D} context @param {string} layer @param {Values} values
 * @param {Values | null} reference @param {Uint32Array} table */
export function draw(context, layer, values, reference, table) {
  const image = context.createImageData(SIDE, SIDE), out = new Uint32Array(image.data.buffer);
  const { labels, confidence, exact } = layer === 'labels' && reference ? reference : values, truth = reference?.labels;
  for (let i = 0; i < out.length; i += 1) {
    if (!exact && ((i | (i >> 8)) & 3) === 0) continue;
    if (layer === 'confidence') out[i] = HEAT[confidence[i]];
    else if (layer === 'errors' && truth) out[i] = labels[i] !== truth[i] && labels[i] !== NOTHING && truth[i] !== NOTHING ? WRONG : 0;
    else out[i] = table[labels[i]];
  }
  context.putImageData(image, 0, 0);
}

/** Draw a tile that could not be had: red hatching, which no class looks like. @param {CanvasRenderingContext2D} context */
export function hatch(context) {
  context.clearRect(0, 0, SIDE, SIDE);
  context.fillStyle = 'rgb(214 40 57 / .16)';
  context.fillRect(0, 0, SIDE, SIDE);
  context.strokeStyle = 'rgb(214 40 57 / .8)';
  context.lineWidth = 2;
  context.beginPath();
  for (let along = -SIDE; along < SIDE; along += 16) { context.moveTo(along, SIDE); context.lineTo(along + SIDE, 0); }
  context.stroke();
  context.strokeRect(1, 1, SIDE - 2, SIDE - 2);
}
