/** The JSON between the page and the server. Generated from Python by scripts/page_types.py: do not edit. */

export type TrainingAction = "pause" | "resume" | "stop";

export type ProcessName = "server" | "trainer";

export type LabelAction = "merge" | "recolour" | "rename" | "retire";

export type TrainingState = "paused" | "running" | "stopped";

export type SpanType = "polygon" | "rect";

export type Visibility = 0 | 1 | 2;

export type Point = [number, number];

/** The session and the tab that send a request. Part of nearly all requests. */
export interface Sender {
  /** 1 to 64 letters, digits or _.- */
  session: string;
  /** 1 to 64 letters, digits or _.- */
  tab: string;
}

/** POST /api/tasks. The reply is a `TasksReply`. */
export interface TasksRequest extends Sender {
  /** 1 to 20 */
  count?: number;
  /** a list of at most 500 image ids */
  have?: string[];
}

/** POST /api/suggestions: newer suggestions for tasks that the tab holds. The reply is a `SuggestionsReply`. */
export interface SuggestionsRequest extends Sender {
  /** a list of at most 500 image ids */
  image_ids: string[];
}

/**
 * POST /api/answers. Each answer is validated on its own, so that an invalid one does not hold up the others. The
 * reply is an `AnswersReply`.
 */
export interface AnswersRequest extends Sender {
  /** a list of 1 to 500 answers */
  answers: SentAnswer[];
}

/** POST /api/reopen: an answer, to be corrected. The reply is an `OpenedTask`. */
export interface ReopenRequest extends Sender {
  /** an image id, 32 hexadecimal digits */
  image_id: string;
}

/** POST /api/open: an image of the gallery. The reply is an `OpenedTask`. */
export interface OpenRequest extends Sender {
  /** an image id, 32 hexadecimal digits */
  key: string;
}

/** POST /api/training. The reply is a `TrainingReply`. */
export interface TrainingRequest extends Sender {
  /** one of pause, resume, stop */
  action: TrainingAction;
}

/** POST /api/labels: a label to add. The reply is a `Project`. */
export interface LabelRequest extends Sender {
  /** 1 to 100 characters */
  name: string;
}

/**
 * POST /api/labels/edit: change a label of the project. The reply is a `Project`.
 *
 * `value`: the new name, the label that gets the objects, or #rrggbb; "" to retire.
 */
export interface LabelEdit extends Sender {
  /** one of rename, merge, recolour, retire */
  action: LabelAction;
  /** a text of at most 500 characters */
  name: string;
  /** a text of at most 500 characters */
  value?: string;
}

/** POST /api/tensorboard and /api/link. The replies are a `TensorBoardReply` and a `SharedLink`. */
export interface EmptyRequest {
}

/** GET /api/project, /api/history and /api/labels. The replies are a `Project`, a `History` and a `LabelUse`. */
export interface SessionQuery {
  /** 1 to 64 letters, digits or _.- */
  session: string;
}

/** GET /api/boxes: the boxes of an answer, to be copied. The reply is a `BoxesReply`. */
export interface BoxesQuery {
  /** 1 to 64 letters, digits or _.- */
  session: string;
  /** an image id, 32 hexadecimal digits */
  image_id: string;
}

/** GET /api/log. The reply is a `Log`. */
export interface LogQuery {
  /** one of trainer, server */
  process: ProcessName;
}

/**
 * A part of the query of GET /api/images; the default matches all images.
 *
 * `label`: at least one box has this label. `annotator`: this session has answered. `min_score`, `max_score`: bounds
 * for the lowest score of the suggested boxes. `name`: substring of the file name, not case-sensitive (ASCII letters).
 * "" and null match everything.
 */
export interface GalleryFilter {
  /** one of all, answered, unanswered */
  state?: "all" | "answered" | "unanswered";
  /** a text of at most 500 characters */
  label?: string;
  /** one of accept, reject, ignore */
  decision?: "" | "accept" | "ignore" | "reject";
  /** a text of at most 500 characters */
  annotator?: string;
  /** from 0 to 1 */
  min_score?: number | null;
  /** from 0 to 1 */
  max_score?: number | null;
  /** a text of at most 500 characters */
  name?: string;
}

