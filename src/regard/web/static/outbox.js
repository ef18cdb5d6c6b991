/** Changes on their way to the file of points: sent one after the other, and kept in the browser until they are saved. */

import { Failure, json, write } from './api.js';
import { banner } from './page.js';
import { about } from './state.js';

/** @typedef {{ fid: number, x: number, y: number, version: string } & Record<string, any>} Point */
/** @typedef {{ do: string, fid?: number, x?: number, y?: number, values?: Record<string, string> }} Change */

const AGAIN = 2000; // ms until changes that did not reach the server are sent again
const REFUSED = [409, 412, 413, 422]; // what to send again does not help with
/** The points as they are, or will be when what is on its way is saved. */
export const points = /** @type {Map<number, Point>} */ (new Map());
/** What the page does when points have changed, and when a change was refused. */
export const events = { changed: () => {}, refused: (/** @type {Change} */ _change) => {} };
let version = '';
/** What is not saved yet. @type {Set<Change>} */
const pending = new Set();
/** @type {Promise<any>} */ let last = Promise.resolve();

/** @param {IDBRequest} request @returns {Promise<any>} */ const result = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

/** What waits to be saved, in this browser; null where it keeps nothing, as in some private windows. @type {Promise<IDBDatabase | null>} */
const database = new Promise((resolve) => {
  const opening = indexedDB.open(`regard ${about.points?.id}`);
  opening.onupgradeneeded = () => opening.result.createObjectStore('waiting', { autoIncrement: true });
  opening.onsuccess = () => resolve(opening.result);
  opening.onerror = () => resolve(null);
});
const waiting = async () => (await database)?.transaction('waiting', 'readwrite').objectStore('waiting') ?? null;

/** Whether the file holds what a change wants. @param {Change} change */
function agrees({ do: verb, fid, x = 0, y = 0, values = {} }) {
  const same = (/** @type {Point} */ point) => Object.entries(values).every(([name, value]) => point[name] === value);
  if (verb === 'add') return [...points.values()].some((point) => same(point) && Math.hypot(point.x - x, point.y - y) < 1e-3);
  const point = points.get(fid ?? -1);
  return verb === 'delete' ? !point : Boolean(point && same(point));
}

/** Show points as they will be when all is saved. */
function foresee() {
  for (const { do: verb, fid, values } of pending) {
    const point = points.get(fid ?? -1);
    if (point && verb === 'set') points.set(point.fid, { ...point, ...values });
  }
  events.changed();
}

/** Read what the file holds now. */
export async function load() {
  const found = await json('points.json');
  version = found.version;
  points.clear();
  for (const point of found.points) points.set(point.fid, point);
  foresee();
}

/** Send a change until the server has it, or refuses it; who adds to a list that has changed loses nothing of it. @param {Change} change */
async function send(change) {
  for (;;) {
    try {
      return await write('points.json', change, change.fid === undefined ? version : (points.get(change.fid)?.version ?? 'gone'));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (REFUSED.includes(error.status)) {
        pending.delete(change);
        await load().catch(() => {});
      }
      if (error.status === 412 && change.fid === undefined) continue;
      if (error.status === 412 && agrees(change)) return { version, point: points.get(change.fid ?? -1) };
      banner('points', REFUSED.includes(error.status) ? error.message : `Not saved yet, kept in this browser. ${error.message}`);
      if (REFUSED.includes(error.status)) return null;
      await new Promise((resolve) => { setTimeout(resolve, AGAIN); });
    }
  }
}

const say = (/** @type {string} */ text) => { for (const each of document.querySelectorAll('.saved')) each.textContent = text; };

/** @param {Change} change @param {Promise<any>} kept its key among what waits */ function queue(change, kept) {
  pending.add(change);
  foresee();
  say('saving …');
  last = last.then(async () => {
    const answer = await send(change), key = await kept;
    if (key !== undefined) (await waiting())?.delete(key);
    pending.delete(change);
    if (pending.size === 0 || !answer) say(answer ? `saved ${new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })}` : 'not saved');
    if (!answer) { events.refused(change); return null; }
    banner('points', '');
    version = answer.version ?? version;
    if (answer.point) points.set(answer.point.fid, answer.point);
    else points.delete(change.fid ?? -1);
    foresee();
    return answer;
  });
  return last;
}

/** Make a change after those before it; answers the point as it is then, or null if it was refused. @param {Change} change */
export function submit(change) {
  const before = points.get(change.fid ?? -1), seen = before?.version ?? '';
  const kept = waiting().then((store) => store && result(store.add({ change, seen }))).catch(() => undefined);
  return queue(change, kept);
}

/** Read the file, and send what an earlier page could not: unless the file has it, or another answer since. */
export async function start() {
  await load();
  const store = await waiting();
  if (!store) return;
  const [keys, found] = await Promise.all([result(store.getAllKeys()), result(store.getAll())]);
  for (const [place, { change, seen }] of found.entries()) {
    const fits = change.do === 'add' || points.get(change.fid)?.version === seen;
    if (fits && !agrees(change)) queue(change, Promise.resolve(keys[place]));
    else (await waiting())?.delete(keys[place]);
  }
}
