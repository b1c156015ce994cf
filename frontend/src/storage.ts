/** The browser's storage. It may be blocked or full: then there is nothing to load, and `save` returns false. */

type Area = "localStorage" | "sessionStorage";

export function load(key: string, area: Area = "localStorage"): string | null {
  try {
    return window[area].getItem(key);
  } catch {
    return null;
  }
}

/** The value of an entry; null if there is none or it is not JSON. */
export function loadJson(key: string): unknown {
  try {
    return JSON.parse(load(key) ?? "null");
  } catch {
    return null;
  }
}

/** Stores a text, or with null removes the entry. */
export function save(key: string, text: string | null, area: Area = "localStorage"): boolean {
  try {
    if (text === null) window[area].removeItem(key);
    else window[area].setItem(key, text);
    return true;
  } catch {
    return false;
  }
}

export function keysWith(prefix: string): string[] {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(prefix));
  } catch {
    return [];
  }
}
