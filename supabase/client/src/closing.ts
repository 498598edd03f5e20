/** What to do when a connection is closed, and how long to wait before the next. */

/** Something a person should know: a sentence, and the code to look it up by. */
export interface Problem {
  readonly code: string;
  readonly message: string;
  /** What the caller's own code threw, where it did. */
  readonly cause?: unknown;
}

export type Course =
  /** Come back, with the resume ticket if there is one. */
  | "retry"
  /** Come back later: at least as late as an `error` message has asked for. */
  | "later"
  /** Come back at once with fresh credentials. */
  | "renew"
  /** Coming back changes nothing. */
  | "end";

interface Meaning {
  readonly course: Course;
  readonly message: string;
}

const MEANINGS: Readonly<Record<number, Meaning>> = {
  1009: { course: "retry", message: "The stream refused a message as too long." },
  1011: { course: "retry", message: "The stream has met a fault of its own." },
  1012: { course: "retry", message: "The stream moves to another replica." },
  1013: { course: "later", message: "The streams are full or unavailable at the moment." },
  4400: { course: "retry", message: "The stream did not understand this client." },
  4401: { course: "renew", message: "The stream asks for a new ticket." },
  4403: { course: "end", message: "This page may not open streams." },
  4404: { course: "end", message: "The stream knows no such account." },
  4408: { course: "retry", message: "The stream was cut: it was read too slowly." },
  4409: { course: "end", message: "The account was disconnected or deleted." },
  4429: { course: "later", message: "There are too many streams open." },
};

const INTERRUPTED: Meaning = { course: "retry", message: "The stream was interrupted." };

/** Refusals after which, before `connected`, the same ticket opens the door later. */
const PASSING: ReadonlySet<number> = new Set([1012, 1013, 4429]);

/** What a close code asks of a client. */
export const courseOf = (code: number): Course => (MEANINGS[code] ?? INTERRUPTED).course;

/** Whether a ticket that met this before `connected` is still good. */
export const leavesTicket = (code: number): boolean => PASSING.has(code);

/** A close code in words. */
export function problemOf(code: number): Problem {
  return { code: `WS_${code}`, message: (MEANINGS[code] ?? INTERRUPTED).message };
}

/** No server of ours asks for more; a longer wait would only look like a dead page. */
const LONGEST_ADVICE_MS = 60_000;

/** The milliseconds of "reconnect after <ms> ms" in a close reason; 0 without. */
export function adviceMs(reason: string): number {
  const found = /reconnect after (\d{1,9}) ms/.exec(reason);
  return found ? Math.min(Number(found[1]), LONGEST_ADVICE_MS) : 0;
}

export const FIRST_WAIT_MS = 500;
export const LONGEST_WAIT_MS = 15_000;
/** Doubling past this changes nothing: the longest wait has been reached long before. */
const MOST_DOUBLINGS = 10;

/** Waits that double up to a bound, each drawn anywhere below that, so that no two clients meet. */
export class Backoff {
  #failures = 0;

  /** @param random Gives numbers from 0 up to 1. */
  constructor(private readonly random: () => number) {}

  /** Milliseconds to wait after one more failure. */
  next(): number {
    const full = FIRST_WAIT_MS * 2 ** Math.min(this.#failures, MOST_DOUBLINGS);
    this.#failures += 1;
    return this.random() * Math.min(LONGEST_WAIT_MS, full);
  }

  reset(): void {
    this.#failures = 0;
  }
}
