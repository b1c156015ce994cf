/** The page's identity: the session from its URL, and a tab id that survives a reload. */

import type { Sender } from "./messages";
import { load, save } from "./storage";

const TAB_KEY = "odkeras:tab";
/** Followed by the session's name: the id of the tab closed last. The next page to be opened takes over its images. */
const LEFT_KEY = "odkeras:left:";
const NAME_KEY = "odkeras:name";
const DEFAULT_SESSION = "default";
const CHANNEL = "odkeras:tabs";
const ANSWER_WAIT_MS = 60;

/** A random UUID. crypto.randomUUID is missing on pages opened over plain http from another machine. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** ask: asks the user for a name; called with the name stored in this browser, or "". */
export async function whoAmI(ask: (known: string) => Promise<string>): Promise<Sender> {
  const session = await chooseSession(ask);
  const tab = await ownTab(session);
  // Without storage, the images are freed once the server considers this tab gone.
  window.addEventListener("pagehide", () => save(LEFT_KEY + session, tab));
  return { session, tab };
}

/** The session's name in the URL. It may be missing on the server's machine; it is empty in a link for a colleague. */
async function chooseSession(ask: (known: string) => Promise<string>): Promise<string> {
  const address = new URL(location.href);
  const given = address.searchParams.get("session");
  if (given) return given;
  if (given === null && isThisMachine(address.hostname)) return DEFAULT_SESSION;
  const known = sessionName(load(NAME_KEY) ?? "");
  const name = given === null && known ? known : await ask(known);
  // Without storage, the name is kept in the URL only.
  save(NAME_KEY, name);
  address.searchParams.set("session", name);
  history.replaceState(null, "", address);
  return name;
}

function isThisMachine(hostname: string): boolean {
  return /^(localhost|.*\.localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname);
}

/** Converts a person's name to a session name (letters, digits and "_.-"); "" if no such character is left. */
export function sessionName(text: string): string {
  const name = text
    .normalize("NFKD")
    .trim()
    .replace(/\s+/g, "-")
    .replace(/[^A-Za-z0-9_.-]/g, "")
    .slice(0, 64);
  return name.toLowerCase() === DEFAULT_SESSION ? "" : name;
}

/** "Duplicate tab" copies sessionStorage, so take a new id if another tab replies that it has ours. */
async function ownTab(session: string): Promise<string> {
  const known = remembered(session);
  let tab = known ?? uuid();
  if (typeof BroadcastChannel === "function") {
    const channel = new BroadcastChannel(CHANNEL);
    if (known && (await isTaken(channel, tab))) tab = uuid();
    channel.onmessage = ({ data }) => {
      if (data?.ask === tab) channel.postMessage({ taken: tab });
    };
  }
  // Without storage, a reload is a new tab; its tasks are freed once the server considers the old tab gone.
  save(TAB_KEY, tab, "sessionStorage");
  return tab;
}

/** The id from before a reload, else that of the tab closed last, which is removed so that only one page takes it. */
function remembered(session: string): string | null {
  const left = load(LEFT_KEY + session);
  save(LEFT_KEY + session, null);
  return load(TAB_KEY, "sessionStorage") ?? left;
}

function isTaken(channel: BroadcastChannel, tab: string): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve(false), ANSWER_WAIT_MS);
    channel.onmessage = ({ data }) => {
      if (data?.taken !== tab) return;
      clearTimeout(timer);
      resolve(true);
    };
    channel.postMessage({ ask: tab });
  });
}
