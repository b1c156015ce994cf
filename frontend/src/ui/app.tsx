/** The whole page. */

import type { Desk } from "../desk";
import { Actions } from "./actions";
import { Banners } from "./banners";
import { Gallery } from "./gallery";
import { Help } from "./help";
import { useDesk } from "./hooks";
import { Icon } from "./icons";
import { LabelPicker } from "./label-picker";
import { Labels } from "./labels";
import { Panel } from "./panel";
import { Boxes, History, Progress, Section } from "./side";
import { Caption, Stage } from "./stage";
import { Tool, Tools } from "./toolbar";
import { many, trainingWords, untilTraining } from "../words";

/** The same breakpoint as in styles/layout.css. */
const narrow = window.matchMedia("(max-width: 999.98px)").matches;

export function App({ desk }: { desk: Desk }) {
  useDesk(desk);
  return (
    <div class={desk.panelOpen ? "app with-panel" : "app"}>
      <Top desk={desk} />
      <main class="work">
        <h1 class="sr-only">Annotate {desk.project?.dataset ?? ""}</h1>
        <Banners desk={desk} />
        <div class="toolbar">
          <Labels desk={desk} />
          <Tools desk={desk} />
        </div>
        <Stage desk={desk} />
        <div class="under">
          <Caption desk={desk} />
          <p class="notice" role="status" aria-live="polite">
            {desk.notices.notice}
          </p>
        </div>
        <Actions desk={desk} />
      </main>
      <div class="right">
        <aside class="side" aria-label="Progress, boxes and answers">
          <Section title="Progress">
            <Progress desk={desk} />
          </Section>
          <Section title="Boxes" extra={desk.ready ? desk.canvas?.boxes.length : undefined}>
            <Boxes desk={desk} />
          </Section>
          <Section title="Recent answers" open={!narrow}>
            <History desk={desk} />
          </Section>
        </aside>
        {desk.panelOpen && <Panel desk={desk} />}
      </div>
      <Help desk={desk} />
      <LabelPicker desk={desk} />
      <Gallery desk={desk} />
      <p class="sr-only" aria-live="polite">
        {desk.notices.announcement}
      </p>
    </div>
  );
}

function Top({ desk }: { desk: Desk }) {
  const { project, live, outbox } = desk;
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
        {live?.panel && trainingWords(live.panel)}
      </p>
      {project && live?.panel && (
        <p
          class="until"
          data-testid="until-training"
          title={`Training starts after ${many(project.batch_size, "answer")}, when all images are answered, or with “Train now”.`}
        >
          {untilTraining(live.panel.pending, project.batch_size, live.panel.training)}
        </p>
      )}
      <p class={waiting ? "saved waiting" : "saved"}>
        {!project ? "" : waiting ? `saving ${many(waiting, "answer")}` : "all saved"}
      </p>
      <button
        type="button"
        class="plain small save"
        aria-keyshortcuts="Control+s"
        title="Train now on the answers so far, without waiting for a full batch (ctrl+s)"
        disabled={!project || desk.saving}
        onClick={() => void desk.save()}
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
        onClick={() => desk.set({ galleryOpen: true })}
      />
      <Tool
        icon="chart"
        label="Live panel"
        keys="p"
        pressed={desk.panelOpen}
        onClick={() => desk.set({ panelOpen: !desk.panelOpen })}
      />
      <Tool icon="help" label="Keys and help" keys="h" onClick={() => desk.set({ helpOpen: true })} />
    </header>
  );
}
