/** What a viewer would notice, out of RTCPeerConnection.getStats(). Pure. */

export type Entry = Record<string, unknown> & { type: string; id: string };

export interface Measures {
  /** Milliseconds there and back; null: not known yet. */
  rtt: number | null;
  fps: number | null;
  width: number | null;
  height: number | null;
  /** Picture after sound in milliseconds; negative: the picture is ahead. */
  sync: number | null;
  /** Milliseconds of video and audio that wait to be shown. */
  buffer: number | null;
  /** Of all packets since the beginning, 0 to 1. */
  lost: number | null;
  /** Received since the last look, kbit/s. */
  rate: number | null;
  /** Loudness of the sound, 0 to 1. */
  level: number | null;
  /** How the media comes. */
  path: { local: string; remote: string; address: string; protocol: string } | null;
  /** For the next look. */
  bytes: number;
  at: number;
}

export const NO_MEASURES: Measures = {
  rtt: null, fps: null, width: null, height: null, sync: null, buffer: null, lost: null, rate: null, level: null,
  path: null, bytes: 0, at: 0,
}; // prettier-ignore

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

export function measures(entries: Iterable<Entry>, before: Measures, at: number): Measures {
  const all = [...entries];
  const byId = new Map(all.map((entry) => [entry.id, entry]));
  const inbound = (kind: string) => all.find((e) => e.type === "inbound-rtp" && e["kind"] === kind);
  const [video, audio] = [inbound("video"), inbound("audio")];
  const pair = chosen(all, byId);
  const rtt = number(pair?.["currentRoundTripTime"]);
  const received = [video, audio].map((e) => number(e?.["packetsReceived"]) ?? 0).reduce((a, b) => a + b, 0);
  const missing = [video, audio].map((e) => Math.max(0, number(e?.["packetsLost"]) ?? 0)).reduce((a, b) => a + b, 0);
  const bytes = [video, audio].map((e) => number(e?.["bytesReceived"]) ?? 0).reduce((a, b) => a + b, 0);
  const [shown, heard] = [number(video?.["estimatedPlayoutTimestamp"]), number(audio?.["estimatedPlayoutTimestamp"])];
  const [delay, emitted] = [number(video?.["jitterBufferDelay"]), number(video?.["jitterBufferEmittedCount"])];
  const elapsed = at - before.at;
  return {
    rtt: rtt === null ? null : rtt * 1000,
    fps: number(video?.["framesPerSecond"]),
    width: number(video?.["frameWidth"]),
    height: number(video?.["frameHeight"]),
    // What is shown now was made before what is heard now: the picture is late.
    sync: shown === null || heard === null ? null : heard - shown,
    buffer: delay === null || !emitted ? null : (1000 * delay) / emitted,
    lost: received + missing ? missing / (received + missing) : null,
    rate: before.at && elapsed > 0 && bytes >= before.bytes ? ((bytes - before.bytes) * 8) / elapsed : null,
    level: number(audio?.["audioLevel"]),
    path: pathOf(pair, byId),
    bytes,
    at,
  };
}

function chosen(all: Entry[], byId: Map<string, Entry>): Entry | undefined {
  const transport = all.find((e) => e.type === "transport" && typeof e["selectedCandidatePairId"] === "string");
  const named = transport && byId.get(transport["selectedCandidatePairId"] as string);
  return named ?? all.find((e) => e.type === "candidate-pair" && e["nominated"] === true && e["state"] === "succeeded");
}

function pathOf(pair: Entry | undefined, byId: Map<string, Entry>): Measures["path"] {
  const local = byId.get(String(pair?.["localCandidateId"] ?? ""));
  const remote = byId.get(String(pair?.["remoteCandidateId"] ?? ""));
  if (!local || !remote) return null;
  const address = `${String(remote["address"] ?? remote["ip"] ?? "")}:${String(remote["port"] ?? "")}`;
  return {
    local: String(local["candidateType"] ?? ""),
    remote: String(remote["candidateType"] ?? ""),
    address: address === ":" ? "" : address,
    protocol: String(local["relayProtocol"] ?? local["protocol"] ?? ""),
  };
}

/** The middle one of what is known; null: fewer than `least` are. */
export function median(values: (number | null)[], least = 1): number | null {
  const known = values.filter((value): value is number => value !== null).sort((a, b) => a - b);
  return known.length < least ? null : (known[Math.floor((known.length - 1) / 2)] ?? null);
}

/** Whether lips and voice are apart so far that people notice (ms): sound that comes late is natural, early is not. */
export function outOfSync(sync: number | null): boolean {
  return sync !== null && (sync > 45 || sync < -125);
}
