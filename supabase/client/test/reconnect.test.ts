import assert from "node:assert/strict";
import { test } from "node:test";

import { AccessRefused } from "../src/access.js";
import { EPOCH, SNAPSHOT, World, position, settled } from "./fakes.js";

const REFUSED_FOR_GOOD = [4403, 4404, 4409];

test("a cut is resumed from the last message, by the newest ticket and no issuer", async () => {
  const world = await new World().live();
  world.socket.next("account_update", { account: { equity: 5 } });
  world.socket.tell("heartbeat", { resume_ticket: "newest" });
  world.socket.end(1006);
  assert.equal(world.state.phase, "reconnecting");
  assert.deepEqual([world.state.stale, world.state.account?.equity], [true, 5]);
  await world.clock.pass(500);
  const { query, url } = world.socket;
  assert.equal(world.sockets.length, 2);
  assert.equal(world.assigned, 1);
  assert.deepEqual([query.get("ticket"), query.get("since")], ["newest", `${EPOCH}:1`]);
  assert.ok(url.startsWith("wss://stream.example/ws/account/demo-1?"));

  world.socket.open();
  world.socket.seq = 3; // about to be reached
  world.socket.greet({ resumed: true });
  assert.deepEqual([world.state.phase, world.state.stale], ["live", false]);
  world.socket.tell("account_update", { account: { equity: 6 } }, { seq: 2 });
  world.socket.tell("account_update", { account: { balance: 7 } }, { seq: 3 });
  assert.deepEqual([world.state.seq, world.state.account?.equity], [3, 6]);
  assert.equal(world.state.account?.balance, 7);
  assert.deepEqual(world.socket.sent, []);
});

test("without a resume the old figures are shown as stale until the snapshot", async () => {
  const world = await new World().live();
  world.socket.end(1006);
  await world.clock.pass(500);
  world.socket.open();
  world.socket.epoch = EPOCH + 5;
  world.socket.greet({ resumed: false });
  assert.deepEqual([world.state.phase, world.state.stale], ["reconnecting", true]);
  assert.deepEqual([world.state.epoch, world.state.positions.length], [EPOCH, 2]);
  world.socket.tell("snapshot", { ...SNAPSHOT, positions: [position(7)] });
  assert.deepEqual([world.state.phase, world.state.stale], ["live", false]);
  assert.deepEqual([world.state.epoch, world.state.positions.length], [EPOCH + 5, 1]);
});

test("cut before the snapshot it still resumes from what it shows", async () => {
  const world = await new World().live();
  world.socket.end(1006);
  await world.clock.pass(500);
  world.socket.open();
  world.socket.epoch = EPOCH + 5;
  world.socket.greet();
  world.socket.end(1006);
  await world.clock.pass(1_000);
  assert.equal(world.socket.query.get("since"), `${EPOCH}:0`);
});

test("a gap that was not mended is no obstacle to a resume", async () => {
  const world = await new World().live();
  world.socket.next("account_update", { account: { equity: 5 } });
  world.socket.tell("account_update", { account: { equity: 9 } }, { seq: 3 });
  world.socket.end(1006);
  await world.clock.pass(500);
  assert.equal(world.socket.query.get("since"), `${EPOCH}:1`);
  world.socket.open();
  world.socket.tell("connected", { resumed: true }, { seq: 3 });
  world.socket.tell("account_update", { account: { equity: 8 } }, { seq: 2 });
  world.socket.tell("account_update", { account: { equity: 9 } }, { seq: 3 });
  assert.deepEqual([world.state.seq, world.state.account?.equity], [3, 9]);
  assert.deepEqual(world.socket.sent, []);
});

for (const [what, place] of [
  ["another epoch", { epoch: EPOCH + 1, seq: 9 }],
  ["an earlier place", { seq: 0 }],
] as const) {
  test(`a resume at ${what} is not believed`, async () => {
    const world = await new World().live();
    world.socket.next("account_update", { account: { equity: 5 } });
    world.socket.end(1006);
    await world.clock.pass(500);
    world.socket.open();
    world.socket.tell("connected", { resumed: true }, place);
    assert.equal(world.state.stale, true);
    assert.deepEqual(world.socket.sent, ['{"type":"refresh"}']);
  });
}

test("a resume ticket is used once, and not when it is old", async () => {
  const world = await new World().live();
  world.socket.end(1006);
  await world.clock.pass(500);
  assert.match(world.socket.query.get("ticket") ?? "", /^resume/);
  world.socket.fail();
  await world.clock.pass(1_000);
  assert.equal(world.socket.query.get("ticket"), "ticket-2");
  assert.equal(world.socket.query.get("since"), `${EPOCH}:0`);
  world.socket.serve();
  world.client.stop();
  world.clock.ms += 110_000;
  world.client.start();
  await settled();
  assert.equal(world.socket.query.get("ticket"), "ticket-3");
});

for (const code of [1012, 1013, 4429]) {
  test(`a resume ticket that met ${code} before the greeting is still good`, async () => {
    const world = await new World().live();
    world.socket.end(1006);
    await world.clock.pass(500);
    const ticket = world.socket.query.get("ticket");
    world.socket.open();
    world.socket.end(code);
    await world.clock.pass(1_000);
    assert.equal(world.sockets.length, 3);
    assert.equal(world.socket.query.get("ticket"), ticket);
    assert.equal(world.assigned, 1);
  });
}

