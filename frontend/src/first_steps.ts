/** Hints for the first images. Each is shown once; this browser stores which ones were shown. */

import type { Decision } from "./messages";
import { loadJson, save } from "./storage";

const KEY = "odkeras:told";
/** Number of answers after which the explanation of the answers disappears, unless it is closed earlier. */
const SHOWN_FOR_ANSWERS = 3;

type Topic = "answers" | "empty" | "picking";

export class FirstSteps {
  /** Whether the explanation of the answers' effect on training is shown. */
  explainsAnswers: boolean;
  /** Whether an image was just accepted without boxes for the first time. */
  explainsEmpty = false;
  /** Whether the person has neither picked a candidate nor closed the explanation of candidates. */
  explainsPicking: boolean;

  private readonly shownHints: Set<Topic>;

  /** answered: number of answers that the user gave before the page was opened. */
  constructor(
    private answered: number,
    private readonly changed: () => void,
  ) {
    this.shownHints = remembered();
    this.explainsPicking = !this.shownHints.has("picking");
    this.explainsAnswers = !this.shownHints.has("answers") && answered < SHOWN_FOR_ANSWERS;
  }

  afterAnswer(decision: Decision, boxes: number): void {
    this.answered += 1;
    if (this.explainsAnswers && this.answered >= SHOWN_FOR_ANSWERS) this.closeAnswers();
    this.explainsEmpty = decision === "accept" && boxes === 0 && !this.shownHints.has("empty");
    this.changed();
  }

  closeAnswers(): void {
    this.explainsAnswers = false;
    this.remember("answers");
    this.changed();
  }

  /** Called when the explanation is actually on the screen, which requires an image. */
  noteEmptySeen(): void {
    this.remember("empty");
  }

  closeEmpty(): void {
    this.explainsEmpty = false;
    this.changed();
  }

  closePicking(): void {
    if (!this.explainsPicking) return;
    this.explainsPicking = false;
    this.remember("picking");
    this.changed();
  }

  private remember(topic: Topic): void {
    this.shownHints.add(topic);
    // Without storage, the next page shows the hint again.
    save(KEY, JSON.stringify([...this.shownHints]));
  }
}

function remembered(): Set<Topic> {
  const topics = loadJson(KEY);
  return new Set(Array.isArray(topics) ? (topics as Topic[]) : []);
}
