/** Notes at places, if the viewer was started with --notes: each is on disk when it counts as saved. */

import { Failure, json, write } from './api.js';
import { drawings, goTo, map, toMap, toPixel } from './map.js';
import { CircleStyle, Feature, Fill, Point, Stroke, Style } from './ol.js';
import { $, banner, make } from './page.js';
import { about, on, state } from './state.js';

/** @typedef {{ fid: number, x: number, y: number, text: string, class: string, time: string }} Note */
/** @typedef {{ do: string, fid?: number, x?: number, y?: number, values?: Record<string, string> }} Change */

const AGAIN = 2000; // ms until changes that did not reach the server are sent again
const PIN = new Style({ image: new CircleStyle({ radius: 7, fill: new Fill({ color: '#ffd23f' }), stroke: new Stroke({ color: '#111', width: 2 }) }), zIndex: 3 });

/** @type {Note[]} */
let notes = [];
let version = '';
/** @type {any[]} */
let pins = [];
/** What undoes the last changes, and what makes them again; the numbers of notes that were made again change.
 * @type {[Change, Change][]} */
const done = [];
/** @type {[Change, Change][]} */
const undone = [];
/** @type {Promise<any>} */
let last = Promise.resolve();

function render() {
  for (const pin of pins) drawings.removeFeature(pin);
  pins = notes.map((note) => {
    const pin = new Feature(new Point(toMap(note)));
    pin.setStyle(PIN);
    drawings.addFeature(pin);
    return pin;
  });
  $('notes').replaceChildren(...notes.map((note) => make('li', 'line', {},
    make('button', 'text note', { type: 'button', title: 'Show the place', onclick: () => goTo(note) }, note.text || '(no text)'),
    make('button', 'copy', { type: 'button', 'aria-label': `Edit ${note.text}`, onclick: () => edit(note) }, 'Edit'),
    make('button', 'copy', { type: 'button', 'aria-label': `Delete ${note.text}`, onclick: () => run({ do: 'delete', fid: note.fid }) }, 'Delete'))));
  /** @type {HTMLButtonElement} */ ($('undo')).disabled = done.length === 0;
  /** @type {HTMLButtonElement} */ ($('redo')).disabled = undone.length === 0;
}

async function load() {
  const found = await json('points.json');
  [notes, version] = [found.points, found.version];
  render();
}

/** What undoes a change.
 * @param {Change} change @param {Note | null} made @returns {Change} */
function inverse(change, made) {
  const before = notes.find(({ fid }) => fid === change.fid);
  const values = before && { text: before.text, class: before.class };
  if (change.do === 'add') return { do: 'delete', fid: made?.fid };
  return change.do === 'set' ? { do: 'set', fid: change.fid, values } : { do: 'add', x: before?.x, y: before?.y, values };
}

/** Send a change until the server has it, or refuses it; a conflict loads what the file holds now.
 * @param {Change} change */
async function send(change) {
  for (;;) {
    try {
      return await write('points.json', change, version);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (error.status !== 0) {
        banner('notes', error.message);
        if (error.status === 412) await load();
        return null;
      }
      banner('notes', 'Not saved yet: the viewer does not answer. Leave this page open; it tries again.');
      await new Promise((resolve) => { setTimeout(resolve, AGAIN); });
    }
  }
}

/** Make a change after those before it, and remember what undoes it.
 * @param {Change} change @param {[Change, Change][]} [list] that gets the inverse */
function run(change, list = done) {
  $('saved').textContent = 'saving …';
  last = last.then(async () => {
    const answer = await send(change);
    $('saved').textContent = answer ? `saved ${new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}` : 'not saved';
    if (!answer) return;
    banner('notes', '');
    list.push([inverse(change, answer.point), change]);
    version = answer.version;
    const rest = notes.filter(({ fid }) => fid !== change.fid);
    notes = answer.point ? [...rest, answer.point].sort((one, two) => one.fid - two.fid) : rest;
    render();
  });
  return last;
}

/** Take back the last change of a list, which the other list gets.
 * @param {[Change, Change][]} from @param {[Change, Change][]} to */
function back(from, to) {
  const [change] = from.pop() ?? [];
  if (change) run(change, to);
}

/** Ask for the text of a note.
 * @param {Partial<Note>} note */
function edit(note) {
  const form = /** @type {HTMLDialogElement} */ ($('note-form')), text = /** @type {HTMLTextAreaElement} */ ($('note-text'));
  text.value = note.text ?? '';
  form.onclose = () => {
    $('map').focus();
    if (form.returnValue !== 'save') return;
    undone.length = 0;
    const values = { text: text.value };
    run(note.fid === undefined ? { do: 'add', x: note.x, y: note.y, values } : { do: 'set', fid: note.fid, values });
  };
  form.returnValue = '';
  form.showModal();
}

export function start() {
  $('notes-part').hidden = $('note-tool').hidden = !about.notes;
  if (!about.notes) return;
  $('notes-file').textContent = about.notes;
  $('undo').addEventListener('click', () => back(done, undone));
  $('redo').addEventListener('click', () => back(undone, done));
  map.on('singleclick', (/** @type {any} */ event) => { if (state.tool === 'note') edit(toPixel(event.coordinate)); });
  on(['tool'], () => $('map').classList.toggle('noting', state.tool === 'note'));
  load().catch((error) => banner('notes', error.message));
}
