/** The server's routes as functions. Failures are thrown as ApiError, whose message can be shown to the user. */

import type {
  AnswersReply,
  Decision,
  GalleryFilter,
  GalleryPage,
  NextStep,
  PastAnswer,
  Project,
  SentAnswer,
  SharedLink,
  Span,
  Task,
  TasksReply,
  TrainingAction,
  TrainingState,
} from "./wire";

export class ApiError extends Error {
  /** status: the HTTP status; 0 if there was no response, because the server cannot be reached. */
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }

  get unreachable(): boolean {
    return this.status === 0;
  }
}

export interface Who {
  session: string;
  tab: string;
}

const TIMEOUT_MS = 20_000;
/** Timeout for requests that may wait for a prediction or for the start of TensorBoard. */
const LONG_TIMEOUT_MS = 120_000;

async function call<T>(
  path: string,
  body?: unknown,
  options: { timeout_ms?: number; keepalive?: boolean } = {},
): Promise<T> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), options.timeout_ms ?? TIMEOUT_MS);
  try {
    const reply = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? null : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      keepalive: options.keepalive ?? false,
      signal: abort.signal,
    });
    const text = await reply.text();
    if (!reply.ok) throw refusal(reply.status, text);
    return JSON.parse(text) as T;
  } catch (error) {
    if (error instanceof ApiError) throw error;
    if (error instanceof SyntaxError) throw new ApiError(500, "the server's reply could not be read");
    throw new ApiError(0, "the server cannot be reached");
  } finally {
    clearTimeout(timer);
  }
}

function refusal(status: number, text: string): ApiError {
  if (status === 401)
    return new ApiError(401, "This browser is no longer signed in. Open the link with the token again.");
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === "string" && error) return new ApiError(status, error);
  } catch {
    // The body is not our server's JSON error.
  }
  // A proxy returns 502, 503 or 504 if the server behind it is down.
  if (status >= 502 && status <= 504) return new ApiError(0, "the server cannot be reached");
  return new ApiError(status, `the server answered with an error (${status})`);
}

const query = (values: Record<string, string>) => new URLSearchParams(values).toString();

const texts = (values: Record<string, string | number | null>) =>
  Object.fromEntries(
    Object.entries(values)
      .filter(([, value]) => value !== null && value !== "")
      .map(([name, value]) => [name, String(value)]),
  );

export const api = {
  project: (who: Who) => call<Project>(`/api/project?${query({ session: who.session })}`),
  tasks: (who: Who, count: number, have: string[]) =>
    call<TasksReply>("/api/tasks", { ...who, count, have }, { timeout_ms: LONG_TIMEOUT_MS }),
  answers: (who: Who, answers: SentAnswer[], keepalive = false) =>
    call<AnswersReply>("/api/answers", { ...who, answers }, { keepalive }),
  reopen: (who: Who, image_id: string) => call<{ task: Task; answer: Decision }>("/api/reopen", { ...who, image_id }),
  images: (who: Who, filter: GalleryFilter, offset: number, limit: number) =>
    call<GalleryPage>(`/api/images?${query({ ...who, ...texts({ ...filter, offset, limit }) })}`),
  open: (who: Who, key: string) =>
    call<{ task: Task; answer: Decision | null }>("/api/open", { ...who, key }, { timeout_ms: LONG_TIMEOUT_MS }),
  boxes: (who: Who, image_id: string) =>
    call<{ file: string; spans: Span[] }>(`/api/boxes?${query({ session: who.session, image_id })}`),
  save: (who: Who) => call<{ delivered: number; resumed: boolean }>("/api/save", { ...who }),
  training: (who: Who, action: TrainingAction) =>
    call<{ training: TrainingState }>("/api/training", { ...who, action }),
  suggestions: (who: Who, image_ids: string[]) =>
    call<{ tasks: Task[] }>("/api/suggestions", { ...who, image_ids }, { timeout_ms: LONG_TIMEOUT_MS }),
  log: (process: string) => call<{ path: string; text: string }>(`/api/log?${query({ process })}`),
  history: (who: Who) => call<{ answers: PastAnswer[] }>(`/api/history?${query({ session: who.session })}`),
  tensorboard: () => call<{ url: string }>("/api/tensorboard", {}, { timeout_ms: LONG_TIMEOUT_MS }),
  nextSteps: () => call<{ steps: NextStep[] }>("/api/next-steps"),
  link: () => call<SharedLink>("/api/link", {}),
  eventsUrl: (who: Who) => `/api/events?${query({ session: who.session, tab: who.tab })}`,
};
