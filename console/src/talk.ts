/** A conversation with an avatar over WebRTC, signalled through the API. */

import { signal } from "@preact/signals";
import * as api from "./api";
import { explain, candidates, type Explanation } from "./ice";
import type { Instance, Pool } from "./model";
import { go, pathTo } from "./route";
import { held, hold, leave, newId } from "./sessions";
import { measures, median, NO_MEASURES, type Entry, type Measures } from "./stats";

export type Stage = "idle" | "joining" | "connecting" | "live" | "failed";

// ICE candidates are waited for so long (milliseconds): a STUN server that does not answer must not hold up the rest.
const GATHER = 1500;
// Without media after so long nothing will come.
const CONNECT = 15_000;
const LOOK = 1000;
// How far lips and voice are apart is the middle of so many looks: one alone may fall between two reports of the sender.
const LOOKS = 7;
const LOOKS_LEAST = 3;

export class Talk {
  readonly stage = signal<Stage>("idle");
  readonly speaking = signal(false);
  readonly subtitle = signal("");
  readonly failure = signal<Explanation | null>(null);
  /** Something that the runtime could not do; the conversation goes on. */
  readonly notice = signal("");
  readonly measured = signal<Measures>(NO_MEASURES);
  /** Milliseconds from the offer to the first picture. */
  readonly firstFrame = signal<number | null>(null);
  /** Milliseconds from a sentence that was sent to its first sound. */
  readonly reply = signal<number | null>(null);
  readonly stream = signal<MediaStream | null>(null);
  /** The name by which this conversation is counted; empty: it is not. */
  readonly session = signal("");

  #peer: RTCPeerConnection | null = null;
  #sessionid = "";
  #instance = "";
  #abort = new AbortController();
  #offered = 0;
  #said = 0;
  #syncs: (number | null)[] = [];
  #looking: ReturnType<typeof setInterval> | undefined;

