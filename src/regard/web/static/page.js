/** Small parts of the page. */

/** @template {HTMLElement} T @param {string} id @returns {T} */
export const $ = (id) => /** @type {T} */ (document.getElementById(id));

/** An element with its classes, attributes and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {string} [classes] @param {Record<string, any>} [attributes] @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]} */
export function make(tag, classes = '', attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name in element) Object.assign(element, { [name]: value });
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** A message above the map; an empty one takes it away.
 * @param {string} kind one message of each kind @param {string} text
 * @param {{ label: string, run: () => void }} [action] @param {boolean} [grave] */
export function banner(kind, text, action, grave = true) {
  const before = document.querySelector(`#banners [data-kind="${kind}"]`);
  if (before?.getAttribute('data-text') === text) return;
  before?.remove();
  if (!text) return;
  const button = action && make('button', '', { type: 'button', onclick: action.run }, action.label);
  $('banners').append(make('div', grave ? 'banner grave' : 'banner', { 'data-kind': kind, 'data-text': text }, make('span', '', {}, text), ...(button ? [button] : [])));
}

/** Copy a text, or select it where the browser does not let pages copy. @param {string} text @param {HTMLElement} near */
export async function copy(text, near) {
  try {
    await navigator.clipboard.writeText(text);
    const before = near.textContent;
    near.textContent = 'Copied';
    setTimeout(() => { near.textContent = before; }, 1200);
  } catch { getSelection()?.selectAllChildren(near.previousElementSibling ?? near); }
}

/** @param {number} value of 0 to 1 */ export const percent = (value) => `${(100 * value).toFixed(1)} %`;
