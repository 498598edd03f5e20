import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";

import type { ByToken } from "../src/access.js";
import { StreamClient } from "../src/client.js";
import { followPage } from "../src/page.js";
import { EPOCH, FakeSocket, World, settled } from "./fakes.js";

function pageOf(world: World) {
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const window = new EventTarget();
  const leave = followPage(world.client, { document, window, timers: world.clock });
  const turn = (visibilityState: string): void => {
    document.visibilityState = visibilityState;
    document.dispatchEvent(new Event("visibilitychange"));
  };
  return { window, leave, turn };
}

test("stop leaves nothing running, whenever it comes", async () => {
  const moments: ((world: World) => Promise<unknown>)[] = [
    async (world) => world.client.start(),
    (world) => world.started(),
    (world) => world.live(),
    async (world) => (await world.live()).socket.end(1006),
    async (world) => (await world.live()).socket.tell("heartbeat", {}, { seq: 5 }),
  ];
  for (const reach of moments) {
    const world = new World();
    await reach(world);
    world.client.stop();
    const before = world.sockets.length;
    let called = 0;
    world.client.subscribe(() => (called += 1));
    await world.clock.pass(600_000);
    assert.equal(world.state.phase, "ended");
    assert.equal(world.state.error, null);
    assert.equal(world.clock.due.size, 0);
    assert.equal(world.sockets.length, before);
    assert.equal(called, 0);
    for (const socket of world.sockets) assert.equal(socket.onmessage, null);
  }
});

test("a listener may stop it in the middle of a message", async () => {
  const world = await new World().live();
  world.client.subscribe(() => world.client.stop());
  world.socket.next("account_update", { account: { equity: 5 } });
  assert.equal(world.state.phase, "ended");
  assert.equal(world.clock.due.size, 0);
});

test("start goes on from where stop left it", async () => {
  const world = await new World().live();
  world.client.stop();
  world.client.stop();
  world.client.start();
  world.client.start();
  await settled();
  assert.equal(world.sockets.length, 2);
  assert.equal(world.socket.query.get("since"), `${EPOCH}:0`);
  assert.equal(world.assigned, 1);
});

test("a token is the first message, and resume tickets follow", async () => {
  const access: ByToken = {
    address: () => "wss://stream.example/ws/account/demo-1",
    getToken: async () => "the.users.jwt",
  };
  const world = new World(access);
  await world.started();
  assert.equal(world.socket.url, "wss://stream.example/ws/account/demo-1");
  world.socket.serve();
  assert.deepEqual(world.socket.sent, ['{"type":"auth","token":"the.users.jwt"}']);
  world.socket.end(1006);
  await world.clock.pass(500);
  assert.match(world.socket.query.get("ticket") ?? "", /^resume/);
  world.socket.open();
  assert.deepEqual(world.socket.sent, []);
  world.socket.end(4401);
  await world.clock.pass(0);
  world.socket.open();
  assert.deepEqual(world.socket.sent, ['{"type":"auth","token":"the.users.jwt"}']);
});

test("no ticket is in anything that could be logged", async () => {
  const world = new World({
    WebSocket: class extends FakeSocket {
      constructor(url: string) {
        super(url);
        throw new SyntaxError(`'${url}' is no address`);
      }
    },
  });
  world.client.on("message", (message) => world.events.push(["message", message]));
  await world.started();
  assert.equal(world.state.error?.code, "UNREACHABLE");
  const other = await new World().live();
  other.client.on("message", (message) => other.events.push(["message", message]));
  other.socket.tell("heartbeat", { resume_ticket: "resume-secret" });
  other.socket.say('{"ticket-1');
  for (const { events, state, client } of [world, other]) {
    assert.ok(events.length > 0);
    const shown = inspect([events, state, client], { depth: 9, showHidden: true });
    assert.doesNotMatch(shown, /ticket-1|resume-/);
  }
});

test("an address that is none is told without its text", async () => {
  const world = new World({ assign: async () => ({ websocket_url: "ticket-1 nonsense" }) });
  await world.started();
  assert.equal(world.state.error?.code, "BAD_ADDRESS");
  assert.doesNotMatch(inspect(world.events, { depth: 9, showHidden: true }), /ticket-1/);
});

test("another account's address begins with nothing", async () => {
  let account = "demo-1";
  const world = new World({
    assign: async () => ({ websocket_url: `wss://stream.example/ws/account/${account}?ticket=t` }),
  });
  await world.live();
  account = "demo-2";
  world.socket.end(4401);
  await world.clock.pass(0);
  world.socket.open();
  world.socket.tell("connected", { resumed: false }, { account_id: "demo-2" });
  assert.deepEqual([world.state.account, world.state.positions], [null, []]);
});

test("a host without WebSockets says so at once", () => {
  const given = globalThis.WebSocket;
  Reflect.deleteProperty(globalThis, "WebSocket");
  try {
    const client = new StreamClient({ assign: async () => ({ websocket_url: "" }) });
    assert.throws(() => client.start(), TypeError);
  } finally {
    if (given) globalThis.WebSocket = given;
  }
});

test("a nudge ends a wait, and asks a silent server for a word", async () => {
  const world = await new World().live();
  world.client.nudge();
  assert.deepEqual(world.socket.sent, ['{"type":"ping"}']);
  world.socket.say('{"type":"pong"}');
  await world.clock.pass(5_000);
  assert.equal(world.state.phase, "live");
  world.client.nudge();
  await world.clock.pass(5_000);
  assert.equal(world.state.error?.code, "STREAM_SILENT");
  world.client.nudge();
  world.client.nudge();
  await settled();
  assert.equal(world.sockets.length, 2);
});

test("a page that stays hidden has no stream, and has it back when it is seen", async () => {
  const world = await new World().live();
  const page = pageOf(world);
  page.turn("hidden");
  await world.clock.pass(10_000);
  page.turn("visible");
  await world.clock.pass(0);
  assert.equal(world.state.phase, "live");
  world.socket.say('{"type":"pong"}');
  page.turn("hidden");
  await world.clock.pass(20_000);
  world.socket.tell("heartbeat", { resume_ticket: "resume-2" });
  await world.clock.pass(20_000);
  world.socket.tell("heartbeat", { resume_ticket: "resume-3" });
  await world.clock.pass(20_000);
  assert.equal(world.state.phase, "ended");
  page.turn("visible");
  await settled();
  assert.equal(world.socket.query.get("ticket"), "resume-3");
  page.leave();
  world.client.stop();
  page.turn("hidden");
  page.turn("visible");
  assert.equal(world.state.phase, "ended");
  assert.equal(world.clock.due.size, 0);
});

test("what the page did not stop it does not start", async () => {
  const world = await new World().live();
  const page = pageOf(world);
  world.socket.end(4409);
  page.turn("hidden");
  await world.clock.pass(60_000);
  page.turn("visible");
  assert.equal(world.state.phase, "ended");
});

test("a network that is back ends a wait", async () => {
  const world = await new World().live();
  const page = pageOf(world);
  world.socket.end(1006);
  page.window.dispatchEvent(new Event("online"));
  await settled();
  assert.equal(world.sockets.length, 2);
});
