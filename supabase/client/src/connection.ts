/** One socket, from its opening to its end, which is told once. */

import type { Opening } from "./access.js";
import { problemOf, type Problem } from "./closing.js";
import { NotUnderstood, parse, type ServerMessage } from "./messages.js";
import { Alarm, type Timers } from "./timing.js";

/** What is needed of a WebSocket. */
export interface SocketLike {
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onerror: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

export type SocketConstructor = new (url: string) => SocketLike;

/** How a connection ended. `code` is the close frame's, or 1006. */
export interface Ending {
  readonly code: number;
  readonly reason: string;
  readonly problem: Problem;
}

export interface ConnectionListener {
  heard(message: ServerMessage): void;
  over(ending: Ending): void;
}

export const OPEN_MS = 15_000;
const DEFAULT_HEARTBEAT_S = 15;
/** The server says something every `heartbeat_s`; two of them missed and a bit is silence. */
const patienceMs = (heartbeatS: number): number =>
  Math.min((2 * heartbeatS + 5) * 1000, LONGEST_PATIENCE_MS);
/** Whatever a server says: a host's timers overflow in the end. */
const LONGEST_PATIENCE_MS = 600_000;
/** A server that is there answers a ping within this. */
const PROBE_MS = 5_000;
const INTERRUPTED = 1006;

const SILENT: Problem = { code: "STREAM_SILENT", message: "The stream has fallen silent." };
const STRANGE: Problem = {
  code: "STREAM_NOT_UNDERSTOOD",
  message: "The stream is not understood.",
};

export class Connection {
  readonly #socket: SocketLike;
  readonly #listener: ConnectionListener;
  readonly #silence: Alarm;
  #patienceMs = patienceMs(DEFAULT_HEARTBEAT_S);
  #over = false;

  /** @throws Error The address is none for a WebSocket; its text may hold the ticket. */
  constructor(
    opening: Opening,
    WebSocket: SocketConstructor,
    timers: Timers,
    listener: ConnectionListener,
  ) {
    this.#listener = listener;
    this.#silence = new Alarm(timers);
    this.#socket = new WebSocket(opening.url);
    this.#socket.onopen = () => this.#opened(opening.first);
    this.#socket.onmessage = (event: { data: unknown }) => this.#received(event.data);
    // Not every host lets a close follow the error of a connection that never was.
    this.#socket.onerror = () => this.fail(problemOf(INTERRUPTED));
    this.#socket.onclose = (event: { code: number; reason: string }) =>
      this.#end({ code: event.code, reason: event.reason, problem: problemOf(event.code) });
    this.#await(OPEN_MS);
  }

  /** Asks for a snapshot. */
  refresh(): void {
    this.#socket.send('{"type":"refresh"}');
  }

  /** Finds out soon whether the server is still there. Only once it has greeted. */
  probe(): void {
    this.#socket.send('{"type":"ping"}');
    this.#await(PROBE_MS);
  }

  /** Ends it for a reason of ours. */
  fail(problem: Problem): void {
    this.#end({ code: INTERRUPTED, reason: "", problem });
  }

  /** Ends it without a word to the listener. */
  close(): void {
    if (this.#over) return;
    this.#over = true;
    this.#silence.clear();
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Some hosts report our own closing as an error, and one that nobody hears as a fault.
    socket.onerror = () => undefined;
    socket.close(1000);
  }

  #opened(first: string | null): void {
    if (first !== null) this.#socket.send(first);
    this.#await(this.#patienceMs);
  }

  #received(text: unknown): void {
    let message: ServerMessage | null;
    try {
      message = parse(text);
    } catch (strange) {
      if (!(strange instanceof NotUnderstood)) throw strange;
      this.fail(STRANGE);
      return;
    }
    if (message?.type === "connected") {
      this.#patienceMs = patienceMs(message.data.heartbeat_s ?? DEFAULT_HEARTBEAT_S);
    }
    this.#await(this.#patienceMs);
    if (message) this.#listener.heard(message);
  }

  #await(ms: number): void {
    this.#silence.after(ms, () => this.fail(SILENT));
  }

  #end(ending: Ending): void {
    if (this.#over) return;
    this.close();
    this.#listener.over(ending);
  }
}
