/** What a person has to know at the first images: told once, and then this browser remembers it. */

import type { Decision } from "./wire";

const KEY = "odkeras:told";
/** The explanation of the answers stays for so many of them, unless it is closed before. */
const SHOWN_FOR_ANSWERS = 3;

type Topic = "answers" | "empty";

export class FirstSteps {
  /** What the answers do to training is shown beside them. */
  explainsAnswers: boolean;
  /** An image was accepted without boxes just now, for the first time. */
  explainsEmpty = false;

  private readonly told: Set<Topic>;

  /** answered: answers that the person gave before the page was opened. */
  constructor(
    private answered: number,
    private readonly changed: () => void,
  ) {
    this.told = remembered();
    this.explainsAnswers = !this.told.has("answers") && answered < SHOWN_FOR_ANSWERS;
  }

  afterAnswer(decision: Decision, boxes: number): void {
    this.answered += 1;
    if (this.explainsAnswers && this.answered >= SHOWN_FOR_ANSWERS) this.closeAnswers();
    this.explainsEmpty = decision === "accept" && boxes === 0 && !this.told.has("empty");
    this.changed();
  }

  closeAnswers(): void {
    this.explainsAnswers = false;
    this.remember("answers");
    this.changed();
  }

  /** The explanation is on the screen: it needs an image there. */
  noteEmptySeen(): void {
    this.remember("empty");
  }

  closeEmpty(): void {
    this.explainsEmpty = false;
    this.changed();
  }

  private remember(topic: Topic): void {
    this.told.add(topic);
    try {
      localStorage.setItem(KEY, JSON.stringify([...this.told]));
    } catch {
      // Without storage it is told again by the next page.
    }
  }
}

function remembered(): Set<Topic> {
  try {
    const topics: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return new Set(Array.isArray(topics) ? (topics as Topic[]) : []);
  } catch {
    return new Set();
  }
}
