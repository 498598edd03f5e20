/** Follows one account's stream for as long as somebody wants it; reconnects by itself. */

import { AccessRefused, Credentials, type Access, type Opening } from "./access.js";
import { adviceMs, Backoff, courseOf, leavesTicket, type Problem } from "./closing.js";
import { Connection, type Ending, type SocketConstructor } from "./connection.js";
import { Emitter, tell, type StreamEvents } from "./events.js";
import { apply, DEGRADED, EMPTY, type Line } from "./line.js";
import type { ErrorData, ServerMessage } from "./messages.js";
import { nextState, type Phase, type StreamState } from "./state.js";
import { Alarm, HOST_TIMERS, type Timers } from "./timing.js";

export type StreamOptions = Access & {
  /** Default: the host's. */
  readonly WebSocket?: SocketConstructor;
  /** Numbers from 0 up to 1; default Math.random. */
  readonly random?: () => number;
  /** Milliseconds; default Date.now, which goes on while a machine sleeps. */
  readonly now?: () => number;
  readonly timers?: Timers;
};

/** An `assign` that has not answered by then is given up. */
const ACCESS_MS = 30_000;
/** A connection that held this long was a good one: after it, waits begin anew. */
const STEADY_MS = 5_000;
/** Fresh credentials refused within this of the last ones are no reason to ask at once again. */
const RENEW_MS = 10_000;
/** Nobody is told to stay away longer; and a host's timers overflow in the end. */
const LONGEST_ASKED_MS = 300_000;
/** A refresh that was not answered is asked for again, at most this often. */
const REFRESH_MS = 10_000;

const NO_ACCESS: Problem = { code: "NO_ACCESS", message: "The stream's address cannot be had." };
const UNREACHABLE: Problem = { code: "UNREACHABLE", message: "The stream cannot be reached." };
const WRONG_ACCOUNT: Problem = {
  code: "WRONG_ACCOUNT",
  message: "The stream told of another account; that was not shown.",
};

/** `subscribe` and `getSnapshot` are bound, as React's useSyncExternalStore wants them. */
export class StreamClient {
  readonly #options: StreamOptions;
  readonly #now: () => number;
  readonly #credentials: Credentials;
  readonly #backoff: Backoff;
  readonly #timers: Timers;
  readonly #asking: Alarm;
  readonly #pause: Alarm;
  readonly #events = new Emitter<StreamEvents>();
  readonly #changes = new Emitter<{ changed: undefined }>();
  #WebSocket: SocketConstructor | undefined;
  #line: Line = EMPTY;
  #accountId = "";
  #attempt = 0;
  #running = false;
  #connection: Connection | null = null;
  #greetedAt: number | null = null;
  #failed = false;
  #error: Problem | null = null;
  #retryAfterMs = 0;
  #renewedAt = -Infinity;
  #refreshedAt = -Infinity;
  #state: StreamState;

  constructor(options: StreamOptions) {
    this.#options = options;
    this.#timers = options.timers ?? HOST_TIMERS;
    this.#now = options.now ?? Date.now;
    this.#credentials = new Credentials(options, this.#now);
    this.#backoff = new Backoff(options.random ?? Math.random);
    this.#asking = new Alarm(this.#timers);
    this.#pause = new Alarm(this.#timers);
    this.#state = nextState(null, EMPTY, { phase: "connecting", connected: false, error: null });
  }

  /** Calls back after every change of the state; the function returned ends it. */
  readonly subscribe = (listener: () => void): (() => void) =>
    this.#changes.on("changed", listener);

  /** The present state; the same object until something changes. */
  readonly getSnapshot = (): StreamState => this.#state;

  /** Listens to an event; the function returned ends it. */
  on<K extends keyof StreamEvents>(
    event: K,
    listener: (told: StreamEvents[K]) => void,
  ): () => void {
    return this.#events.on(event, listener);
  }

