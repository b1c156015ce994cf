/** The live panel: the trainer's state, the quality of its versions, the other annotators. */

import { useState } from "preact/hooks";
import { api } from "../api";
import type { AppStore } from "../store";
import { readPrecision } from "../precision";
import type { PanelState } from "../messages";
import { Bar, LineChart } from "./charts";
import { RandomWeights } from "./first_steps";
import { Icon } from "./icons";
import { Invite } from "./people";
import { ShowLog } from "./log";
import { Section } from "./side";
import { Training } from "./training";
import { clock, percent, pluralize, errorMessage, share, versionName, versionNumber } from "../format";

const ROWS = 8;

export function Panel({ store }: { store: AppStore }) {
  const panel = store.live?.panel;
  return (
    <aside class="live" id="panel" data-testid="panel" aria-label="Live panel">
      <h2 class="title">Live panel</h2>
      {!panel && <p class="quiet">Waiting for the server…</p>}
      {panel && <Training store={store} panel={panel} />}
      {store.project?.random_weights && <RandomWeights />}
      {panel && <Versions panel={panel} />}
      {panel && <Charts panel={panel} />}
      {panel && panel.sessions.length > 1 && <Annotators panel={panel} own={store.project?.session ?? ""} />}
      {store.project && <Invite />}
      <News store={store} />
      {panel && panel.skipped_count > 0 && <Skipped panel={panel} />}
      {store.project && <TensorBoard store={store} />}
    </aside>
  );
}

function Versions({ panel }: { panel: PanelState }) {
  const { versions } = panel;
  if (!versions.length) return null;
  return (
    <Section title="Suggestions by model">
      <table class="versions">
        <caption class="legend">
          <span class="kept">kept</span>
          <span class="changed">moved or relabelled</span>
          <span class="deleted">deleted</span>
          <span class="quiet">of the suggested boxes; + added</span>
        </caption>
        <thead>
          <tr>
            <th scope="col">Model of</th>
            <th scope="col">Share</th>
            <th scope="col">Kept</th>
            <th scope="col">Chg.</th>
            <th scope="col">Del.</th>
            <th scope="col">+</th>
          </tr>
        </thead>
        <tbody>
          {versions
            .slice(-ROWS)
            .reverse()
            .map((use) => (
              <tr key={use.version}>
                <th
                  scope="row"
                  title={`${versionNumber(use.version)}, ${pluralize(use.images, "image")}, ${pluralize(use.suggested, "suggested box", "suggested boxes")}`}
                >
                  {versionName(panel, use.version)}
                </th>
                <td>
                  <Bar
                    parts={[
                      { name: "kept", kind: "kept", value: use.kept },
                      { name: "moved or relabelled", kind: "changed", value: use.adjusted + use.relabelled },
                      { name: "deleted", kind: "deleted", value: use.deleted },
                    ]}
                  />
                </td>
                <td>{share(use.kept, use.suggested)}</td>
                <td>{share(use.adjusted + use.relabelled, use.suggested)}</td>
                <td>{share(use.deleted, use.suggested)}</td>
                <td>{use.added}</td>
              </tr>
            ))}
        </tbody>
      </table>
    </Section>
  );
}

function Charts({ panel }: { panel: PanelState }) {
  const losses = panel.rounds.flatMap(({ round, loss }) =>
    loss === null ? [] : [{ name: String(round), value: loss }],
  );
  const kept = panel.versions
    .filter(({ suggested }) => suggested > 0)
    .map((use) => ({ name: versionName(panel, use.version), value: use.kept / use.suggested }));
  const precision = (which: "map" | "map50") =>
    panel.evaluations.flatMap((evaluation) => {
      const value = readPrecision(evaluation)[which];
      return value === undefined ? [] : [{ name: String(evaluation.round), value }];
    });
  const [maps, maps50] = [precision("map"), precision("map50")];
  const failed = [...panel.rounds, ...panel.evaluations].filter((round) => round.failed).slice(-1)[0];
  if (!losses.length && !kept.length && !maps.length && !maps50.length && !failed) return null;
  return (
    <Section title="Progress of the model">
      <LineChart title="Loss per round, lower is better" per="round" values={losses} />
      <LineChart
        title="Boxes kept per model"
        per="model of"
        values={kept}
        top={1}
        format={percent}
      />
      <LineChart title="mAP per evaluation, 0 to 1" per="round" values={maps} top={1} />
      <LineChart title="mAP50 per evaluation, 0 to 1" per="round" values={maps50} top={1} />
      {failed && (
        <div class="quiet">
          Round {failed.round} failed: {failed.failed}
          <ShowLog process="trainer" />
        </div>
      )}
    </Section>
  );
}

/** The session that imported labels have. */
const IMPORTED = "imported";

function Annotators({ panel, own }: { panel: PanelState; own: string }) {
  return (
    <Section title="Annotators">
      <ul class="people">
        {panel.sessions.map(({ name, answers, here }) => (
          <li key={name}>
            <span class={here ? "presence here" : "presence"} aria-hidden="true" />
            <span class="name">
              {name}
              {name === own && " (you)"}
            </span>
            <span class="quiet">
              {name === IMPORTED
                ? `${pluralize(answers, "image")}, labels from files`
                : `${pluralize(answers, "answer")}, ${here ? "here" : "away"}`}
            </span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function News({ store }: { store: AppStore }) {
  const news = [...(store.live?.news ?? [])].reverse();
  return (
    <Section title="News">
      {!news.length && <p class="quiet">Nothing yet.</p>}
      <ol class="news" data-testid="news" tabindex={0} aria-label="News, newest first">
        {news.map(({ text, urgent, at, version }) => (
          <li
            key={`${at} ${text}`}
            class={urgent ? "urgent" : ""}
            title={version === null ? undefined : versionNumber(version)}
          >
            <time dateTime={new Date(at * 1000).toISOString()}>{clock(at)}</time>
            <span>
              {urgent && <strong>Urgent: </strong>}
              {text}
            </span>
          </li>
        ))}
      </ol>
    </Section>
  );
}

function Skipped({ panel }: { panel: PanelState }) {
  return (
    <Section title="Skipped images" open={false} extra={panel.skipped_count}>
      <ul class="skipped">
        {panel.skipped.map(({ file, reason }) => (
          <li key={file}>
            <strong>{file}</strong> {reason}
          </li>
        ))}
      </ul>
    </Section>
  );
}

function TensorBoard({ store }: { store: AppStore }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const { tensorboard, logdir } = store.project!;
  if (!tensorboard) {
    return (
      <p class="quiet">
        TensorBoard: <code>tensorboard --logdir {logdir}</code>
      </p>
    );
  }
  const open = async () => {
    // Open the tab before the request: after an await, browsers would block it as a pop-up.
    const tab = window.open("", "_blank");
    if (tab) tab.opener = null;
    setBusy(true);
    setError("");
    try {
      const { url } = await api.tensorboard();
      if (tab) tab.location.href = url;
      else setError(`the browser blocked the new tab; open ${url}`);
    } catch (failure) {
      tab?.close();
      setError(errorMessage(failure));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div class="tensorboard">
      <button type="button" class="plain" data-testid="tensorboard" disabled={busy} onClick={() => void open()}>
        {busy ? "Starting TensorBoard…" : "Open TensorBoard"} <Icon name="arrow" />
      </button>
      {error && <p role="alert">{error}</p>}
    </div>
  );
}