test("waits double from half a second to fifteen, and jitter takes any part of them", async () => {
  const world = await new World().started();
  world.chance = 1;
  const waits: number[] = [];
  for (let made = 1; made <= 7; made += 1) {
    world.socket.fail();
    const before = world.clock.ms;
    while (world.sockets.length === made) await world.clock.pass(250);
    waits.push(world.clock.ms - before);
  }
  assert.deepEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
  world.chance = 0;
  world.socket.fail();
  await world.clock.pass(0);
  assert.equal(world.sockets.length, 9);
});

test("waits begin anew after a connection that held, and only then", async () => {
  const world = await new World().started();
  world.chance = 1;
  world.socket.fail();
  await world.clock.pass(500);
  world.socket.serve();
  await world.clock.pass(4_999);
  world.socket.end(1006);
  await world.clock.pass(999);
  assert.equal(world.sockets.length, 2);
  await world.clock.pass(1);
  world.socket.serve();
  await world.clock.pass(5_000);
  world.socket.end(1006);
  await world.clock.pass(500);
  assert.equal(world.sockets.length, 4);
});

test("a restart's advice is taken", async () => {
  const world = await new World().live();
  world.socket.end(1012, "restart: reconnect after 2750 ms");
  await world.clock.pass(2_749);
  assert.equal(world.sockets.length, 1);
  await world.clock.pass(1);
  assert.equal(world.sockets.length, 2);
});

test("4401 asks for fresh credentials at once, though not again and again", async () => {
  const world = await new World().live();
  world.socket.end(4401);
  await world.clock.pass(0);
  assert.equal(world.socket.query.get("ticket"), "ticket-2");
  world.socket.open();
  world.socket.end(4401);
  await world.clock.pass(0);
  assert.equal(world.sockets.length, 2);
  await world.clock.pass(250);
  assert.equal(world.socket.query.get("ticket"), "ticket-3");
  world.socket.serve();
  await world.clock.pass(10_000);
  world.socket.end(4401);
  await world.clock.pass(0);
  assert.equal(world.socket.query.get("ticket"), "ticket-4");
});

for (const code of REFUSED_FOR_GOOD) {
  test(`${code} ends it`, async () => {
    const world = await new World().live();
    world.socket.end(code);
    await world.clock.pass(600_000);
    assert.equal(world.state.phase, "ended");
    assert.equal(world.state.error?.code, `WS_${code}`);
    assert.equal(world.sockets.length, 1);
    assert.equal(world.clock.due.size, 0);
  });
}

for (const code of [1013, 4429]) {
  test(`${code} waits at least as long as an error message has asked for`, async () => {
    const world = await new World().live();
    const data = { code: "SERVICE_OVERLOADED", message: "full", retry_after_s: 7 };
    world.socket.tell("error", data);
    assert.deepEqual(world.state.error, { code: "SERVICE_OVERLOADED", message: "full" });
    world.socket.end(code);
    await world.clock.pass(6_999);
    assert.equal(world.sockets.length, 1);
    await world.clock.pass(1);
    assert.equal(world.sockets.length, 2);
    world.socket.open();
    world.socket.end(code);
    await world.clock.pass(1_000);
    assert.equal(world.sockets.length, 3);
  });
}

test("two heartbeats and five seconds of silence end in a new connection", async () => {
  const world = await new World().started();
  world.socket.open();
  world.socket.greet({ heartbeat_s: 10 });
  world.socket.tell("snapshot", SNAPSHOT);
  await world.clock.pass(24_999);
  world.socket.say('{"type":"pong"}');
  await world.clock.pass(24_999);
  assert.equal(world.state.phase, "live");
  await world.clock.pass(1);
  assert.equal(world.state.error?.code, "STREAM_SILENT");
  assert.equal(world.sockets[0]?.closed, 1000);
  await world.clock.pass(250);
  assert.equal(world.sockets.length, 2);
});

test("a socket that does not open is given up", async () => {
  const world = await new World().started();
  await world.clock.pass(15_000);
  assert.equal(world.state.phase, "reconnecting");
  assert.equal(world.sockets[0]?.closed, 1000);
});

test("an issuer that refuses is asked again, when it says so, or never", async () => {
  const world = new World();
  world.refusal = new AccessRefused("full", { code: "SERVICE_OVERLOADED", retryAfterS: 5 });
  await world.started();
  assert.equal(world.state.error?.message, "full");
  await world.clock.pass(4_999);
  assert.equal(world.assigned, 1);
  const fault = new Error("the network is down");
  world.refusal = fault;
  await world.clock.pass(1);
  assert.equal(world.assigned, 2);
  assert.deepEqual([world.state.error?.code, world.state.error?.cause], ["NO_ACCESS", fault]);
  world.refusal = new AccessRefused("no such account", { final: true });
  await world.clock.pass(500);
  assert.equal(world.assigned, 3);
  assert.equal(world.state.phase, "ended");
  assert.equal(world.clock.due.size, 0);
});

test("an issuer that never answers is given up, and its late answer ignored", async () => {
  let answer: (assigned: { websocket_url: string }) => void = () => undefined;
  let asked = 0;
  const world = new World({
    assign: () =>
      new Promise((done) => {
        answer = done;
        asked += 1;
      }),
  });
  await world.started();
  const late = answer;
  await world.clock.pass(30_000);
  assert.equal(world.state.error?.code, "NO_ACCESS");
  late({ websocket_url: "wss://stream.example/ws/account/demo-1?ticket=late" });
  await world.clock.pass(250);
  assert.deepEqual([asked, world.sockets.length], [2, 0]);
});
