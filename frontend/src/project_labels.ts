/** Labels that change while the page is open. */

import { api } from "./api";
import { LabelBook } from "./labels";
import type { LabelAction, Project } from "./messages";
import type { AppStore } from "./store";

/** Loads the labels of the project. They change when someone edits them, and after a restart of the server. */
export function loadLabels(store: AppStore, project: Project): void {
  const labels = new LabelBook(project.labels, project.dataset, project.renamed);
  const label = labels.today(store.label) ?? project.labels[0]?.name ?? "";
  const filter = { ...store.galleryFilter, label: labels.today(store.galleryFilter.label) ?? "" };
  Object.assign(store, { labels, label, galleryFilter: filter });
  store.colours?.take(project.labels);
  store.skeletons.take(project.labels);
  relabelShown(store, labels);
  store.canvas?.update();
}

function relabelShown({ shown, canvas, gestures, ready }: AppStore, labels: LabelBook): void {
  shown?.relabel(labels);
  if (!shown || !canvas || !ready) return;
  gestures?.cancel();
  canvas.takeLabels(labels, shown.reopened !== null);
}

/** Asks the server for the project again, and takes its labels over if they have changed. */
export async function refreshProject(store: AppStore): Promise<void> {
  take(store, await api.project(store.who));
}

/** Adds a label to the project, and chooses it for the next box. */
export async function addLabel(store: AppStore, name: string): Promise<void> {
  const project = await api.addLabel(store.who, name);
  take(store, project);
  const added = project.labels.find((label) => label.name === name.trim());
  if (added) store.label = added.name;
  store.changed();
}

/** Renames, merges, recolours or retires a label of the project. value: see `LabelEdit`. */
export async function editLabel(store: AppStore, action: LabelAction, name: string, value: string): Promise<void> {
  take(store, await api.editLabel(store.who, { action, name, value }));
}

function take(store: AppStore, project: Project): void {
  const changed = JSON.stringify(store.project?.labels) !== JSON.stringify(project.labels);
  Object.assign(store, { project, fatal: "" });
  if (changed) loadLabels(store, project);
  store.changed();
}
