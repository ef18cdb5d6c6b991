/** Notes at places, if the viewer was started with --notes: each is on disk when it counts as saved. */

import { drawings, goTo, map, toMap, toPixel } from './map.js';
import { CircleStyle, Feature, Fill, Point, Stroke, Style } from './ol.js';
import { events, points, start as open, submit } from './outbox.js';
import { $, banner, make } from './page.js';
import { about, on, state } from './state.js';

/** @typedef {import('./outbox.js').Point} Note */
/** @typedef {import('./outbox.js').Change} Change */

const PIN = new Style({ image: new CircleStyle({ radius: 7, fill: new Fill({ color: '#ffd23f' }), stroke: new Stroke({ color: '#111', width: 2 }) }), zIndex: 3 });

/** @type {any[]} */ let pins = [];
/** What undoes the last changes, and what makes them again; the numbers of notes that were made again change. @type {[Change, Change][]} */
const done = [];
/** @type {[Change, Change][]} */ const undone = [];

function render() {
  for (const pin of pins) drawings.removeFeature(pin);
  const notes = [...points.values()].sort((one, two) => one.fid - two.fid);
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

/** What undoes a change. @param {Change} change @param {Note | undefined} before @param {Note | null} made @returns {Change} */
function inverse(change, before, made) {
  const values = before && { text: before.text, class: before.class };
  if (change.do === 'add') return { do: 'delete', fid: made?.fid };
  return change.do === 'set' ? { do: 'set', fid: change.fid, values } : { do: 'add', x: before?.x, y: before?.y, values };
}

/** Make a change, and remember what undoes it. @param {Change} change @param {[Change, Change][]} [list] that gets the inverse */
async function run(change, list = done) {
  const before = points.get(change.fid ?? -1), answer = await submit(change);
  if (answer) list.push([inverse(change, before, answer.point), change]);
  render();
}

/** Take back the last change of a list, which the other list gets. @param {[Change, Change][]} from @param {[Change, Change][]} to */
function back(from, to) { const [change] = from.pop() ?? []; if (change) run(change, to); }

/** Ask for the text of a note. @param {Partial<Note>} note */
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
  $('notes-part').hidden = $('note-tool').hidden = !about.points;
  if (!about.points) return;
  $('notes-file').textContent = about.points.name;
  $('undo').addEventListener('click', () => back(done, undone));
  $('redo').addEventListener('click', () => back(undone, done));
  map.on('singleclick', (/** @type {any} */ event) => { if (state.tool === 'note') edit(toPixel(event.coordinate)); });
  on(['tool'], () => $('map').classList.toggle('noting', state.tool === 'note'));
  events.changed = render;
  open().catch((error) => banner('points', error.message));
}
