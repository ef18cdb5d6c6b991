/** Labelling the points of a sample: a card for each, in random order, without a sight of any map. */

import { json } from './api.js';
import { frameOf, goTo, map, metresAt } from './map.js';
import { events, load, points, start as open, submit } from './outbox.js';
import { $, banner, make } from './page.js';
import { about, state, on } from './state.js';
import { rounded } from './tools.js';

/** @typedef {{ fid: number, outline: number[][] }} Card */
/** @typedef {Record<string, string>} Answer */

const ACROSS = [21, 81, 321]; // how many of the outlined pixels are seen across: on the map, and in the pictures
const NAMES = /** @type {string[]} */ (about.classes.map((/** @type {any} */ each) => each.name));
/** @type {Card[]} */ let cards = [];
let at = 0;
let zoom = 0;
/** Whether the answer is not sure: then its first choice is asked for, and its second. @type {'' | 'first' | 'second'} */
let unsure = '';
/** Numbers and answers as they were before each answer. @type {[number, Answer][]} */
const before = [];
const isDone = (/** @type {any} */ point) => Boolean(point && (point.reference || point.sure === 'no'));
const nameOf = (/** @type {string} */ value) => (NAMES.includes(value) ? value : (NAMES[Number(value || -1)] ?? value));
const point = () => points.get(cards[at].fid);
const middle = (/** @type {Card} */ { outline }) => ({ x: outline.reduce((sum, [x]) => sum + x / 4, 0), y: outline.reduce((sum, [, y]) => sum + y / 4, 0) });

/** How many of the scene's pixels a picture of a card is wide. @param {Card} card @param {number} place among the three zooms */
function sideOf({ outline: [a, b, , d] }, place) {
  const pixel = Math.max(Math.hypot(b[0] - a[0], b[1] - a[1]), Math.hypot(d[0] - a[0], d[1] - a[1]));
  return Math.min(ACROSS[place] * pixel, 2 * Math.max(...about.size));
}

/** @param {Card} card @param {number} place */ function pictureOf(card, place) {
  const { x, y } = middle(card), { bands, cut } = state.imagery;
  return `around.png?${new URLSearchParams({ x: x.toFixed(3), y: y.toFixed(3), side: sideOf(card, place).toFixed(3), bands: bands.join(), ...(cut === null ? {} : { cut: String(cut) }) })}`;
}

/** The map at a zoom around the card's point, the other two as pictures, each with the outline. */
function look() {
  const card = cards[at], centre = middle(card), box = $('map').getBoundingClientRect();
  goTo(centre, sideOf(card, zoom) / Math.max(100, Math.min(box.width, box.height)), 0);
  frameOf(card.outline);
  const others = ACROSS.map((_, place) => place).filter((place) => place !== zoom);
  document.querySelectorAll('.chip').forEach((chip, k) => {
    const place = others[k], side = sideOf(card, place), metres = metresAt(centre.y);
    const text = metres === null ? `${Math.round(side)} px` : rounded(Number((side * metres).toPrecision(2)), [[1000, 'km'], [1, 'm'], [0.01, 'cm']]);
    const [image, path, caption] = ['img', 'path', 'span'].map((each) => /** @type {Element} */ (chip.querySelector(each)));
    image.setAttribute('src', pictureOf(card, place));
    chip.setAttribute('aria-label', `Show ${text} across on the map`);
    const corners = card.outline.map(([x, y]) => [50 + (100 * (x - centre.x)) / side, 50 + (100 * (y - centre.y)) / side]);
    const size = Math.max(...corners.flat().map((each) => Math.abs(each - 50)));
    const near = size + 4, far = size + 14; // an outline of a pixel or two is not seen: four lines lead to it
    path.setAttribute('d', `M${corners.map((each) => each.join(' ')).join('L')}Z${[[0, -1], [0, 1], [-1, 0], [1, 0]].map(([x, y]) => `M${50 + near * x} ${50 + near * y}L${50 + far * x} ${50 + far * y}`).join('')}`);
    caption.textContent = text;
    /** @type {HTMLElement} */ (chip).onclick = () => { zoom = place; look(); };
  });
  for (const next of cards.slice(at + 1, at + 3)) for (const place of others) new Image().src = pictureOf(next, place);
}

