/** What travels between the page and its server (bodies are JSON; lengths are pixels of the original image). */

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
  /** After so many answers a round of training starts. */
  batch_size: number;
  /** Answers of this session so far. */
  answered: number;
  /** The model started from no checkpoint. */
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
  /** Why the trainer or the server was given up, in a sentence, and which of them. */
  failure: string;
  failed: "" | "trainer" | "server";
  version: number | null;
  /** What versions are called. */
  names: Record<string, string>;
  published_s_ago: number | null;
  answers: Counts;
  mine: Counts;
  total: number | null;
  left: number | null;
  skipped: { file: string; reason: string }[];
  skipped_count: number;
  not_handed_on: number;
  training: TrainingState;
  sessions: { name: string; answers: number; here: boolean }[];
  versions: VersionUse[];
  /** Of the first round: what the newest loss is to be compared with. */
  first_loss: number | null;
  rounds: Round[];
  evaluations: Evaluation[];
}

export interface NextStep {
  title: string;
  /** To be pasted into a shell. */
  command: string;
  remark: string;
}

export interface SharedLink {
  url: string;
  /** Also on other machines. */
  works_elsewhere: boolean;
}

/** Which images the gallery lists; "" and null: whatever it is. */
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
  /** null: not read yet. */
  image_id: string | null;
  file: string;
  thumbnail: string;
  /** null: not answered. */
  decision: Decision | null;
  annotator: string | null;
  score: number | null;
  /** An unanswered image that a tab has. */
  held: "" | "here" | "elsewhere";
  /** The session of that tab. */
  holder: string | null;
  /** Left, top, width and height as shares of the image's size. */
  boxes: { label: string; rect: [number, number, number, number] }[];
}

export interface GalleryPage {
  total: number;
  offset: number;
  images: GalleryImage[];
  /** Why there may be more images; "": these are all. */
  missing: string;
}

export interface News {
  text: string;
  urgent: boolean;
  at: number;
  version: number | null;
}