/** GET /api/images, with a `GalleryFilter`: the images from `offset` on. The reply is a `GalleryPage`. */
export interface ImagesQuery extends Sender {
  /** a whole number of at most 1000000000 */
  offset?: number;
  /** a whole number of at most 200 */
  limit?: number;
}

/** An answer, as the page posts it. `incoming` validates the spans and ignores an age that is not valid. */
export interface SentAnswer {
  /** a string of 1 to 64 ASCII characters */
  answer_id: string;
  /** an image id */
  image_id: string;
  /** one of accept, reject, ignore */
  answer: Decision;
  spans: Span[];
  /** milliseconds since the person answered */
  age_ms: number;
  /** the model version whose suggestions were shown; null for none */
  version?: number | null;
  /** milliseconds of work for this answer, 0 to 86400000 */
  active_ms?: number;
}

/** An annotator's decision about an image. Only accepted images are trained on. */
export type Decision = "accept" | "ignore" | "reject";

/** A named point of an object. Where the visibility is 0, the place is a proposal that is not trained. */
export interface Keypoint {
  name: string;
  x: number;
  y: number;
  visibility: Visibility;
}

/** A box or polygon. `x` and `y` are its left and upper edge; polygons have `points`; `score` is the model's. */
export interface Span {
  id: string;
  label: string;
  type: SpanType;
  x: number;
  y: number;
  width: number;
  height: number;
  points?: Point[];
  score?: number;
  /** whether the annotator picked it from the model's candidates */
  picked?: boolean;
  /** of labels that have keypoints */
  keypoints?: Keypoint[];
}

/** An object that the model detected and that is not shown. The annotator can pick it. */
export interface Candidate {
  label: string;
  /** [x, y, width, height], rounded to a tenth of a pixel */
  rect: [number, number, number, number];
  score: number;
  /** that the model detected */
  keypoints?: Keypoint[];
}

/** An image to annotate. */
export interface Task {
  image_id: string;
  /** the path of its URL */
  image: string;
  width: number;
  height: number;
  file: string;
  spans: Span[];
  /** best first; none for control images */
  candidates: Candidate[];
  /** the model version that suggested the boxes; null for none */
  version: number | null;
  /** the lowest score of a suggested box */
  threshold: number | null;
}

export interface TasksReply {
  tasks: Task[];
  /** whether no image is left for this session */
  done: boolean;
  /** why there are no tasks, if more follow; else "" */
  waiting: string;
}

/** The tasks that have newer suggestions. */
export interface SuggestionsReply {
  tasks: Task[];
}

export interface Refusal {
  answer_id: string;
  reason: string;
}

export interface AnswersReply {
  /** ids of the stored answers */
  saved: string[];
  refused: Refusal[];
}

export interface OpenedTask {
  task: Task;
  /** null if the image is not answered */
  answer: Decision | null;
}

export interface BoxesReply {
  file: string;
  spans: Span[];
}

/** The reply to POST /api/save, whose body is a `Sender`. */
export interface SaveReply {
  /** number of answers that were handed to the trainer */
  delivered: number;
  /** whether training was paused or stopped before */
  resumed: boolean;
}

export interface TrainingReply {
  training: TrainingState;
}

export interface TensorBoardReply {
  url: string;
}

export interface SharedLink {
  url: string;
  /** whether the link works on other machines */
  works_elsewhere: boolean;
}

export interface Label {
  name: string;
  /** #rrggbb */
  color: string;
  /** the names of the keypoints that its objects have */
  keypoints: string[];
  /** pairs of keypoints that a line joins, by their place */
  edges: Point[];
}

/** The number of answered images that have boxes of each label. */
export interface LabelUse {
  images: Record<string, number>;
}

/** What does not change while the page is open, except for the labels. */
export interface Project {
  dataset: string;
  session: string;
  labels: Label[];
  /** earlier names of labels, and the labels that they are now */
  renamed: Record<string, string>;
  /** the name of the images' folder or file, without its path */
  source: string;
  /** number of tasks that the page fetches ahead */
  prefetch: number;
  /** number of answers that start a training round */
  batch_size: number;
  /** number of answers of this session so far */
  answered: number;
  /** whether the model was not initialised from a checkpoint */
  random_weights: boolean;
  threshold: number | string;
  /** whether the page can open TensorBoard */
  tensorboard: boolean;
  logdir: string;
  /** the installed version of odkeras */
  odkeras: string;
  /** random for each run, to notice a restart */
  instance: string;
}

