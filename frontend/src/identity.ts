/** Who this page is: the session from its address, and an id of this tab that survives a reload. */

import type { Who } from "./api";

const TAB_KEY = "odkeras:tab";
const CHANNEL = "odkeras:tabs";
const ANSWER_WAIT_MS = 60;

/** crypto.randomUUID is missing where the page is opened over plain http from another machine. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

export async function whoAmI(): Promise<Who> {
  const session = new URLSearchParams(location.search).get("session") || "default";
  return { session, tab: await ownTab() };
}

/** "Duplicate tab" copies sessionStorage: if another tab says that it has our id, take a new one. */
async function ownTab(): Promise<string> {
  let tab = remembered() ?? uuid();
  if (typeof BroadcastChannel === "function") {
    const channel = new BroadcastChannel(CHANNEL);
    if (remembered() && (await isTaken(channel, tab))) tab = uuid();
    channel.onmessage = ({ data }) => {
      if (data?.ask === tab) channel.postMessage({ taken: tab });
    };
  }
  try {
    sessionStorage.setItem(TAB_KEY, tab);
  } catch {
    // Without storage a reload is a new tab; its tasks come back when the server gives up on the old one.
  }
  return tab;
}

function remembered(): string | null {
  try {
    return sessionStorage.getItem(TAB_KEY);
  } catch {
    return null;
  }
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