function render() {
  const done = cards.filter(({ fid }) => isDone(points.get(fid))).length, now = point();
  const doubts = cards.filter(({ fid }) => points.get(fid)?.sure === 'no').length;
  $('label-title').textContent = `Point ${at + 1} of ${cards.length}`;
  $('label-progress').textContent = `${done} labelled${doubts ? `, of these ${doubts} not sure` : ''}; ${cards.length - done} to go`;
  Object.assign($('label-bar'), { max: cards.length, value: done });
  $('question').textContent = { '': isDone(now) ? 'Labelled. Another class replaces it.' : 'Which class is the outlined pixel?', first: 'Not sure: which is the more likely class?', second: 'And the second choice? If none: next' }[unsure];
  document.querySelectorAll('#choices-of-class button').forEach((button, k) => {
    const first = NAMES[k] === nameOf(now?.reference ?? ''), second = NAMES[k] === nameOf(now?.second_choice ?? '');
    button.setAttribute('aria-pressed', String(first || second));
    /** @type {Element} */ (button.querySelector('.quiet')).textContent = second ? '2nd choice' : first && now?.sure === 'no' ? 'not sure' : '';
  });
  $('unsure').setAttribute('aria-pressed', String(unsure !== ''));
  $('cannot').setAttribute('aria-pressed', String(!now?.reference && now?.sure === 'no'));
  if (document.activeElement !== $('label-note')) /** @type {HTMLTextAreaElement} */ ($('label-note')).value = now?.note ?? '';
  /** @type {HTMLButtonElement} */ ($('label-undo')).disabled = before.length === 0;
  banner('done', done === cards.length ? `All points are labelled. Now: regard accuracy MAP ${about.points.name}` : '', undefined, false);
}

/** @param {number} place */ function show(place) {
  /** @type {HTMLElement | null} */ (document.activeElement)?.blur(); // a note that is being written is kept
  [at, unsure] = [(place + cards.length) % cards.length, ''];
  look();
  render();
}

/** The next card without an answer, or this one if there is none. */
function nextOpen() {
  const order = cards.map((_, k) => (at + 1 + k) % cards.length);
  show(order.find((k) => !isDone(points.get(cards[k].fid))) ?? at);
}

/** @param {Answer} values */ function answer(values) {
  const { fid } = cards[at], now = /** @type {Answer} */ (points.get(fid) ?? {});
  before.push([fid, Object.fromEntries(Object.keys(values).map((name) => [name, now[name] ?? '']))]);
  submit({ do: 'set', fid, values });
  render();
}

/** @param {number} label */ function choose(label) {
  if (label >= NAMES.length) return;
  if (unsure === 'second') {
    if (NAMES[label] !== nameOf(point()?.reference ?? '')) answer({ second_choice: NAMES[label] });
    nextOpen();
  } else {
    answer({ reference: NAMES[label], second_choice: '', sure: unsure ? 'no' : 'yes' });
    if (unsure) unsure = 'second';
    if (unsure) render();
    else nextOpen();
  }
}

function cannotTell() {
  answer({ reference: '', second_choice: '', sure: 'no' });
  nextOpen();
}

function doubt() { unsure = unsure ? '' : 'first'; render(); }

function undo() {
  const [fid, values] = before.pop() ?? [];
  if (fid === undefined || !values) return;
  submit({ do: 'set', fid, values });
  show(cards.findIndex((card) => card.fid === fid));
}

const KEYS = /** @type {Record<string, () => void>} */ ({
  s: doubt, 0: cannotTell, u: undo, n: () => show(at + 1), p: () => show(at - 1), Enter: nextOpen, t: () => $('label-note').focus(), z: () => { zoom = (zoom + 1) % 3; look(); },
});

/** Keys work everywhere but where one writes or chooses; with Shift the digits stand for the classes from the tenth. @param {KeyboardEvent} event */
function press(event) {
  const target = /** @type {HTMLElement} */ (event.target), digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/)?.[1];
  if (event.key === 'Escape' && target === $('label-note')) $('map').focus();
  if (event.altKey || target.closest('textarea, select, input:not([type=checkbox]), dialog')) return;
  if (event.key === 'Enter' && target.closest('button, summary, a')) return;
  const command = event.ctrlKey || event.metaKey, run = command ? (event.key === 'z' ? undo : undefined) : digit ? () => choose(Number(digit) - 1 + (event.shiftKey ? 9 : 0)) : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!run) return;
  event.preventDefault();
  run();
}

/** @param {string} name @param {number} label */ function choice(name, label) {
  const key = label < 18 ? make('kbd', '', {}, label < 9 ? String(label + 1) : `⇧${label - 8}`) : make('span');
  const swatch = make('span', 'swatch');
  swatch.style.backgroundColor = state.colours[label];
  return make('li', '', {}, make('button', 'wide', { type: 'button', onclick: () => choose(label) }, key, swatch, make('span', 'text', {}, name), make('span', 'quiet')));
}

export async function start() {
  document.body.classList.add('labelling');
  cards = await json('cards.json');
  $('choices-of-class').append(...NAMES.map(choice));
  for (const [id, run] of Object.entries({ unsure: doubt, cannot: cannotTell, previous: KEYS.p, next: KEYS.n, 'next-open': nextOpen, 'label-undo': undo })) $(id).addEventListener('click', run);
  $('label-note').addEventListener('change', (event) => answer({ note: /** @type {HTMLTextAreaElement} */ (event.target).value }));
  addEventListener('keydown', press);
  addEventListener('focus', () => load().catch(() => {}));
  on(['imagery'], look);
  events.changed = render;
  events.refused = ({ fid }) => show(cards.findIndex((card) => card.fid === fid));
  await open();
  map.updateSize();
  if (about.label.outside) banner('outside', `${about.label.outside} points lie outside of this scene and are left out.`, undefined, false);
  show(Math.max(0, cards.findIndex(({ fid }) => !isDone(points.get(fid)))));
}
