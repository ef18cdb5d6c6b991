/** Start the page. */

import { onTrouble, json } from './api.js';
import * as edit from './edit.js';
import * as inspect from './inspect.js';
import * as keys from './keys.js';
import * as label from './label.js';
import * as layers from './layers.js';
import * as map from './map.js';
import { $, banner, copy } from './page.js';
import { about } from './state.js';
import { retry } from './tiles.js';
import * as tools from './tools.js';

let away = false;

/** Ask whether the server is back, now and then. */
async function waitForServer() {
  try {
    await json('about.json', { retries: 0 });
    away = false;
    banner('server', '');
    retry();
  } catch { setTimeout(waitForServer, 2000); }
}

onTrouble((failure) => {
  if (failure?.status === 409) banner('changed', failure.message);
  if (failure?.status !== 0 || away) return;
  away = true;
  banner('server', failure.message);
  setTimeout(waitForServer, 2000);
});

document.title = `${about.scene} - regard`;
$('name').textContent = about.scene;
$('what').textContent = about.label ? `Labelling ${about.points.name}` : `${about.model.architecture}, ${about.map ? `map ${about.map}` : 'on-the-fly inference'}`;
$('size').textContent = `${about.size[1].toLocaleString('en')} × ${about.size[0].toLocaleString('en')} px`;
/** @type {HTMLInputElement} */ ($('url')).value = `${location.href.replace(/[?#].*/, '')}prediction/{z}/{x}/{y}.png`;
$('qgis').hidden = about.xyz.kind !== 'earth';
$('url-copy').addEventListener('click', () => copy(/** @type {HTMLInputElement} */ ($('url')).value, $('url-copy')));
$('fold').addEventListener('click', () => {
  const folded = $('panel').classList.toggle('folded');
  $('fold').textContent = folded ? 'Show' : 'Hide';
  $('fold').setAttribute('aria-expanded', String(!folded));
});
new ResizeObserver(() => map.map.updateSize()).observe($('map'));
map.start();
layers.start();
tools.start();
if (about.label) await label.start();
else { inspect.start(); edit.start(); }
keys.start();
document.documentElement.dataset.ready = 'true';
