'use strict';
const $ = (id) => document.getElementById(id);
const TITLES = { prediction: 'Prediction', confidence: 'Confidence', labels: 'Labels', errors: 'Errors (misclassified)' };
const AT_ONCE = 2; // tiles of the model requested at a time; the other connections stay free for the scene

/** An element with its classes, text and children. */
function make(tag, classes = '', ...children) {
  const element = document.createElement(tag);
  element.className = classes;
  element.append(...children);
  return element;
}

/** Tiles of the model, requested a few at a time; those no longer in the page are dropped. */
const queue = {
  waiting: [], running: 0,
  add(task) { this.waiting.push(task); setTimeout(() => this.next()); },
  next() {
    while (this.running < AT_ONCE && this.waiting.length) {
      const { tile, url, done } = this.waiting.shift();
      if (!tile.isConnected) continue;
      this.running += 1;
      const ended = (error) => { this.running -= 1; done(error, tile); this.next(); };
      tile.addEventListener('load', () => ended(null), { once: true });
      tile.addEventListener('error', () => ended(new Error('no tile')), { once: true });
      tile.src = url;
    }
    viewer.showStatus(this.running + this.waiting.length);
  },
};
const QueuedLayer = L.TileLayer.extend({
  createTile(coords, done) {
    const tile = make('img');
    tile.alt = '';
    queue.add({ tile, url: this.getTileUrl(coords), done });
    return tile;
  },
});

/** A scale bar in pixels. */
const PixelScale = L.Control.Scale.extend({
  _updateMetric(units) {
    const pixels = units * 2 ** viewer.about.finest, round = this._getRoundNum(pixels);
    this._updateScale(this._mScale, `${round} px`, round / pixels);
  },
});

