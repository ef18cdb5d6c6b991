/** Keys of the map. They work while the map has the focus, so that keys on controls do not reach it; Esc works anywhere. */

import { close, inspect } from './inspect.js';
import { centre, fit } from './map.js';
import { $ } from './page.js';
import { about, state, update } from './state.js';
import { choose } from './tools.js';

const KEYS = /** @type {Record<string, () => void>} */ ({
  Enter: () => inspect(centre()),
  f: () => fit(250),
  l: () => choose('line'),
  a: () => choose('area'),
  g: () => { $('body').querySelector('details.go')?.setAttribute('open', ''); $('place').focus(); },
});

export function start() {
  $('map').addEventListener('keydown', (event) => {
    const run = (about.label && event.key === 'Enter') || event.ctrlKey || event.metaKey || event.altKey ? undefined : KEYS[event.key];
    if (!run || (state.tool && event.key === 'Enter')) return;
    event.preventDefault();
    run();
  });
  addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    if (state.tool) update({ tool: null });
    else if (state.pixel) close();
  });
}
