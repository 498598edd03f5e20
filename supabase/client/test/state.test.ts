import assert from "node:assert/strict";
import { test } from "node:test";

import { EPOCH, INFO, order, position, SNAPSHOT, World } from "./fakes.js";

test("a snapshot is the state, and changes go on from it", async () => {
  const world = await new World().live();
  assert.equal(world.state.phase, "live");
  assert.deepEqual(world.state.account, INFO);
  assert.equal(world.state.stale, false);

  world.socket.next("account_update", { account: { equity: 990 } });
  world.socket.next("position_update", { positions: [position(1, { profit: -10 })] });
  world.socket.next("order_update", { orders: [] });
  world.socket.next("status", { state: "broker_disconnected", reason: "gone" });

  const { account, positions, orders, status, epoch, seq, ts, phase } = world.state;
  assert.deepEqual(account, { ...INFO, equity: 990 });
  assert.deepEqual(positions, [position(1, { profit: -10 })]);
  assert.deepEqual(orders, []);
  assert.deepEqual(status, { state: "broker_disconnected", reason: "gone" });
  assert.deepEqual([epoch, seq, ts, phase], [EPOCH, 4, "2026-11-20T11:53:04.000Z", "live"]);
});

test("what did not change keeps its identity, and what is shown is frozen", async () => {
  const world = await new World().live();
  const before = world.state;
  world.socket.next("position_update", { positions: [position(1), position(2, { profit: 5 })] });
  assert.equal(world.state.account, before.account);
  assert.equal(world.state.orders, before.orders);
  assert.equal(world.state.positions[0], before.positions[0]);
  assert.notEqual(world.state.positions[1], before.positions[1]);
  const after = world.state;
  world.socket.tell("snapshot", { ...SNAPSHOT, positions: after.positions });
  assert.equal(world.state.positions, after.positions);
  assert.equal(world.state.account, after.account);
  for (const part of [after, after.account, after.positions, after.positions[1]]) {
    assert.ok(Object.isFrozen(part));
  }
});

test("a message that tells nothing new is no change", async () => {
  const world = await new World().live();
  let changes = 0;
  const end = world.client.subscribe(() => (changes += 1));
  const before = world.state;
  world.socket.tell("heartbeat", {});
  world.socket.say('{"type":"pong"}');
  assert.equal(changes, 0);
  assert.equal(world.state, before);
  world.socket.next("account_update", { account: { equity: 1 } });
  assert.equal(changes, 1);
  end();
  world.socket.next("account_update", { account: { equity: 2 } });
  assert.equal(changes, 1);
});

test("a message heard twice changes nothing and is told once", async () => {
  const world = await new World().live();
  const data = { positions: [position(1), position(3)], opened: [position(3)] };
  world.socket.next("position_update", data);
  const before = world.state;
  world.socket.tell("position_update", data);
  assert.equal(world.state, before);
  assert.equal(world.events.filter(([event]) => event === "opened").length, 1);
  assert.deepEqual(world.socket.sent, []);
});

test("a gap asks for a snapshot once, and shows nothing new until it comes", async () => {
  const world = await new World().live();
  world.socket.seq += 1; // never came
  world.socket.next("account_update", { account: { equity: 5 } });
  world.socket.next("account_update", { account: { equity: 6 } });
  world.socket.tell("heartbeat", {});
  assert.deepEqual(world.socket.sent, ['{"type":"refresh"}']);
  assert.deepEqual([world.state.account, world.state.seq, world.state.stale], [INFO, 0, true]);
  world.socket.tell("snapshot", { ...SNAPSHOT, account: { ...INFO, equity: 6 } });
  assert.equal(world.state.account?.equity, 6);
  assert.deepEqual([world.state.seq, world.state.stale], [3, false]);
  assert.equal(world.sockets.length, 1);
});

test("a heartbeat that is ahead reveals a gap, one on the spot none", async () => {
  const world = await new World().live();
  world.socket.tell("heartbeat", {});
  assert.deepEqual(world.socket.sent, []);
  world.socket.tell("heartbeat", {}, { seq: 1 });
  assert.deepEqual(world.socket.sent, ['{"type":"refresh"}']);
});

test("a refresh that nobody answers is asked again when there is word, not before", async () => {
  const world = await new World().live();
  world.socket.tell("heartbeat", {}, { seq: 1 });
  await world.clock.pass(9_999);
  world.socket.tell("heartbeat", {}, { seq: 1 });
  assert.equal(world.socket.sent.length, 1);
  await world.clock.pass(1);
  world.socket.tell("heartbeat", {}, { seq: 1 });
  assert.equal(world.socket.sent.length, 2);
});

test("a snapshot of any place replaces everything: conflated, or of a new epoch", async () => {
  const world = await new World().live();
  world.socket.tell("snapshot", { ...SNAPSHOT, orders: [], conflated: true }, { seq: 40 });
  assert.deepEqual([world.state.seq, world.state.orders], [40, []]);
  world.socket.tell("snapshot", SNAPSHOT, { epoch: EPOCH + 7, seq: 0 });
  assert.deepEqual([world.state.epoch, world.state.seq], [EPOCH + 7, 0]);
  world.socket.tell("status", { state: "x", reason: null }, { epoch: EPOCH + 7, seq: 1 });
  assert.equal(world.state.seq, 1);
  assert.deepEqual(world.socket.sent, []);
  const replaced = world.events.filter(([event]) => event === "replaced");
  assert.deepEqual(replaced.map(([, what]) => what), [
    { conflated: false },
    { conflated: true },
    { conflated: false },
  ]);
});

