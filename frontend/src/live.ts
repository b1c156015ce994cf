/** The server-sent events: panel state, news, and the hint that tasks are available. */

import { api } from "./api";
import { Backoff } from "./backoff";
import type { News, PanelState, Sender } from "./messages";

const NEWS_KEPT = 50;
const DISCONNECTED_AFTER_MS = 2_500;

export interface Listener {
  changed: () => void;
  connected: () => void;
  version: (version: number) => void;
  tasks: () => void;
}

export class Live {
  panel: PanelState | null = null;
  news: News[] = [];
  /** Whether the connection has been down long enough to tell the user. */
  lost = false;
  /** performance.now() when the served version was published. */
  published_at: number | null = null;

  private source: EventSource | null = null;
  private readonly backoff = new Backoff(1_000, 10_000);
  private timer = 0;
  private lostTimer = 0;

  constructor(
    private readonly who: Sender,
    private readonly listener: Listener,
  ) {}

  open(): void {
    clearTimeout(this.timer);
    this.source?.close();
    const source = new EventSource(api.eventsUrl(this.who));
    this.source = source;
    source.onopen = () => this.onOpen();
    source.onerror = () => this.onError(source);
    source.addEventListener("state", ({ data }) => this.onState(JSON.parse(data) as PanelState));
    source.addEventListener("news", ({ data }) => this.onNews(JSON.parse(data) as News));
    source.addEventListener("tasks", () => this.listener.tasks());
  }

  private onOpen(): void {
    clearTimeout(this.lostTimer);
    this.lostTimer = 0;
    this.backoff.reset();
    this.lost = false;
    this.listener.connected();
  }

  private onError(source: EventSource): void {
    this.lostTimer ||= window.setTimeout(() => {
      this.lost = true;
      this.listener.changed();
    }, DISCONNECTED_AFTER_MS);
    // After an HTTP error, EventSource does not reconnect by itself.
    if (source.readyState !== EventSource.CLOSED) return;
    clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.open(), this.backoff.next());
  }

  private onState(panel: PanelState): void {
    const before = this.panel?.version ?? null;
    this.panel = panel;
    this.published_at = panel.published_s_ago === null ? null : performance.now() - panel.published_s_ago * 1000;
    this.listener.changed();
    if (panel.version !== null && panel.version !== before) this.listener.version(panel.version);
  }

  /** A reconnected stream may repeat old news, which are skipped. */
  private onNews(news: News): void {
    if (this.news.some(({ at, text }) => at === news.at && text === news.text)) return;
    this.news = [...this.news, news].sort((a, b) => a.at - b.at).slice(-NEWS_KEPT);
    this.listener.changed();
  }
}
