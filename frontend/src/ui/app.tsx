/** The whole page. */

import type { AppStore } from "../store";
import { Actions } from "./actions";
import { Banners } from "./banners";
import { Gallery } from "./gallery";
import { Help } from "./help";
import { useAppStore } from "./hooks";
import { Icon } from "./icons";
import { LabelMenu } from "./label-menu";
import { LabelPicker } from "./label-picker";
import { Labels } from "./labels";
import { Panel } from "./panel";
import { Boxes, History, Progress, Section } from "./side";
import { Caption, Stage } from "./stage";
import { Tool, Tools } from "./toolbar";
import { pluralize, trainingText, untilTraining } from "../format";

/** The same breakpoint as in styles/layout.css. */
const narrow = window.matchMedia("(max-width: 999.98px)").matches;

export function App({ store }: { store: AppStore }) {
  useAppStore(store);
  return (
    <div class={store.panelOpen ? "app with-panel" : "app"}>
      <Top store={store} />
      <main class="work">
        <h1 class="sr-only">Annotate {store.project?.dataset ?? ""}</h1>
        <Banners store={store} />
        <div class="toolbar">
          <Labels store={store} />
          <Tools store={store} />
        </div>
        <Stage store={store} />
        <div class="under">
          <Caption store={store} />
          <p class="notice" role="status" aria-live="polite">
            {store.notices.notice}
          </p>
        </div>
        <Actions store={store} />
      </main>
      <div class="right">
        <aside class="side" aria-label="Progress, boxes and answers">
          <Section title="Progress">
            <Progress store={store} />
          </Section>
          <Section title="Boxes" extra={store.ready ? store.canvas?.boxes.length : undefined}>
            <Boxes store={store} />
          </Section>
          <Section title="Recent answers" open={!narrow}>
            <History store={store} />
          </Section>
        </aside>
        {store.panelOpen && <Panel store={store} />}
      </div>
      <Help store={store} />
      <LabelPicker store={store} />
      <LabelMenu store={store} />
      <Gallery store={store} />
      <p class="sr-only" aria-live="polite">
        {store.notices.announcement}
      </p>
    </div>
  );
}

function Top({ store }: { store: AppStore }) {
  const { project, live, outbox } = store;
  const waiting = outbox?.waiting.length ?? 0;
  return (
    <header class="top">
      <p class="brand">
        odkeras <span>annotate</span>
      </p>
      {project && (
        <p class="where">
          <strong>{project.dataset}</strong>
          {project.session !== "default" && <span class="quiet"> {project.session}</span>}
        </p>
      )}
      <p class="trainer" title="State of the trainer">
        {live?.panel && trainingText(live.panel)}
      </p>
      {project && live?.panel && (
        <p
          class="until"
          data-testid="until-training"
          title={`Training starts after ${pluralize(project.batch_size, "answer")}, when all images are answered, or with “Train now”.`}
        >
          {untilTraining(live.panel.pending, project.batch_size, live.panel.training)}
        </p>
      )}
      <p class={waiting ? "saved waiting" : "saved"}>
        {!project ? "" : waiting ? `saving ${pluralize(waiting, "answer")}` : "all saved"}
      </p>
      <button
        type="button"
        class="plain small save"
        aria-keyshortcuts="Control+s"
        title="Train now on the answers so far, without waiting for a full batch (ctrl+s)"
        disabled={!project || store.saving}
        onClick={() => void store.save()}
      >
        <Icon name="save" />
        <span>Train now</span>
      </button>
      <Tool
        icon="grid"
        label="All images"
        keys="g"
        testid="open-gallery"
        disabled={!project}
        onClick={() => store.set({ galleryOpen: true })}
      />
      <Tool
        icon="chart"
        label="Live panel"
        keys="p"
        pressed={store.panelOpen}
        onClick={() => store.set({ panelOpen: !store.panelOpen })}
      />
      <Tool icon="help" label="Keys and help" keys="h" onClick={() => store.set({ helpOpen: true })} />
    </header>
  );
}