export interface PastAnswer {
  image_id: string;
  file: string;
  answer: Decision;
  boxes: number;
  answered_s_ago: number;
  /** sending, saved or delivered (to the trainer) */
  state: string;
}

/** The session's latest answers, newest first. */
export interface History {
  answers: PastAnswer[];
}

export interface NextStep {
  /** what the command achieves */
  title: string;
  /** shell command to paste */
  command: string;
  /** additional information; "" if there is none */
  remark?: string;
}

/** The reply to GET /api/next-steps: what to do once all images are answered. */
export interface NextSteps {
  steps: NextStep[];
}

/** The end of a process's log. */
export interface Log {
  process: ProcessName;
  path: string;
  text: string;
}

/** The body of every reply with an error status. */
export interface Failure {
  error: string;
}

export interface GalleryBox {
  label: string;
  /** left, top, width and height, as fractions of the image's */
  rect: [number, number, number, number];
}

export interface GalleryImage {
  key: string;
  /** null if the image has not been read yet */
  image_id: string | null;
  file: string;
  /** the path of its URL */
  thumbnail: string;
  /** null if the image is unanswered */
  decision: Decision | null;
  annotator: string | null;
  score: number | null;
  /** which tab holds the unanswered image */
  held: "" | "elsewhere" | "here";
  /** the session of that tab */
  holder: string | null;
  boxes: GalleryBox[];
}

export interface GalleryPage {
  /** number of images that match the filter */
  total: number;
  offset: number;
  images: GalleryImage[];
  /** why the list may be incomplete; "" if it is complete */
  missing: string;
}

/** A "news" event: a line of the page's log. */
export interface News {
  text: string;
  urgent: boolean;
  /** seconds since the epoch */
  at: number;
  version: number | null;
}

/** The trainer's status. `step` of `steps` are those of the round. */
export interface Trainer {
  state: string;
  reason: string;
  round: number | null;
  step: number | null;
  steps: number | null;
  loss: number | null;
}

/** Number of answers. */
export interface Counts {
  accept: number;
  reject: number;
  ignore: number;
}

export interface SkippedImage {
  file: string;
  reason: string;
}

export interface Annotator {
  name: string;
  answers: number;
  /** whether a page of this session is open */
  here: boolean;
}

/** What became of the boxes that a model version suggested. */
export interface VersionUse {
  version: number;
  images: number;
  suggested: number;
  /** with an IoU of at least 0.9 */
  kept: number;
  /** with an IoU of at least 0.8; includes kept */
  kept_80: number;
  /** with an IoU of 0.5 to 0.9 */
  adjusted: number;
  relabelled: number;
  deleted: number;
  added: number;
  /** those of added that were picked from the candidates */
  picked: number;
}

/** A training round. */
export interface Round {
  round: number | null;
  loss: number | null;
  steps: number | null;
  examples: number | null;
  train_s: number | null;
  /** the version that it published */
  version: number | null;
  /** the reason; "" for a success */
  failed: string;
}

/** An evaluation on held-out images. */
export interface Evaluation {
  round: number | null;
  metrics: Record<string, number>;
  /** the reason; "" for a success */
  failed: string;
}

/** A "state" event: everything that the live panel shows. */
export interface PanelState {
  trainer: Trainer | null;
  /** why the trainer or the server was given up; "" if neither was */
  failure: string;
  /** which one was given up */
  failed: "" | "server" | "trainer";
  /** the served version */
  version: number | null;
  /** display names by version */
  names: Record<string, string>;
  published_s_ago: number | null;
  /** of all sessions */
  answers: Counts;
  /** of this session */
  mine: Counts;
  /** number of images; null if unknown */
  total: number | null;
  /** number of unanswered images; null if unknown */
  left: number | null;
  /** number of answers that the trainer does not have yet */
  pending: number;
  training: TrainingState;
  /** increases when the labels change */
  labels: number;
  /** the latest images that cannot be used */
  skipped: SkippedImage[];
  skipped_count: number;
  sessions: Annotator[];
  versions: VersionUse[];
  /** loss of the first round, for comparison */
  first_loss: number | null;
  rounds: Round[];
  evaluations: Evaluation[];
}
