/**
 * A program around the client, for tests that have real replicas. It takes its orders as the first
 * line of its input, tells what happens as lines of JSON, and ends with its input.
 */

import { createInterface } from "node:readline";

import { AccessRefused, type Assigned } from "../src/access.js";
import { StreamClient } from "../src/client.js";

interface Orders {
  /** `POST /api/ws/assign`, its headers and body. */
  readonly assign: string;
  readonly headers: Record<string, string>;
  readonly body: object;
  /** Where the replicas are, `ws://host:port`; each new ticket goes to the next one. */
  readonly replicas: readonly string[];
}

const tell = (what: string, told: unknown): void => {
  process.stdout.write(`${JSON.stringify({ what, told })}\n`);
};

let asked = 0;

async function assign(orders: Orders): Promise<Assigned> {
  const answer = await fetch(orders.assign, {
    method: "POST",
    headers: { ...orders.headers, "Content-Type": "application/json" },
    body: JSON.stringify(orders.body),
  });
  const said = (await answer.json()) as {
    websocket_url: string;
    error: string;
    code: string;
    retry_after_s: number | null;
  };
  if (!answer.ok) {
    const { code, retry_after_s } = said;
    throw new AccessRefused(said.error, { code, retryAfterS: retry_after_s ?? 0 });
  }
  const { pathname, search } = new URL(said.websocket_url);
  const replica = orders.replicas[asked++ % orders.replicas.length];
  tell("assigned", replica);
  return { websocket_url: `${replica}${pathname}${search}` };
}

const lines = createInterface({ input: process.stdin });
lines.once("line", (first) => {
  const orders = JSON.parse(first) as Orders;
  const client = new StreamClient({ assign: () => assign(orders) });
  client.subscribe(() => tell("state", client.getSnapshot()));
  client.on("message", (message) => tell("message", message));
  client.on("problem", ({ code, message }) => tell("problem", { code, message }));
  client.on("opened", ({ ticket }) => tell("opened", ticket));
  client.on("closed", ({ ticket }) => tell("closed", ticket));
  lines.once("close", () => client.stop());
  client.start();
});
