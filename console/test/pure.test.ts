import assert from "node:assert/strict";
import { test } from "node:test";
import { endOf, tidied } from "../src/account";
import { backoff } from "../src/backoff";
import { clock, countdown, counted, gib, millis, span, spoken } from "../src/format";
import { candidates, explain } from "../src/ice";
import { applied, byAttention, filtered, may, nothing, type Change, type Instance, type Pool } from "../src/model";
import { parse, pathTo } from "../src/route";
import { SseParser } from "../src/sse";
import { measures, median, NO_MEASURES, outOfSync, type Entry } from "../src/stats";
import { wav } from "../src/wav";

function instance(over: Partial<Instance> = {}): Instance {
  return {
    name: "one", avatar: "ada", avatar_id: "one", pool: "default", phase: "Running", reason: "", message: "",
    serves: true, port: 8615, url: null, node: "box", pod: null, gpu: null, connections: 0, observed: null,
    max_sessions: 100, idle_deadline: null, idle_action: "Delete", drain_deadline: null, retry_time: null,
    created: null, ready: null, restarts: 0, ended: null, shared_with: null, queue_position: null, engine: "",
    voice: "", model: "", transport: "webrtc", media: null, conditions: [], ...over,
  }; // prettier-ignore
}

test("events come whole out of any pieces", () => {
  const text = 'event: hello\ndata: {"a":1}\n\n: beat\n\ndata: one\r\ndata: two\r\n\r\nevent: empty\n\n';
  const whole = new SseParser().push(text);
  assert.deepEqual(whole, [
    { event: "hello", data: '{"a":1}' },
    { event: "message", data: "one\ntwo" },
  ]);
  for (let size = 1; size < 9; size++) {
    const parser = new SseParser();
    const found = [];
    for (let i = 0; i < text.length; i += size) found.push(...parser.push(text.slice(i, i + size)));
    assert.deepEqual(found, whole, `pieces of ${size}`);
  }
});

test("a change sets and forgets; a snapshot replaces; what did not change stays the same object", () => {
  const change = (over: Partial<Change>): Change => ({ now: "", trouble: "", set: {}, gone: {}, ...over });
  const first = applied(nothing(), change({ set: { instances: { one: instance(), two: instance({ name: "two" }) } } }), true);
  const second = applied(first, change({ set: { instances: { one: instance({ phase: "Failed" }) } }, gone: { instances: ["two"] } }), false);
  assert.deepEqual(Object.keys(second.instances), ["one"]);
  assert.equal(second.instances["one"]?.phase, "Failed");
  assert.equal(first.instances["one"]?.phase, "Running");
  assert.equal(second.gpus, first.gpus);
  assert.deepEqual(applied(second, change({}), true).instances, {});
});

test("who needs attention comes first, then who is used most", () => {
  const items = [
    instance({ name: "a" }),
    instance({ name: "b", connections: 3 }),
    instance({ name: "c", phase: "Stopped" }),
    instance({ name: "d", phase: "Failed" }),
    instance({ name: "e", phase: "Unheard" }),
  ];
  assert.deepEqual(items.sort(byAttention).map((item) => item.name), ["d", "b", "a", "c", "e"]);
});

test("the filter finds words in any of the fields, and the phase", () => {
  const items = [instance(), instance({ name: "two", avatar: "Bob Ross", port: 8616, phase: "Failed" })];
  assert.deepEqual(filtered(items, "ross BOB", "").map((i) => i.name), ["two"]);
  assert.deepEqual(filtered(items, "8615", "").map((i) => i.name), ["one"]);
  assert.deepEqual(filtered(items, "", "Failed").map((i) => i.name), ["two"]);
  assert.deepEqual(filtered(items, "ada", "Failed"), []);
});

test("roles include those below them", () => {
  assert.equal(may("admin", "user"), true);
  assert.equal(may("viewer", "user"), false);
  assert.equal(may(undefined, "viewer"), false);
});

test("times and sizes", () => {
  assert.deepEqual([-5, 95_000, 720_000, 5 * 3_600_000, 3 * 86_400_000].map(span), ["0s", "95s", "12m", "5h", "3d"]);
  assert.deepEqual([0, 61_000, 3_661_000, 99 * 3_600_000].map(countdown), ["now", "1:01", "1:01:01", "4d"]);
  assert.deepEqual([1000, 60_000, 7_200_000].map(spoken), ["1 second", "1 minute", "2 hours"]);
  assert.deepEqual([counted(1, "person", "people"), counted(2, "person", "people")], ["1 person", "2 people"]);
  assert.deepEqual([gib(1536), millis(null), millis(42.4), millis(1900)], ["1.5", "–", "42 ms", "1.9 s"]);
  const noon = new Date(2026, 10, 23, 12, 0, 0).getTime();
  assert.match(clock(noon, noon), /^12:00:00/);
  assert.notEqual(clock(noon, noon + 86_400_000), clock(noon, noon));
});

test("tries come ever later, within bounds, and never all at once", () => {
  for (let failures = 1; failures < 40; failures++) {
    const [least, most] = [backoff(failures, 0), backoff(failures, 1)];
    assert.ok(least >= 0.25 && most <= 20 && least < most);
    assert.ok(most >= backoff(Math.max(1, failures - 1), 1));
  }
});

