/** Types of the server's JSON interface. Lengths are in pixels of the original image. */

export type Decision = "accept" | "reject" | "ignore";
export type Point = [number, number];

export interface Span {
  id: string;
  label: string;
  type: "rect" | "polygon";
  x: number;
  y: number;
  width: number;
  height: number;
  points?: Point[];
  score?: number;
}

export interface Task {
  image_id: string;
  image: string;
  width: number;
  height: number;
  file: string;
  spans: Span[];
  version: number | null;
  threshold: number;
}

export interface Label {
  name: string;
  color: string;
}

export interface Project {
  dataset: string;
  session: string;
  labels: Label[];
  source: string;
  prefetch: number;
  /** Number of answers that start a training round. */
  batch_size: number;
  /** Number of answers of this session so far. */
  answered: number;
  /** Whether the model was not initialised from a checkpoint. */
  random_weights: boolean;
  threshold: number | string;
  tensorboard: boolean;
  logdir: string;
  odkeras: string;
  instance: string;
}

export interface TasksReply {
  tasks: Task[];
  done: boolean;
  waiting: string;
}

export interface SentAnswer {
  answer_id: string;
  image_id: string;
  answer: Decision;
  spans: Span[];
  version?: number | null;
  age_ms: number;
}

export interface Refusal {
  answer_id: string;
  reason: string;
}

export interface AnswersReply {
  saved: string[];
  refused: Refusal[];
}

export interface PastAnswer {
  image_id: string;
  file: string;
  answer: Decision;
  boxes: number;
  answered_s_ago: number;
  state: string;
}

export type Counts = Record<Decision, number>;

export interface Trainer {
  state: string;
  reason?: string;
  round?: number | null;
  step?: number | null;
  steps?: number | null;
  loss?: number | null;
}

export interface VersionUse {
  version: number;
  images: number;
  suggested: number;
  kept: number;
  adjusted: number;
  relabelled: number;
  deleted: number;
  added: number;
}

export interface Round {
  round: number;
  loss: number | null;
  steps: number;
  version: number | null;
  failed: string;
}

export interface Evaluation {
  round: number;
  metrics: Record<string, number>;
  failed: string;
}

export type TrainingState = "running" | "paused" | "stopped";
export type TrainingAction = "pause" | "resume" | "stop";

export interface PanelState {
  trainer: Trainer | null;
  /** Why the trainer or the server was given up, and which one; "" if neither. */
  failure: string;
  failed: "" | "trainer" | "server";
  version: number | null;
  /** Display names by version. */
  names: Record<string, string>;
  published_s_ago: number | null;
  answers: Counts;
  mine: Counts;
  total: number | null;
  left: number | null;
  skipped: { file: string; reason: string }[];
  skipped_count: number;
  pending: number;
  training: TrainingState;
  sessions: { name: string; answers: number; here: boolean }[];
  versions: VersionUse[];
  /** Loss of the first round, for comparison. */
  first_loss: number | null;
  rounds: Round[];
  evaluations: Evaluation[];
}

export interface NextStep {
  title: string;
  /** A shell command to paste. */
  command: string;
  remark: string;
}

export interface SharedLink {
  url: string;
  /** Whether the link works on other machines. */
  works_elsewhere: boolean;
}

/** The gallery's filter; "" and null match everything. */
export interface GalleryFilter {
  state: "all" | "answered" | "unanswered";
  label: string;
  decision: Decision | "";
  annotator: string;
  min_score: number | null;
  max_score: number | null;
  name: string;
}

export interface GalleryImage {
  key: string;
  /** null if the image has not been read yet. */
  image_id: string | null;
  file: string;
  thumbnail: string;
  /** null if the image is unanswered. */
  decision: Decision | null;
  annotator: string | null;
  score: number | null;
  /** Whether a tab holds the unanswered image. */
  held: "" | "here" | "elsewhere";
  /** The session of that tab. */
  holder: string | null;
  /** Left, top, width and height as fractions of the image size. */
  boxes: { label: string; rect: [number, number, number, number] }[];
}

export interface GalleryPage {
  total: number;
  offset: number;
  images: GalleryImage[];
  /** Why the list may be incomplete; "" if it is complete. */
  missing: string;
}

export interface News {
  text: string;
  urgent: boolean;
  at: number;
  version: number | null;
}
