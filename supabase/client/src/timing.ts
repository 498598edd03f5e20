/** The clock's other half: calls that are put off. */

export interface Timers {
  setTimeout(run: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
}

/** The host's own; called as plain functions, for a browser's refuse another `this`. */
export const HOST_TIMERS: Timers = {
  setTimeout: (run, ms) => setTimeout(run, ms),
  clearTimeout: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
};

/** At most one call that is put off. */
export class Alarm {
  #timer: unknown = null;

  constructor(private readonly timers: Timers) {}

  /** Whether a call is due. */
  get set(): boolean {
    return this.#timer !== null;
  }

  /** Calls after `ms`, instead of what was due before. */
  after(ms: number, run: () => void): void {
    this.clear();
    this.#timer = this.timers.setTimeout(() => {
      this.#timer = null;
      run();
    }, ms);
  }

  clear(): void {
    if (this.#timer !== null) this.timers.clearTimeout(this.#timer);
    this.#timer = null;
  }
}