test("a change of another epoch without its snapshot is a gap", async () => {
  const world = await new World().live();
  world.socket.tell("account_update", { account: { equity: 5 } }, { epoch: EPOCH + 1, seq: 1 });
  assert.deepEqual(world.state.account, INFO);
  assert.deepEqual(world.socket.sent, ['{"type":"refresh"}']);
});

test("a status on the spot is shown and not counted: degraded, and well again", async () => {
  const world = await new World().live();
  world.socket.tell("status", { state: "degraded", reason: "Redis is away" });
  assert.equal(world.state.phase, "degraded");
  assert.deepEqual(world.state.status, { state: "degraded", reason: "Redis is away" });
  assert.equal(world.state.seq, 0);
  world.socket.tell("status", { state: "connected", reason: null });
  assert.equal(world.state.phase, "live");
  world.socket.next("account_update", { account: { equity: 5 } });
  assert.deepEqual([world.state.seq, world.state.account?.equity], [1, 5]);
  assert.deepEqual(world.socket.sent, []);
});

test("a status of another epoch is shown, and its figures are awaited", async () => {
  const world = await new World().live();
  world.socket.epoch = EPOCH + 1;
  world.socket.tell("status", { state: "terminal_unavailable", reason: "no answer" });
  assert.equal(world.state.status?.state, "terminal_unavailable");
  assert.deepEqual([world.state.epoch, world.state.stale], [EPOCH, true]);
  world.socket.next("status", { state: "connecting", reason: null });
  assert.equal(world.state.status?.state, "connecting");
  assert.deepEqual(world.socket.sent, ['{"type":"refresh"}']);
  world.socket.tell("snapshot", SNAPSHOT);
  assert.deepEqual([world.state.epoch, world.state.seq, world.state.stale], [EPOCH + 1, 1, false]);
});

test("degraded is about one connection: a good resume elsewhere ends it", async () => {
  const world = await new World().live();
  world.socket.tell("status", { state: "degraded", reason: null });
  world.socket.end(1012);
  await world.clock.pass(500);
  world.socket.open();
  world.socket.greet({ resumed: true });
  assert.equal(world.state.phase, "live");
  assert.equal(world.state.status, null);
});

test("before the first look a line tells only of itself", async () => {
  const world = await new World().started();
  world.socket.open();
  world.socket.greet({ status: { state: "connected", reason: null } });
  world.socket.next("status", { state: "terminal_unavailable", reason: "no answer" });
  assert.equal(world.state.phase, "connecting");
  assert.equal(world.state.status?.state, "terminal_unavailable");
  world.socket.tell("snapshot", SNAPSHOT);
  assert.equal(world.state.phase, "live");
  world.socket.next("account_update", { account: { equity: 5 } });
  assert.equal(world.state.seq, 2);
  assert.deepEqual(world.socket.sent, []);
});

test("what came, went and changed is told row by row", async () => {
  const world = await new World().live();
  world.socket.next("position_update", {
    positions: [position(2, { sl: 1 }), position(3)],
    opened: [position(3)],
    closed: [position(1)],
    modified: [position(2, { sl: 1 })],
  });
  world.socket.next("order_update", {
    orders: [order(10)],
    placed: [order(10)],
    removed: [order(9)],
    modified: [],
  });
  assert.deepEqual(world.events.slice(1), [
    ["opened", position(3)],
    ["closed", position(1)],
    ["modified", position(2, { sl: 1 })],
    ["placed", order(10)],
    ["removed", order(9)],
  ]);
});

test("types that are not known are ignored", async () => {
  const world = await new World().live();
  world.socket.say('{"type":"weather","account_id":"demo-1","data":{"sun":true}}');
  assert.equal(world.state.phase, "live");
  assert.equal(world.socket.closed, null);
});

for (const [what, text] of [
  ["no JSON", "{nonsense"],
  ["no text", new ArrayBuffer(3)],
  ["no object", "[1]"],
  ["a message without a type", '{"seq":1}'],
  ["a message without a place", '{"type":"heartbeat","account_id":"demo-1","data":{}}'],
  [
    "a snapshot without figures",
    `{"type":"snapshot","account_id":"demo-1","epoch":${EPOCH},"seq":0,"ts":"","data":{}}`,
  ],
] as const) {
  test(`${what} ends in a new connection`, async () => {
    const world = await new World().live();
    world.socket.say(text);
    assert.equal(world.sockets[0]?.closed, 1000);
    assert.equal(world.state.error?.code, "STREAM_NOT_UNDERSTOOD");
    await world.clock.pass(500);
    assert.equal(world.sockets.length, 2);
  });
}

test("a message of another account is never shown", async () => {
  const world = await new World().live();
  const theirs = { ...SNAPSHOT, account: { ...INFO, login: 666 } };
  world.socket.tell("snapshot", theirs, { account_id: "demo-2" });
  assert.equal(world.state.account?.login, INFO.login);
  assert.equal(world.state.error?.code, "WRONG_ACCOUNT");
  assert.equal(world.sockets[0]?.closed, 1000);
  await world.clock.pass(500);
  assert.equal(world.assigned, 2);
});

test("a listener that throws stops neither the others nor the stream", async (context) => {
  const world = new World();
  const thrown: unknown[] = [];
  context.mock.method(globalThis, "queueMicrotask", (run: () => void) => {
    try {
      run();
    } catch (fault) {
      thrown.push(fault);
    }
  });
  const fault = new Error("a fault of the page's");
  world.client.subscribe(() => {
    throw fault;
  });
  let heard = 0;
  world.client.subscribe(() => (heard += 1));
  await world.live();
  assert.equal(world.state.phase, "live");
  assert.ok(heard > 0);
  assert.ok(thrown.length > 0 && thrown.every((one) => one === fault));
});
