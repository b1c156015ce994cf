/** The server's routes as functions. Failures are thrown as ApiError, whose message can be shown to the user. */

import type {
  AnswersReply,
  AnswersRequest,
  BoxesQuery,
  BoxesReply,
  EmptyRequest,
  Failure,
  GalleryFilter,
  GalleryPage,
  History,
  ImagesQuery,
  LabelEdit,
  LabelRequest,
  LabelUse,
  Log,
  LogQuery,
  NextSteps,
  OpenedTask,
  OpenRequest,
  ProcessName,
  Project,
  ReopenRequest,
  SaveReply,
  Sender,
  SentAnswer,
  SessionQuery,
  SharedLink,
  SuggestionsReply,
  SuggestionsRequest,
  TasksReply,
  TasksRequest,
  TensorBoardReply,
  TrainingAction,
  TrainingReply,
  TrainingRequest,
} from "./messages";

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

export const toApiError = (error: unknown) => (error instanceof ApiError ? error : new ApiError(500, String(error)));

const TIMEOUT_MS = 20_000;
/** Timeout for requests that may wait for a prediction or for the start of TensorBoard. */
const LONG_TIMEOUT_MS = 120_000;

interface Options {
  timeout_ms?: number;
  keepalive?: boolean;
}

function post<Body, Reply>(path: string, body: Body, { keepalive, timeout_ms }: Options = {}): Promise<Reply> {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(body), keepalive }, timeout_ms);
}

function get<Query extends object, Reply>(path: string, query: Query): Promise<Reply> {
  return call(`${path}?${parameters(query)}`);
}

async function call<Reply>(path: string, options: RequestInit = {}, timeout_ms = TIMEOUT_MS): Promise<Reply> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), timeout_ms);
  try {
    const reply = await fetch(path, {
      ...options,
      credentials: "same-origin",
      cache: "no-store",
      signal: abort.signal,
    });
    const text = await reply.text();
    if (!reply.ok) throw refusal(reply.status, text);
    return JSON.parse(text) as Reply;
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
    const { error } = JSON.parse(text) as Partial<Failure>;
    if (typeof error === "string" && error) return new ApiError(status, error);
  } catch {
    // The body is not our server's JSON error.
  }
  // A proxy returns 502, 503 or 504 if the server behind it is down.
  if (status >= 502 && status <= 504) return new ApiError(0, "the server cannot be reached");
  return new ApiError(status, `the server answered with an error (${status})`);
}

/** The query of a URL; values that are null or "" are left out. */
function parameters(values: object): string {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== "");
  return new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
}

const LONG = { timeout_ms: LONG_TIMEOUT_MS };

export const api = {
  project: ({ session }: Sender) => get<SessionQuery, Project>("/api/project", { session }),
  tasks: (who: Sender, count: number, have: string[]) =>
    post<TasksRequest, TasksReply>("/api/tasks", { ...who, count, have }, LONG),
  answers: (who: Sender, answers: SentAnswer[], keepalive = false) =>
    post<AnswersRequest, AnswersReply>("/api/answers", { ...who, answers }, { keepalive }),
  reopen: (who: Sender, image_id: string) => post<ReopenRequest, OpenedTask>("/api/reopen", { ...who, image_id }),
  images: (who: Sender, filter: GalleryFilter, offset: number, limit: number) =>
    get<ImagesQuery & GalleryFilter, GalleryPage>("/api/images", { ...who, ...filter, offset, limit }),
  open: (who: Sender, key: string) => post<OpenRequest, OpenedTask>("/api/open", { ...who, key }, LONG),
  boxes: ({ session }: Sender, image_id: string) =>
    get<BoxesQuery, BoxesReply>("/api/boxes", { session, image_id }),
  save: (who: Sender) => post<Sender, SaveReply>("/api/save", who),
  training: (who: Sender, action: TrainingAction) =>
    post<TrainingRequest, TrainingReply>("/api/training", { ...who, action }),
  addLabel: (who: Sender, name: string) => post<LabelRequest, Project>("/api/labels", { ...who, name }),
  editLabel: (who: Sender, edit: Pick<LabelEdit, "action" | "name" | "value">) =>
    post<LabelEdit, Project>("/api/labels/edit", { ...who, ...edit }, LONG),
  labelUse: ({ session }: Sender) => get<SessionQuery, LabelUse>("/api/labels", { session }),
  suggestions: (who: Sender, image_ids: string[]) =>
    post<SuggestionsRequest, SuggestionsReply>("/api/suggestions", { ...who, image_ids }, LONG),
  log: (process: ProcessName) => get<LogQuery, Log>("/api/log", { process }),
  history: ({ session }: Sender) => get<SessionQuery, History>("/api/history", { session }),
  tensorboard: () => post<EmptyRequest, TensorBoardReply>("/api/tensorboard", {}, LONG),
  nextSteps: () => call<NextSteps>("/api/next-steps"),
  link: () => post<EmptyRequest, SharedLink>("/api/link", {}),
  eventsUrl: (who: Sender) => `/api/events?${parameters(who)}`,
};
