/** Every request to the server: with a limit of time, tried again where that can help, and one kind of error. */

const LONGEST = 120_000; // ms; a tile may need dozens of windows of the model
const AGAIN = [400, 1500]; // ms until a request that got no answer is sent again
const TOKEN = location.pathname.split('/')[1];

/** What went wrong, in words for the page; `status` is 0 where no answer came. */
export class Failure extends Error {
  /** @param {number} status @param {string} message */
  constructor(status, message) { super(message); this.status = status; }
}

/** @type {Set<(failure: Failure | null) => void>} */ const listeners = new Set();

/** Call `listener` with each failure that concerns the whole page (server gone, file changed), and null when it ends. @param {(failure: Failure | null) => void} listener */
export function onTrouble(listener) { listeners.add(listener); }
/** @param {Failure | null} failure */ function tell(failure) { for (const listener of listeners) listener(failure); }

const WORDS = /** @type {Record<number, string>} */ ({
  0: 'The viewer does not answer. Is it still running in the terminal?',
  404: 'The viewer has no such page. If it was started again, open the new address that the terminal shows.',
  412: 'This was changed in another window.',
  413: 'The text is too long.',
  429: 'The model is busy.',
  503: 'The viewer is busy.',
  507: 'The disk is full.',
});

/** @param {number} time @param {AbortSignal} [signal] */ const pause = (time, signal) => new Promise((resolve, reject) => {
  setTimeout(resolve, time);
  signal?.addEventListener('abort', () => reject(signal.reason));
});

/** @param {Response} response */ async function failed(response) {
  let text = WORDS[response.status] ?? `The viewer answered ${response.status}.`;
  if (response.headers.get('content-type') === 'application/json') text = (await response.json()).error ?? text;
  return new Failure(response.status, text);
}

/** @param {string} url @param {RequestInit} how @param {AbortSignal} [signal] */ async function once(url, how, signal) {
  const limits = [AbortSignal.timeout(LONGEST), ...(signal ? [signal] : [])];
  let response;
  try {
    response = await fetch(url, { ...how, signal: AbortSignal.any(limits) });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    throw new Failure(0, /** @type {Error} */ (error).name === 'TimeoutError' ? 'The viewer took too long.' : WORDS[0]);
  }
  if (!response.ok) throw await failed(response);
  return response;
}

/** Ask the server; throws a Failure, or what `signal` was aborted with. @param {string} path @param {{ query?: Record<string, any>, signal?: AbortSignal, retries?: number }} [options] */
export async function request(path, { query, signal, retries = AGAIN.length } = {}) {
  const url = query ? `${path}?${new URLSearchParams(query)}` : path;
  for (let trial = 0; ; trial += 1) {
    try {
      const response = await once(url, {}, signal);
      tell(null);
      return response;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      const passing = [0, 429, 503].includes(error.status);
      if (!passing || trial >= retries) {
        if ([0, 409].includes(error.status)) tell(error);
        throw error;
      }
      await pause(AGAIN[trial] ?? 5000, signal);
    }
  }
}

/** @param {string} path @param {Parameters<typeof request>[1]} [options] */
export const json = async (path, options) => (await request(path, options)).json();

/** Write: only what the server was started for. Answers what the server keeps now. @param {string} path @param {object} body @param {string} version of what is changed */
export async function write(path, body, version) {
  const headers = { 'content-type': 'application/json', 'x-regard-token': TOKEN, 'if-match': version };
  const response = await once(path, { method: 'POST', headers, body: JSON.stringify(body) });
  tell(null);
  return response.json();
}
