/** Sets up the page's state and keeps it in sync with the server. */

import { api, ApiError } from "./api";
import { Canvas } from "./canvas";
import { Colours } from "./colours";
import { showNewerCandidates } from "./edits";
import type { AppStore, StageElements } from "./store";
import { Drafts } from "./drafts";
import { FirstSteps } from "./first_steps";
import { Ghost } from "./ghost";
import { Gestures } from "./gestures";
import { Guides } from "./guides";
import { whoAmI } from "./identity";
import { Live } from "./live";
import { Outbox, type Waiting } from "./outbox";
import { loadLabels, refreshProject } from "./project_labels";
import { Queue, renewSuggestions } from "./queue";
import { Records } from "./records";
import { View } from "./view";
import { CandidateWalk } from "./walk";
import type { Project } from "./messages";
import { errorMessage } from "./format";

const TRY_AGAIN_MS = 2_000;

export async function bootstrap(store: AppStore, elements: StageElements): Promise<void> {
  store.elements = elements;
  store.who = await whoAmI((known) => askName(store, known));
  for (;;) {
    try {
      const project = await api.project(store.who);
      setUpStage(store, project, elements);
      setUpNetworking(store, project);
      return;
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) store.fatal = error.message;
      else store.starting = errorMessage(error);
      store.changed();
      await new Promise((resolve) => setTimeout(resolve, TRY_AGAIN_MS));
    }
  }
}

function askName(store: AppStore, known: string): Promise<string> {
  return new Promise((resolve) => {
    const answer = (name: string) => {
      store.asksName = null;
      store.changed();
      resolve(name);
    };
    store.asksName = { known, answer };
    store.changed();
  });
}

function setUpStage(store: AppStore, project: Project, elements: StageElements): void {
  const { stage, scroll, frame, guides, rubber } = elements;
  document.title = `${project.dataset} · odkeras annotate`;
  const colours = new Colours();
  const view = new View(scroll, frame, () => store.canvas?.update());
  const canvas = new Canvas(elements, colours, store.skeletons, () => view.scale, store.changed);
  const label = () => store.label;
  const color = () => colours.of(store.label);
  const ghost = new Ghost(elements.ghost, () => view.scale, label, color);
  store.gestures = new Gestures(scroll, rubber, ghost, {
    canvas,
    view,
    hand: () => store.hand,
    open: () => store.ready && store.label !== "",
    candidates: () => store.display.settings.candidates,
    picked: () => store.firstSteps?.closePicking(),
    label,
    color,
    notify: (text) => store.notices.show(text),
  });
  store.walk = new CandidateWalk({
    canvas,
    ghost,
    label,
    open: () => store.ready && store.display.settings.candidates && !store.hand,
    reveal: (rect) => view.reveal(rect),
  });
  store.subscribe(() => store.walk?.refresh());
  store.subscribe(() => store.gestures?.refresh());
  store.subscribe(() => store.activeTime.refresh());
  new Guides(stage, guides, () => store.display.settings.guides && store.ready);
  Object.assign(store, { project, canvas, view, colours, starting: "", fatal: "" });
  loadLabels(store, project);
}

function setUpNetworking(store: AppStore, project: Project): void {
  const { who } = store;
  const outbox = new Outbox(who, project.dataset, (saved) => onSent(store, saved));
  const queue = new Queue(who, Math.max(1, project.prefetch), {
    idle: () => store.shown === null,
    others: () => [...(store.shown ? [store.shown.id] : []), ...outbox.imageIds],
    changed: () => onTasks(store),
  });
  const records = new Records(who, store.changed);
  const live = new Live(who, {
    changed: () => onPanel(store),
    connected: () => void onConnected(store),
    version: () => void renew(store),
    tasks: () => void queue.fill(),
  });
  const drafts = new Drafts(project.dataset, who.session);
  store.subscribe(() => drafts.note(store));
  const firstSteps = new FirstSteps(project.answered, store.changed);
  Object.assign(store, { outbox, drafts, firstSteps, queue, records, live });
  watchWindow(outbox, drafts);
  store.changed();
  void start(store, drafts.reopened());
}

async function start(store: AppStore, reopened: string | null): Promise<void> {
  if (reopened) await store.resume(reopened);
  store.live?.open();
  void store.outbox?.flush();
  void store.queue?.fill();
  store.records?.refresh();
}

function onSent(store: AppStore, saved: Waiting[]): void {
  const { trouble } = store.outbox!;
  store.fatal = trouble?.status === 401 ? trouble.message : saved.length ? "" : store.fatal;
  if (saved.length) store.records?.saved(saved);
  store.changed();
}

/** The panel changes several times a second during training, but the history only with the answer counts. */
function onPanel(store: AppStore): void {
  const { answers, pending, labels } = store.live?.panel ?? {};
  // Another failure to load them is repeated when the stream reconnects.
  if (labels !== undefined && labels !== store.labelRevision) void refreshProject(store).catch(() => {});
  store.labelRevision = labels ?? store.labelRevision;
  const counted = JSON.stringify([answers, pending]);
  if (counted !== store.counted) store.records?.refresh();
  store.counted = counted;
  store.changed();
}

function onTasks(store: AppStore): void {
  if (store.queue?.trouble?.status === 401) store.fatal = store.queue.trouble.message;
  if (!store.shown && store.queue?.ahead.length) store.next();
  // A task may have been on its way when the new version was published.
  void renew(store);
  store.changed();
}

let renewTimer = 0;

async function renew(store: AppStore): Promise<void> {
  const { live, queue, who, shown } = store;
  const version = live?.panel?.version ?? null;
  clearTimeout(renewTimer);
  if (!queue || version === null) return;
  const again_ms = await renewSuggestions(who, version, queue.ahead, shown);
  showNewerCandidates(store);
  if (again_ms !== null) {
    clearTimeout(renewTimer);
    renewTimer = window.setTimeout(() => void renew(store), again_ms);
  }
  store.changed();
}

/** Called when the stream is (re)connected, possibly to a restarted server, which does not know this tab's tasks. */
async function onConnected(store: AppStore): Promise<void> {
  const { outbox, queue, shown } = store;
  store.changed();
  void outbox?.flush();
  queue?.ahead.filter(({ failed }) => failed).forEach((task) => task.load());
  if (shown?.failed) store.retryImage();
  void queue?.fill();
  try {
    await refreshProject(store);
    store.records?.refresh();
    void renew(store);
    store.changed();
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