  /**
   * Begins, or goes on after `stop` from where it stood.
   *
   * @throws TypeError The host has no WebSocket, and none was given.
   */
  start(): void {
    if (this.#running) return;
    this.#WebSocket ??= this.#options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) throw new TypeError("this host has no WebSocket: give one");
    this.#running = true;
    this.#failed = false;
    this.#error = null;
    this.#backoff.reset();
    this.#connect();
    this.#publish();
  }

  /** Ends at once, and leaves no socket and no timer; `start` may follow. */
  stop(): void {
    if (this.#running) this.#finish(null);
  }

  /** Does not wait any longer, or asks a silent server for a word: the network has come back. */
  nudge(): void {
    if (!this.#running) return;
    if (this.#greetedAt !== null) this.#connection?.probe();
    else if (this.#pause.set) this.#connect();
  }

  #connect(): void {
    this.#pause.clear();
    const attempt = this.#attempt;
    const present = (): boolean => attempt === this.#attempt;
    this.#asking.after(ACCESS_MS, () => this.#refused(NO_ACCESS));
    this.#credentials.next(this.#line.applied).then(
      (opening) => present() && this.#open(opening),
      (error: unknown) => present() && this.#denied(error),
    );
  }

  #open(opening: Opening): void {
    this.#asking.clear();
    if (opening.accountId !== this.#accountId) this.#line = EMPTY;
    this.#accountId = opening.accountId;
    const listener = {
      heard: (message: ServerMessage) => this.#heard(message),
      over: (ending: Ending) => this.#over(ending),
    };
    try {
      this.#connection = new Connection(opening, this.#WebSocket!, this.#timers, listener);
    } catch {
      // The host's error quotes the address, and with it the ticket.
      this.#refused(UNREACHABLE);
    }
  }

  #heard(message: ServerMessage): void {
    if (message.account_id !== this.#accountId) {
      this.#credentials.drop();
      this.#connection?.fail(WRONG_ACCOUNT);
      return;
    }
    if (message.type === "connected") {
      this.#greetedAt = this.#now();
      this.#error = null;
    }
    if (message.type === "connected" || message.type === "heartbeat") {
      this.#credentials.keep(message.data.resume_ticket);
    }
    if (message.type === "error") this.#complained(message.data);
    const before = this.#line;
    this.#line = apply(before, message);
    if (message.type === "status" && message.data.state === "connected") this.#error = null;
    this.#mend(message);
    this.#publish();
    // Who was told of the new state may have stopped us.
    if (this.#running) tell(this.#events, message, this.#line !== before && !this.#line.broken);
  }

  #complained(said: ErrorData): void {
    this.#error = { code: said.code, message: said.message };
    this.#retryAfterMs = (said.retry_after_s ?? 0) * 1000;
  }

  /** Asks for a snapshot where messages are missing: once, unless nobody answers. */
  #mend(message: ServerMessage): void {
    if (!this.#line.broken) {
      this.#refreshedAt = -Infinity;
    } else if (message.type !== "error" && this.#now() - this.#refreshedAt >= REFRESH_MS) {
      this.#refreshedAt = this.#now();
      this.#connection?.refresh();
    }
  }

  #over({ code, reason, problem }: Ending): void {
    const steady = this.#greetedAt !== null && this.#now() - this.#greetedAt >= STEADY_MS;
    if (this.#greetedAt === null && leavesTicket(code)) this.#credentials.putBack();
    if (steady) this.#backoff.reset();
    const course = courseOf(code);
    if (course === "end") this.#finish(problem);
    else if (course === "renew") this.#renew(problem);
    else {
      const asked = course === "later" ? this.#retryAfterMs : 0;
      this.#refused(problem, Math.max(adviceMs(reason), asked));
    }
  }

  #renew(problem: Problem): void {
    this.#credentials.drop();
    const atOnce = this.#now() - this.#renewedAt >= RENEW_MS;
    if (atOnce) this.#renewedAt = this.#now();
    this.#again(problem, atOnce ? 0 : this.#backoff.next());
  }

  #denied(error: unknown): void {
    if (!(error instanceof AccessRefused)) this.#refused({ ...NO_ACCESS, cause: error });
    else if (error.final) this.#finish(error.problem);
    else this.#refused(error.problem, error.retryAfterS * 1000);
  }

  #refused(problem: Problem, leastMs = 0): void {
    this.#again(problem, Math.max(this.#backoff.next(), Math.min(leastMs, LONGEST_ASKED_MS)));
  }

  #again(problem: Problem, waitMs: number): void {
    this.#forget();
    this.#failed = true;
    this.#error = problem;
    this.#pause.after(waitMs, () => this.#connect());
    this.#publish();
    this.#events.emit("problem", problem);
  }

  #finish(problem: Problem | null): void {
    this.#running = false;
    this.#connection?.close();
    this.#forget();
    this.#error = problem;
    if (problem) this.#credentials.drop();
    this.#publish();
    if (problem) this.#events.emit("problem", problem);
  }

  /** Nothing of the present attempt counts any more. */
  #forget(): void {
    this.#attempt += 1;
    this.#connection = null;
    this.#greetedAt = null;
    this.#retryAfterMs = 0;
    this.#refreshedAt = -Infinity;
    this.#asking.clear();
    this.#pause.clear();
  }

  #phase(): Phase {
    if (!this.#running) return "ended";
    if (this.#greetedAt !== null) {
      if (this.#line.status?.state === DEGRADED) return "degraded";
      if (this.#line.based) return "live";
    }
    return this.#failed ? "reconnecting" : "connecting";
  }

  #publish(): void {
    const before = this.#state;
    const connected = this.#greetedAt !== null;
    this.#state = nextState(before, this.#line, {
      phase: this.#phase(),
      connected,
      error: this.#error,
    });
    if (this.#state !== before) this.#changes.emit("changed", undefined);
  }
}