test("addresses name their view, whatever an instance is called", () => {
  assert.deepEqual(parse(""), { view: "overview" });
  assert.deepEqual(parse("#/gpus/"), { view: "gpus" });
  assert.deepEqual(parse("#/nonsense"), { view: "unknown" });
  assert.deepEqual(parse("#/avatars/%E0%A4%A"), { view: "unknown" });
  for (const name of ["ada-1", "Bob Ross", "a/b", "ü%"]) assert.deepEqual(parse(pathTo(name)), { view: "avatar", name });
});

test("tokens are taken as people paste them, and their end is read", () => {
  const claims = btoa(JSON.stringify({ sub: "ann", exp: 1_900_000_000 })).replace(/=+$/, "");
  assert.equal(tidied(` Authorization: Bearer x.${claims}.y \n`), `x.${claims}.y`);
  assert.equal(tidied('"abc"'), "abc");
  assert.equal(endOf(`x.${claims}.y`), 1_900_000_000);
  assert.equal(endOf("opaque"), null);
  assert.equal(endOf("a.!!!.c"), null);
});

const POOL = { name: "default", network: "Pod" } as Pool;

test("an SDP's addresses are listed once", () => {
  const sdp = [
    "a=candidate:1 1 udp 2130706431 192.0.2.7 50001 typ host",
    "a=candidate:1 2 udp 2130706430 192.0.2.7 50001 typ host",
    "a=candidate:2 1 UDP 100 198.51.100.4 40000 typ relay raddr 0.0.0.0 rport 0",
    "a=end-of-candidates",
  ].join("\r\n");
  assert.deepEqual(candidates(sdp), ["192.0.2.7:50001 udp host", "198.51.100.4:40000 udp relay"]);
});

test("what is said of a failure fits the mode, and always says what to do", () => {
  for (const mode of ["HostNetwork", "HostPort", "Pod", "Relay", "Other", ""]) {
    const found = explain(instance(), { ...POOL, network: mode }, ["192.0.2.7:50001 udp host"]);
    assert.ok(found.remedies.length >= 2, mode);
    assert.match(found.cause, /192\.0\.2\.7:50001/);
  }
  assert.match(explain(instance(), POOL, []).cause, /mode Pod.*no address at all/);
  const media = { mode: "HostPort", candidates: [], ports: "50000–50019", reachable: "False", message: "no way back." };
  const told = explain(instance({ media }), POOL, []);
  assert.match(told.cause, /50000–50019.*no way back/);
  assert.match(told.remedies[0] ?? "", /node box, ports 50000–50019/);
  assert.equal(explain(instance(), undefined, []).remedies.length, 2);
});

test("what a viewer would notice is read from the statistics", () => {
  const entries: Entry[] = [
    { type: "transport", id: "T", selectedCandidatePairId: "P" },
    { type: "candidate-pair", id: "P", localCandidateId: "L", remoteCandidateId: "R", currentRoundTripTime: 0.042 },
    { type: "local-candidate", id: "L", candidateType: "host", protocol: "udp" },
    { type: "remote-candidate", id: "R", candidateType: "relay", address: "192.0.2.7", port: 50001 },
    {
      type: "inbound-rtp", id: "V", kind: "video", framesPerSecond: 25, frameWidth: 352, frameHeight: 352,
      packetsReceived: 90, packetsLost: 10, bytesReceived: 20_000, estimatedPlayoutTimestamp: 1000,
      jitterBufferDelay: 2, jitterBufferEmittedCount: 50,
    }, // prettier-ignore
    {
      type: "inbound-rtp", id: "A", kind: "audio", packetsReceived: 100, packetsLost: -1, bytesReceived: 5000,
      estimatedPlayoutTimestamp: 1030, audioLevel: 0.2,
    }, // prettier-ignore
  ];
  const before = { ...NO_MEASURES, at: 1000, bytes: 5000 };
  const found = measures(entries, before, 2000);
  assert.deepEqual(
    [found.rtt, found.fps, found.sync, found.buffer, found.lost, found.rate, found.level],
    [42, 25, 30, 40, 0.05, 160, 0.2],
  );
  assert.deepEqual(found.path, { local: "host", remote: "relay", address: "192.0.2.7:50001", protocol: "udp" });
  assert.deepEqual(measures([], NO_MEASURES, 5), { ...NO_MEASURES, at: 5 });
});

test("one look that is far off does not count", () => {
  assert.equal(median([null, 20, 1200, 25, 30]), 25);
  assert.equal(median([null]), null);
  assert.equal(median([7]), 7);
  assert.equal(median([7, null, 8], 3), null);
});

test("lips and voice may be a little apart", () => {
  assert.deepEqual([null, 0, 40, 50, -120, -130].map(outOfSync), [false, false, false, true, false, true]);
});

test("sound becomes a WAV file that says what it is", () => {
  const file = new DataView(wav(new Float32Array([0, 1, -1, 2]), 16_000));
  const text = (from: number, length: number) =>
    String.fromCharCode(...Array.from({ length }, (_, i) => file.getUint8(from + i)));
  assert.deepEqual([text(0, 4), text(8, 8), text(36, 4)], ["RIFF", "WAVEfmt ", "data"]);
  assert.deepEqual([file.getUint32(24, true), file.getUint32(40, true), file.byteLength], [16_000, 8, 52]);
  assert.deepEqual([0, 1, 2, 3].map((i) => file.getInt16(44 + 2 * i, true)), [0, 32767, -32768, 32767]);
});
