/** Sets up the page's state and keeps it in sync with the server. */

import { api, ApiError } from "./api";
import { Canvas } from "./canvas";
import { Colours } from "./colours";
import type { Desk, Furniture } from "./desk";
import { Drafts } from "./drafts";
import { FirstSteps } from "./first_steps";
import { Gestures } from "./gestures";
import { Guides } from "./guides";
import { whoAmI } from "./identity";
import { LabelBook } from "./labels";
import { Live } from "./live";
import { Outbox, type Waiting } from "./outbox";
import { Queue, renewSuggestions } from "./queue";
import { Records } from "./records";
import { View } from "./view";
import type { Project } from "./wire";
import { messageOf } from "./words";

const TRY_AGAIN_MS = 2_000;

export async function openDesk(desk: Desk, furniture: Furniture): Promise<void> {
  desk.furniture = furniture;
  desk.who = await whoAmI((known) => askName(desk, known));
  for (;;) {
    try {
      const project = await api.project(desk.who);
      setUpStage(desk, project, furniture);
      setUpPost(desk, project);
      return;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) desk.fatal = error.message;
      else desk.starting = messageOf(error);
      desk.changed();
      await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    }
  }
}

function askName(desk: Desk, known: string): Promise<string> {
  return new Promise((resolve) => {
    const answer = (name: string) => {
      desk.asksName = null;
      desk.changed();
      resolve(name);
    };
    desk.asksName = { known, answer };
    desk.changed();
  });
}

function setUpStage(desk: Desk, project: Project, furniture: Furniture): void {
  const { stage, scroll, frame, tags, handles, guides, rubber } = furniture;
  document.title = `${project.dataset} · odkeras annotate`;
  const colours = new Colours();
  const view = new View(scroll, frame, () => desk.canvas?.update());
  const canvas = new Canvas(frame, tags, handles, colours, () => view.scale, desk.changed);
  desk.gestures = new Gestures(scroll, rubber, {
    canvas,
    view,
    hand: () => desk.hand,
    open: () => desk.ready,
    label: () => desk.label,
    color: () => colours.of(desk.label),
    say: (text) => desk.notices.say(text),
  });
  new Guides(stage, guides, () => desk.display.settings.guides && desk.ready);
  Object.assign(desk, { project, canvas, view, colours, starting: "", fatal: "" });
  takeLabels(desk, project);
}

/** Loads the labels. Also called after a restart of the server, whose label map may differ: it refuses old labels. */
function takeLabels(desk: Desk, project: Project): void {
  const labels = new LabelBook(project.labels, project.dataset);
  const label = labels.label(desk.label) ? desk.label : (project.labels[0]?.name ?? "");
  Object.assign(desk, { labels, label });
  desk.colours?.take(project.labels);
  desk.canvas?.update();
}

function setUpPost(desk: Desk, project: Project): void {
  const { who } = desk;
  const outbox = new Outbox(who, project.dataset, (saved) => onSent(desk, saved));
  const queue = new Queue(who, Math.max(1, project.prefetch), {
    idle: () => desk.shown === null,
    others: () => [...(desk.shown ? [desk.shown.id] : []), ...outbox.imageIds],
    changed: () => onTasks(desk),
  });
  const records = new Records(who, desk.changed);
  const live = new Live(who, {
    changed: () => onPanel(desk),
    connected: () => void onConnected(desk),
    version: () => void renew(desk),
    tasks: () => void queue.fill(),
  });
  const drafts = new Drafts(project.dataset, who.session);
  desk.subscribe(() => drafts.note(desk));
  const firstSteps = new FirstSteps(project.answered, desk.changed);
  Object.assign(desk, { outbox, drafts, firstSteps, queue, records, live });
  watchWindow(outbox, drafts);
  desk.changed();
  void start(desk, drafts.reopened());
}

async function start(desk: Desk, reopened: string | null): Promise<void> {
  if (reopened) await desk.resume(reopened);
  desk.live?.open();
  void desk.outbox?.flush();
  void desk.queue?.fill();
  desk.records?.refresh();
}

function onSent(desk: Desk, saved: Waiting[]): void {
  const { trouble } = desk.outbox!;
  desk.fatal = trouble?.status === 401 ? trouble.message : saved.length ? "" : desk.fatal;
  if (saved.length) desk.records?.saved(saved);
  desk.changed();
}

/** The panel changes several times a second during training, but the history only with the answer counts. */
function onPanel(desk: Desk): void {
  const { answers, pending } = desk.live?.panel ?? {};
  const counted = JSON.stringify([answers, pending]);
  if (counted !== desk.counted) desk.records?.refresh();
  desk.counted = counted;
  desk.changed();
}

function onTasks(desk: Desk): void {
  if (desk.queue?.trouble?.status === 401) desk.fatal = desk.queue.trouble.message;
  if (!desk.shown && desk.queue?.ahead.length) desk.next();
  // A task may have been on its way when the new version was published.
  void renew(desk);
  desk.changed();
}

let renewTimer = 0;

async function renew(desk: Desk): Promise<void> {
  const { live, queue, who, shown } = desk;
  const version = live?.panel?.version ?? null;
  clearTimeout(renewTimer);
  if (!queue || version === null) return;
  const again_ms = await renewSuggestions(who, version, queue.ahead, shown);
  if (again_ms !== null) {
    clearTimeout(renewTimer);
    renewTimer = window.setTimeout(() => void renew(desk), again_ms);
  }
  desk.changed();
}

/** Called when the stream is (re)connected, possibly to a restarted server, which does not know this tab's tasks. */
async function onConnected(desk: Desk): Promise<void> {
  const { outbox, queue, shown } = desk;
  desk.changed();
  void outbox?.flush();
  queue?.ahead.filter(({ failed }) => failed).forEach((held) => held.load());
  if (shown?.failed) desk.retryImage();
  void queue?.fill();
  try {
    const project = await api.project(desk.who);
    const restarted = desk.project?.instance !== project.instance;
    Object.assign(desk, { project, fatal: "" });
    desk.records?.refresh();
    if (restarted) takeLabels(desk, project);
    void renew(desk);
    desk.changed();
  } catch {
    // The request is repeated when the stream reconnects.
  }
}

function watchWindow(outbox: Outbox, drafts: Drafts): void {
  window.addEventListener("pagehide", () => {
    drafts.write();
    outbox.flushOnLeave();
  });
  // Mobile browsers may kill a hidden page without any further event.
  document.addEventListener("visibilitychange", () => document.hidden && drafts.write());
  window.addEventListener("online", () => void outbox.flush());
  window.addEventListener("beforeunload", (event) => {
    if (outbox.waiting.length && !outbox.persisted) event.preventDefault();
  });
}