const viewer = {
  async start() {
    this.about = await (await fetch('about.json')).json();
    const about = this.about;
    this.onEarth = about.kind === 'earth';
    document.title = `${about.scene} - regard`;
    $('name').textContent = about.scene;
    $('what').textContent = `${about.model.architecture}, ${about.map ? `map ${about.map}` : 'on-the-fly inference'}`;
    $('url').value = `${location.href.replace(/[?#].*/, '')}prediction/{z}/{x}/{y}.png`;
    document.querySelector('details').hidden = !this.onEarth;
    this.shown = about.classes.map(() => true);
    this.makeMap();
    this.makeLayers();
    this.makeLegend();
    this.listen();
    this.refresh();
  },

  fromPage([x, y]) { return this.onEarth ? L.latLng(y, x) : L.latLng(-y / 2 ** this.about.finest, x / 2 ** this.about.finest); },
  toPage(place) { return this.onEarth ? [place.lng, place.lat] : [place.lng * 2 ** this.about.finest, -place.lat * 2 ** this.about.finest]; },
  boundsOf(corners) { return L.latLngBounds(corners.map((corner) => this.fromPage(corner))); },

  makeMap() {
    const { about } = this;
    this.bounds = this.boundsOf(about.bounds);
    this.map = L.map('map', {
      crs: this.onEarth ? L.CRS.EPSG3857 : L.CRS.Simple, minZoom: about.coarsest, maxZoom: about.finest + 3,
      attributionControl: false, maxBounds: this.bounds.pad(1),
    });
    this.map.zoomControl.setPosition('topleft');
    (this.onEarth ? L.control.scale({ imperial: false }) : new PixelScale({ imperial: false })).addTo(this.map);
    ['scene', 'classes', 'why'].forEach((name, order) => { this.map.createPane(name).style.zIndex = 210 + order; });
    this.map.getPane('classes').classList.add('sharp');
    this.map.getPane('why').style.pointerEvents = 'none';
  },

  makeLayers() {
    const { about, map } = this;
    const options = { bounds: this.bounds, noWrap: true, minZoom: about.coarsest, maxZoom: about.finest + 3, maxNativeZoom: about.finest, keepBuffer: 1 };
    this.sceneOptions = { ...options, pane: 'scene', alt: '' };
    this.scene = L.tileLayer('scene/{z}/{x}/{y}.png', this.sceneOptions).addTo(map);
    if (about.progress < 1) setTimeout(() => this.followLoading(), 1000);
    this.layers = {};
    for (const name of about.layers) {
      const from = name === 'labels' ? about.coarsest : about.coarsest_live;
      const layer = new QueuedLayer(`${name}/{z}/{x}/{y}.png`, { ...options, minZoom: from, pane: 'classes', updateWhenZooming: false });
      layer.on('load', () => this.countSoon());
      this.layers[name] = layer;
      const box = make('input');
      box.type = 'checkbox';
      box.checked = name === 'prediction';
      box.addEventListener('change', () => this.refresh());
      box.dataset.layer = name;
      $('layers').append(make('label', 'line', box, make('span', 'text', TITLES[name])));
    }
    map.fitBounds(this.bounds, { padding: [2, 2] });
  },

  makeLegend() {
    this.about.classes.forEach(({ name, colour }, k) => {
      const box = make('input'), swatch = make('span', 'swatch'), share = make('span', 'number');
      box.type = 'checkbox';
      box.checked = true;
      box.addEventListener('change', () => { this.shown[k] = box.checked; this.recolour(); });
      swatch.style.backgroundColor = `rgb(${colour})`;
      $('classes').append(make('li', '', make('label', 'line', box, swatch, make('span', 'text', name), share)));
    });
  },

  listen() {
    const { map } = this;
    $('opacity').addEventListener('input', () => this.refresh());
    $('url').addEventListener('focus', (event) => event.target.select());
    $('close').addEventListener('click', () => this.clear());
    $('inspect').addEventListener('click', () => this.inspect(map.getCenter()));
    $('fold').addEventListener('click', () => this.fold(!$('panel').classList.contains('folded')));
    $('map').addEventListener('keydown', (event) => { if (event.key === 'Enter') this.inspect(map.getCenter()); });
    map.on('click', (event) => this.inspect(event.latlng));
    map.on('mousemove', (event) => { $('where').textContent = this.format(event.latlng); });
    map.on('mouseout', () => { $('where').textContent = ''; });
    map.on('moveend', () => { this.showStatus(queue.running + queue.waiting.length); this.countSoon(); });
  },

  /** Show the chosen layers; while an attention map is shown, only that. */
  refresh() {
    for (const box of document.querySelectorAll('[data-layer]')) {
      const layer = this.layers[box.dataset.layer];
      if (box.checked) layer.addTo(this.map); else layer.remove();
      if (box.dataset.layer === 'confidence') $('confidence').hidden = !box.checked;
    }
    this.map.getPane('classes').style.opacity = this.overlay ? 0 : $('opacity').value / 100;
    this.map.getPane('scene').classList.toggle('dimmed', Boolean(this.overlay));
    this.showStatus(queue.running + queue.waiting.length);
  },

  recolour() {
    const query = this.shown.every(Boolean) ? '' : `?show=${this.shown.map(Number).join('')}`;
    for (const name of ['prediction', 'labels']) if (this.layers[name]) this.layers[name].setUrl(`${name}/{z}/{x}/{y}.png${query}`);
  },

  fold(folded) {
    $('panel').classList.toggle('folded', folded);
    $('fold').textContent = folded ? 'Show' : 'Hide';
    $('fold').setAttribute('aria-expanded', String(!folded));
    this.map.invalidateSize();
  },

  format(place) {
    const [x, y] = this.toPage(place);
    if (!this.onEarth) return `x ${Math.floor(x)}, y ${Math.floor(y)}`;
    const digits = Math.max(0, Math.min(6, Math.round(this.about.finest / 3)));
    return `${Math.abs(y).toFixed(digits)}° ${y < 0 ? 'S' : 'N'}, ${Math.abs(x).toFixed(digits)}° ${x < 0 ? 'W' : 'E'}`;
  },

  /** A large file without overviews is being read: show the progress and what has been read. */
  async followLoading() {
    const before = this.about.progress;
    this.about.progress = (await (await fetch('about.json')).json()).progress;
    this.showStatus(queue.running + queue.waiting.length);
    if (this.about.progress > before) {
      const old = this.scene;
      this.scene = L.tileLayer(`scene/{z}/{x}/{y}.png?read=${this.about.progress.toFixed(3)}`, this.sceneOptions);
      this.scene.once('load', () => old.remove()).addTo(this.map);
    }
    if (this.about.progress < 1) setTimeout(() => this.followLoading(), 1000);
  },

  showStatus(count) {
    const far = this.map.getZoom() < this.about.coarsest_live, { progress } = this.about;
    const notes = far ? ['Zoom in for the prediction'] : count && !this.about.map ? ['Predicting …'] : [];
    if (progress < 1) notes.push(`Loading the scene: ${Math.floor(100 * progress)} %`);
    $('note').textContent = notes.join('. ');
    $('note').hidden = notes.length === 0;
  },

  countSoon() { clearTimeout(this.timer); this.timer = setTimeout(() => this.count(), 250); },

  async count() {
    const z = Math.min(this.map.getZoom(), this.about.finest), view = this.map.getBounds();
    const [from, to] = [view.getNorthWest(), view.getSouthEast()].map((place) => this.map.project(place, z));
    const query = new URLSearchParams({ z, left: from.x, top: from.y, right: to.x, bottom: to.y });
    const { shares } = await (await fetch(`shares.json?${query}`)).json();
    document.querySelectorAll('#classes .number').forEach((cell, k) => {
      cell.textContent = shares[k] >= 0.001 ? `${(100 * shares[k]).toFixed(1)} %` : '';
    });
  },

  async inspect(place) {
    const [x, y] = this.toPage(place);
    this.clear();
    this.request = new AbortController();
    this.mark = L.layerGroup([['#000', 6], ['#fff', 3]].map(([color, weight]) => L.circleMarker(place, { radius: 9, color, weight, fill: false, interactive: false }))).addTo(this.map);
    $('answer').hidden = false;
    $('inspected').textContent = this.format(place);
    $('message').textContent = 'Loading …';
    this.fold(false);
    $('body').scrollTop = 0;
    try {
      const response = await fetch(`pixel.json?${new URLSearchParams({ x, y })}`, { signal: this.request.signal });
      const found = await response.json();
      if (found.error) $('message').textContent = found.error; else this.show(found);
    } catch (error) {
      if (error.name !== 'AbortError') $('message').textContent = 'No response. Is the viewer still running?';
    }
  },

  show(found) {
    const { classes } = this.about, best = classes[found.class];
    $('message').textContent = `Pixel ${found.x}, ${found.y}: ${best.name}, probability ${found.probabilities[found.class].toFixed(2)}.`;
    const order = found.probabilities.map((value, k) => [value, k]).sort((one, two) => two[0] - one[0]).filter(([value], place) => place < 2 || (place < 6 && value >= 0.005));
    $('bars').replaceChildren(...order.map(([value, k]) => make('li', '', this.bar(classes[k].name, value, classes[k].colour))));
    $('views').hidden = found.overlays.length === 0;
    const choices = [{ name: 'none' }, ...found.overlays].map((overlay) => this.choice(overlay));
    $('choices').replaceChildren(...choices);
    const before = found.overlays.findIndex(({ name, group }) => `${group} ${name}` === this.preferred);
    const first = choices[found.overlays.length ? Math.max(0, before) + 1 : 0].querySelector('input');
    first.checked = true;
    first.dispatchEvent(new Event('change'));
  },

  bar(name, value, colour, input = null) {
    const fill = make('i'), track = make('span', 'track', fill);
    fill.style.width = `${100 * value}%`;
    if (colour) fill.style.backgroundColor = `rgb(${colour})`;
    return make(input ? 'label' : 'div', 'line', ...(input ? [input] : []), make('span', 'text', name), track, make('span', 'number', value.toFixed(2)));
  },

  /** One overlay to choose: attention with its gate, a region with its weight. */
  choice(overlay) {
    const input = make('input');
    input.type = 'radio';
    input.name = 'view';
    input.addEventListener('change', () => this.showOverlay(overlay));
    const named = overlay.group === 'Regions' ? `region: ${overlay.name}` : overlay.name;
    if (overlay.weight !== undefined) return this.bar(named, overlay.weight, null, input);
    const gate = typeof overlay.gate === 'number' ? `gate ${overlay.gate.toFixed(3)}` : '';
    return make('label', 'line', input, make('span', 'text', named), make('span', 'number', gate));
  },

  showOverlay(overlay) {
    if (this.overlay) this.overlay.remove();
    this.overlay = overlay.picture && L.imageOverlay(overlay.picture, this.boundsOf(overlay.corners), { pane: 'why', alt: overlay.name }).addTo(this.map);
    if (this.frame) this.frame.remove();
    this.frame = overlay.picture && L.rectangle(this.boundsOf(overlay.corners), { color: '#fff', weight: 1, dashArray: '4 4', fill: false, interactive: false }).addTo(this.map);
    if (overlay.group) this.preferred = `${overlay.group} ${overlay.name}`;
    $('scale').hidden = !overlay.picture;
    if (overlay.picture) {
      [$('low').textContent, $('high').textContent] = overlay.scale.map((value) => value.toFixed(1));
      $('unit').textContent = overlay.unit;
    }
    this.refresh();
  },

  clear() {
    if (this.request) this.request.abort();
    for (const part of [this.overlay, this.frame, this.mark]) if (part) part.remove();
    this.overlay = this.frame = this.mark = this.request = null;
    $('answer').hidden = true;
    $('bars').replaceChildren();
    $('choices').replaceChildren();
    $('views').hidden = true;
    this.refresh();
  },
};
viewer.start();