  /** Join and connect. `video` shows it. */
  async begin(item: Instance, pool: Pool | undefined, video: HTMLVideoElement): Promise<void> {
    this.#reset();
    this.#instance = item.name;
    const mine = (this.#abort = new AbortController());
    this.stage.value = "joining";
    let offered: string[] = [];
    try {
      const avatarId = held.value[item.name] ?? newId();
      // An offer counts its session by itself, and that ends with its peer. One that sleeps must be woken first.
      const iceServers = item.serves ? await api.iceServers(item.name) : await this.#wake(item, avatarId);
      if (mine.signal.aborted || !iceServers) return;
      this.stage.value = "connecting";
      const peer = (this.#peer = new RTCPeerConnection({ iceServers }));
      const media = new MediaStream();
      this.stream.value = media;
      video.srcObject = media;
      peer.ontrack = ({ track }) => media.addTrack(track);
      peer.onconnectionstatechange = () => this.#changed(peer, item, pool, offered);
      this.#hear(peer.createDataChannel("events"));
      peer.addTransceiver("video", { direction: "recvonly" });
      peer.addTransceiver("audio", { direction: "recvonly" });
      await peer.setLocalDescription();
      await gathered(peer);
      this.#offered = performance.now();
      this.#awaitFrame(video, mine.signal);
      const answer = await api.offer(item.name, peer.localDescription?.sdp ?? "", avatarId, mine.signal);
      offered = candidates(answer.sdp);
      if (mine.signal.aborted) return;
      this.#sessionid = answer.sessionid;
      this.session.value = answer.avatar_id;
      await peer.setRemoteDescription({ type: answer.type, sdp: answer.sdp });
      this.#looking = setInterval(() => void this.#look(peer), LOOK);
      setTimeout(() => {
        if (peer === this.#peer && this.stage.value === "connecting") this.#fail(explain(item, pool, offered));
      }, CONNECT);
    } catch (error) {
      if (mine.signal.aborted) return;
      this.#fail({ title: "The avatar could not be reached", cause: api.told(error), remedies: advice(error) });
    }
  }

  /** ICE servers of an instance that serves now; null: it is served by another, whose page shows it. */
  async #wake(item: Instance, avatarId: string): Promise<RTCIceServer[] | null> {
    const started = await api.start(item.avatar, avatarId, item.pool, true);
    hold(started.instance, avatarId);
    if (started.instance === item.name) return started.ice_servers ?? [];
    this.stage.value = "idle";
    go(pathTo(started.instance));
    return null;
  }

  async say(text: string, kind: "echo" | "chat"): Promise<void> {
    this.#said = performance.now();
    await api.human(this.#instance, this.#sessionid, text, kind);
  }

  async hearAudio(file: Blob): Promise<void> {
    this.#said = performance.now();
    await api.audio(this.#instance, this.#sessionid, file);
  }

  async interrupt(): Promise<void> {
    await api.interrupt(this.#instance, this.#sessionid);
    this.speaking.value = false;
    this.subtitle.value = "";
  }

  /** Hang up and end the session. `leaving`: the page goes away. */
  async end(leaving = false): Promise<void> {
    const [instance, avatarId] = [this.#instance, this.session.value];
    this.#reset();
    this.stage.value = "idle";
    const session = avatarId || held.value[instance];
    if (session) await leave(instance, session, leaving).catch(() => undefined);
  }

  #reset(): void {
    this.#abort.abort();
    clearInterval(this.#looking);
    this.#peer?.close();
    this.#peer = null;
    this.#sessionid = "";
    this.session.value = "";
    this.#said = 0;
    this.#syncs = [];
    this.stream.value = null;
    this.speaking.value = false;
    this.subtitle.value = "";
    this.notice.value = "";
    this.failure.value = null;
    this.firstFrame.value = null;
    this.reply.value = null;
    this.measured.value = NO_MEASURES;
  }

  #fail(why: Explanation): void {
    this.#abort.abort();
    clearInterval(this.#looking);
    this.#peer?.close();
    this.#peer = null;
    this.speaking.value = false;
    this.subtitle.value = "";
    this.failure.value = why;
    this.stage.value = "failed";
  }

  #changed(peer: RTCPeerConnection, item: Instance, pool: Pool | undefined, offered: string[]): void {
    if (peer !== this.#peer) return;
    if (peer.connectionState === "connected") this.stage.value = "live";
    if (peer.connectionState === "failed" && this.stage.value === "connecting") {
      const sdp = peer.remoteDescription?.sdp ?? "";
      this.#fail(explain(item, pool, offered.length ? offered : candidates(sdp)));
    } else if (peer.connectionState === "failed" || peer.connectionState === "closed") {
      this.#fail({
        title: "The connection was lost",
        cause: "The avatar's media stopped coming: it was stopped or restarted, or the network went away.",
        remedies: ["Talk again once it is Running.", "If it happens again, look at its events."],
      });
    }
  }

  #hear(channel: RTCDataChannel): void {
    channel.onmessage = ({ data }) => {
      let told: { event?: unknown; text?: unknown; message?: unknown };
      try {
        told = JSON.parse(String(data)) as typeof told;
      } catch {
        return;
      }
      if (told.event === "speaking") {
        this.speaking.value = true;
        if (this.#said) this.reply.value = performance.now() - this.#said;
        this.#said = 0;
      } else if (told.event === "subtitle") {
        this.subtitle.value = String(told.text ?? "");
      } else if (told.event === "silent") {
        this.speaking.value = false;
        this.subtitle.value = "";
      } else if (told.event === "draining") {
        this.notice.value = "The avatar is about to stop and takes no new visitors.";
      } else if (told.event === "error") {
        this.notice.value = `It could not say that: ${String(told.message ?? "no reason given")}`;
      }
    };
  }

  #awaitFrame(video: HTMLVideoElement, signal: AbortSignal): void {
    const first = () => {
      if (!signal.aborted) this.firstFrame.value = performance.now() - this.#offered;
    };
    if ("requestVideoFrameCallback" in video) video.requestVideoFrameCallback(first);
    else (video as HTMLVideoElement).addEventListener("playing", first, { once: true, signal });
  }

  async #look(peer: RTCPeerConnection): Promise<void> {
    const report = await peer.getStats();
    if (peer !== this.#peer) return;
    const entries: Entry[] = [];
    report.forEach((entry: Entry) => entries.push(entry));
    const found = measures(entries, this.measured.value, performance.now());
    this.#syncs = [...this.#syncs, found.sync].slice(-LOOKS);
    this.measured.value = { ...found, sync: median(this.#syncs, LOOKS_LEAST) };
  }
}

async function gathered(peer: RTCPeerConnection): Promise<void> {
  if (peer.iceGatheringState === "complete") return;
  await new Promise<void>((done) => {
    const late = setTimeout(done, GATHER);
    peer.addEventListener("icegatheringstatechange", () => {
      if (peer.iceGatheringState !== "complete") return;
      clearTimeout(late);
      done();
    });
  });
}

function advice(error: unknown): string[] {
  if (!(error instanceof api.Refusal)) return ["Try again."];
  switch (error.code) {
    case 0:
      return ["See whether the API is up and your network lets you reach it; then try again."];
    case 401:
      return ["Sign in again: the token is no longer good."];
    case 403:
      return ["Ask for a token with the role user or admin."];
    case 404:
      return ["It may have been stopped meanwhile: start it again from the overview."];
    case 409:
      return ["Wait until somebody leaves, or let an administrator raise maxSessions."];
    case 429:
      return [`Too many tries: wait ${error.retryAfter ?? 60} seconds.`];
    case 503:
      return [`Try again in ${error.retryAfter ?? 5} seconds.`, "Its phase and reason are shown beside."];
    default:
      return ["Try again; if it stays so, look at the API's log."];
  }
}
