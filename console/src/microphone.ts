/** A sentence from the microphone, as the WAV file that runtimes take (16 kHz, mono). */

import { wav } from "./wav";

const RATE = 16_000;
/** Longer than this is no sentence (milliseconds). */
const MOST = 60_000;

export class Recording {
  #recorder: MediaRecorder;
  #pieces: Blob[] = [];
  #over: Promise<void>;

  private constructor(readonly stream: MediaStream) {
    this.#recorder = new MediaRecorder(stream);
    this.#recorder.ondataavailable = ({ data }) => this.#pieces.push(data);
    this.#over = new Promise((done) => (this.#recorder.onstop = () => done()));
    this.#recorder.start();
    setTimeout(() => this.#halt(), MOST);
  }

  /** Throws where there is no microphone, or it may not be used. */
  static async begin(): Promise<Recording> {
    const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
    return new Recording(await navigator.mediaDevices.getUserMedia({ audio }));
  }

  async finish(): Promise<Blob> {
    this.#halt();
    await this.#over;
    const context = new OfflineAudioContext(1, 1, RATE);
    const decoded = await context.decodeAudioData(await new Blob(this.#pieces).arrayBuffer());
    const target = new OfflineAudioContext(1, Math.max(1, Math.ceil(decoded.duration * RATE)), RATE);
    const source = target.createBufferSource();
    source.buffer = decoded;
    source.connect(target.destination);
    source.start();
    const rendered = await target.startRendering();
    return new Blob([wav(rendered.getChannelData(0), RATE)], { type: "audio/wav" });
  }

  cancel(): void {
    this.#halt();
  }

  #halt(): void {
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
    for (const track of this.stream.getTracks()) track.stop();
  }
}

/** Why there is no microphone here; empty: there may be one. */
export function noMicrophone(): string {
  if (!isSecureContext) return "The microphone needs https (or localhost).";
  if (!navigator.mediaDevices || typeof MediaRecorder === "undefined") return "This browser has no microphone for pages.";
  return "";
}
