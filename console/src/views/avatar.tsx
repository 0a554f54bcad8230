import { useSignal, useSignalEffect } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import * as api from "../api";
import { counted, millis } from "../format";
import { modeInWords } from "../ice";
import { noMicrophone, Recording } from "../microphone";
import type { Fact, Instance } from "../model";
import { held, leave } from "../sessions";
import { outOfSync } from "../stats";
import { hello, now, scene } from "../store";
import { Talk } from "../talk";
import { Actions, refused } from "../parts/actions";
import { Empty } from "../parts/empty";
import { Happenings, newestFirst } from "../parts/happenings";
import { BackIcon, HandIcon, MicIcon, MuteIcon, SoundIcon, StopIcon, TalkIcon } from "../parts/icons";
import { Connections, InstancePhase } from "../parts/phase";
import { say } from "../parts/say";
import { Ago, Moment, Until } from "../parts/time";
import { Title } from "../parts/title";

const Back = () => (
  <a class="back" href="#/">
    <BackIcon />
    Overview
  </a>
);

export function AvatarPage({ name }: { name: string }) {
  const item = scene.value.instances[name];
  if (!item) {
    return (
      <>
        <Title name={name} above={<Back />} />
        <Empty title="This instance is not there">
          <p>
            It was stopped, collected because nobody used it, or never was. Its last events may say more; a new one is
            started from the <a href="#/">overview</a>.
          </p>
        </Empty>
        <Recent name={name} />
      </>
    );
  }
  return <Present key={name} item={item} />;
}

function Present({ item }: { item: Instance }) {
  const talk = useMemo(() => new Talk(), []);
  useEffect(() => {
    const away = () => void talk.end(true);
    addEventListener("pagehide", away);
    return () => {
      removeEventListener("pagehide", away);
      if (talk.stage.value !== "idle") void talk.end();
    };
  }, [talk]);
  return (
    <>
      <Title name={item.avatar} above={<Back />} action={<Actions item={item} />} />
      <div class="avatar-page">
        <div class="left">
          <Stage item={item} talk={talk} />
          <Recent name={item.name} />
        </div>
        <div class="side">
          <State item={item} />
          <Connection item={item} talk={talk} />
          <Sessions item={item} talk={talk} />
        </div>
      </div>
      <Details item={item} />
    </>
  );
}

// ---- the picture ---------------------------------------------------------------------

function Stage({ item, talk }: { item: Instance; talk: Talk }) {
  const video = useRef<HTMLVideoElement>(null);
  const muted = useSignal(false);
  const stage = talk.stage.value;
  const live = stage === "live";
  const why = refused("user");
  const begin = () => {
    if (video.current) void talk.begin(item, scene.value.pools[item.pool], video.current);
  };
  return (
    <section class="stage-box" aria-label={`Talk to ${item.avatar}`}>
      <div class={`stage ${stage}`}>
        <video ref={video} autoplay playsInline muted={muted.value} aria-label={`${item.avatar}, live`} />
        {live ? (
          <p class={talk.speaking.value ? "speaking on" : "speaking"}>
            <span class="waves" aria-hidden="true">
              <i />
              <i />
              <i />
            </span>
            {talk.speaking.value ? "Speaking" : "Listening"}
          </p>
        ) : null}
        {live && talk.subtitle.value ? <p class="subtitle">{talk.subtitle.value}</p> : null}
        {live ? null : <Curtain item={item} talk={talk} begin={begin} why={why} />}
      </div>
      <div class="controls">
        {live || stage === "joining" || stage === "connecting" ? (
          <button type="button" class="danger" onClick={() => void talk.end()}>
            <StopIcon />
            Hang up
          </button>
        ) : null}
        <button type="button" disabled={!live} onClick={() => void talk.interrupt().catch((e: unknown) => say(api.told(e), true))}>
          <HandIcon />
          Interrupt
        </button>
        <button type="button" disabled={!live} aria-pressed={muted.value} onClick={() => (muted.value = !muted.value)}>
          {muted.value ? <MuteIcon /> : <SoundIcon />}
          {muted.value ? "Unmute" : "Mute"}
        </button>
        <Microphone talk={talk} live={live} />
      </div>
      <Say talk={talk} live={live} name={item.avatar} />
      {talk.notice.value ? (
        <p class="consequence bad" role="alert">
          {talk.notice.value}
        </p>
      ) : null}
    </section>
  );
}

function Curtain({ item, talk, begin, why }: { item: Instance; talk: Talk; begin: () => void; why: string }) {
  const stage = talk.stage.value;
  const failure = talk.failure.value;
  if (stage === "joining" || stage === "connecting") {
    return (
      <div class="curtain" role="status">
        <span class="spinner" aria-hidden="true" />
        <p>{stage === "joining" ? "Joining…" : "Connecting…"}</p>
      </div>
    );
  }
  if (stage === "failed" && failure) {
    return (
      <div class="curtain failed" role="alert">
        <h2>{failure.title}</h2>
        <p>{failure.cause}</p>
        <ul>
          {failure.remedies.map((remedy) => (
            <li key={remedy}>{remedy}</li>
          ))}
        </ul>
        <button type="button" class="primary" onClick={begin} disabled={!canTalk(item)}>
          Try again
        </button>
      </div>
    );
  }
  const waiting = !canTalk(item);
  const asleep = item.phase === "Stopped";
  return (
    <div class="curtain">
      {waiting || asleep ? (
        <>
          <InstancePhase item={item} />
          <p>{waitingFor(item)}</p>
        </>
      ) : null}
      <button type="button" class="primary large" onClick={begin} disabled={waiting || why !== ""}>
        <TalkIcon />
        {asleep ? "Wake and talk" : "Talk"}
      </button>
      {why ? <p>{why}</p> : waiting || asleep ? null : <p>Picture and sound come over WebRTC.</p>}
    </div>
  );
}

/** Whether it serves, or will when somebody comes. */
function canTalk(item: Instance): boolean {
  return item.serves || item.phase === "Stopped";
}

function waitingFor(item: Instance): string {
  if (item.message) return item.message;
  switch (item.phase) {
    case "Starting":
      return "Its pod is on the way.";
    case "Pending":
      return "It waits for the operator.";
    case "Stopped":
      return "It sleeps: nobody used it.";
    default:
      return "It cannot be talked to at the moment.";
  }
}

function Say({ talk, live, name }: { talk: Talk; live: boolean; name: string }) {
  const text = useSignal("");
  const chat = useSignal(false);
  const busy = useSignal(false);
  const problem = useSignal("");
  const submit = async (event: Event) => {
    event.preventDefault();
    const sentence = text.value.trim();
    if (!sentence || !live) return;
    busy.value = true;
    problem.value = "";
    try {
      await talk.say(sentence, chat.value ? "chat" : "echo");
      text.value = "";
    } catch (error) {
      problem.value = api.told(error);
    } finally {
      busy.value = false;
    }
  };
  return (
    <form class="say" onSubmit={(event) => void submit(event)}>
      <label for="sentence" class="sr">
        What {name} is to {chat.value ? "answer" : "say"}
      </label>
      <input
        id="sentence"
        value={text.value}
        maxLength={5000}
        autocomplete="off"
        placeholder={live ? (chat.value ? `Ask ${name} something` : `What ${name} says`) : "Press Talk first"}
        disabled={!live}
        onInput={(event) => (text.value = event.currentTarget.value)}
      />
      <label class="sr" for="kind">
        How
      </label>
      <select
        id="kind"
        disabled={!live}
        value={chat.value ? "chat" : "echo"}
        onChange={(event) => (chat.value = event.currentTarget.value === "chat")}
      >
        <option value="echo">Say it</option>
        <option value="chat">Answer it</option>
      </select>
      <button type="submit" class="primary" disabled={!live || busy.value}>
        Send
      </button>
      {problem.value ? (
        <p class="error" role="alert">
          {problem.value}
        </p>
      ) : null}
    </form>
  );
}

function Microphone({ talk, live }: { talk: Talk; live: boolean }) {
  const recording = useSignal<Recording | null>(null);
  // Whether a runtime takes sound is told by its answer alone.
  const unfit = useSignal(noMicrophone());
  useEffect(() => () => recording.value?.cancel(), [recording]);
  useSignalEffect(() => {
    if (talk.stage.value !== "live" && recording.value) {
      recording.value.cancel();
      recording.value = null;
    }
  });
  const press = async () => {
    try {
      if (!recording.value) {
        recording.value = await Recording.begin();
        return;
      }
      const file = await recording.value.finish();
      recording.value = null;
      await talk.hearAudio(file);
    } catch (error) {
      recording.value = null;
      if (error instanceof api.Refusal && [404, 405, 501].includes(error.code)) {
        unfit.value = "This runtime takes no sound.";
      } else {
        const denied = error instanceof DOMException && error.name === "NotAllowedError";
        say(denied ? "The browser does not let this page use the microphone." : api.told(error), true);
      }
    }
  };
  return (
    <button
      type="button"
      disabled={!live || unfit.value !== ""}
      title={unfit.value}
      aria-pressed={recording.value !== null}
      class={recording.value ? "recording" : ""}
      onClick={() => void press()}
    >
      <MicIcon />
      {recording.value ? "Send sound" : unfit.value && live ? "No microphone" : "Speak"}
    </button>
  );
}

// ---- beside it -----------------------------------------------------------------------

function Card({ title, children }: { title: string; children: ComponentChildren }) {
  const id = `card-${title.toLowerCase().replace(/\W+/g, "-")}`;
  return (
    <section class="card" aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {children}
    </section>
  );
}

function State({ item }: { item: Instance }) {
  return (
    <Card title="State">
      <dl class="facts">
        <dt>Phase</dt>
        <dd>
          <InstancePhase item={item} />
          {item.message && item.serves ? <span class="under">{item.message}</span> : null}
        </dd>
        <dt>Connections</dt>
        <dd>
          <Connections item={item} />
        </dd>
        {item.idle_deadline ? (
          <>
            <dt>Idle in</dt>
            <dd>
              <Until time={item.idle_deadline} />
              <span class="soft">, then {item.idle_action === "Sleep" ? "it sleeps" : "it is removed"}</span>
            </dd>
          </>
        ) : null}
        {item.retry_time ? (
          <>
            <dt>Next try in</dt>
            <dd>
              <Until time={item.retry_time} />
            </dd>
          </>
        ) : null}
        <dt>Port</dt>
        <dd class="num">{item.port ?? "–"}</dd>
        <dt>Node</dt>
        <dd>{item.node ?? "–"}</dd>
        <dt>GPU</dt>
        <dd class="num">{item.gpu ? `${item.gpu.index ?? "?"} on ${item.gpu.node}` : "none"}</dd>
        <dt>Voice</dt>
        <dd>
          {item.voice || "–"}
          <span class="soft"> {item.engine}</span>
        </dd>
      </dl>
    </Card>
  );
}

function Connection({ item, talk }: { item: Instance; talk: Talk }) {
  const live = talk.stage.value === "live";
  const seen = talk.measured.value;
  const media = item.media;
  const mode = media?.mode || scene.value.pools[item.pool]?.network || "";
  const bad = outOfSync(seen.sync);
  return (
    <Card title="Connection">
      <dl class="facts">
        <dt>Media</dt>
        <dd>
          {mode || "–"}
          <span class="under">{modeInWords(mode)}</span>
        </dd>
        {media ? (
          <>
            <dt>Reachable</dt>
            <dd>
              {live ? "yes, from here" : media.reachable === "True" ? "yes" : media.reachable === "False" ? <strong class="alert-text">no</strong> : "not known"}
              {media.message && !live ? <span class="under">{media.message}</span> : null}
            </dd>
          </>
        ) : null}
        {media?.candidates.length ? (
          <>
            <dt>Addresses</dt>
            <dd class="num">{media.candidates.join(", ")}</dd>
          </>
        ) : null}
        {media?.ports ? (
          <>
            <dt>UDP ports</dt>
            <dd class="num">{media.ports}</dd>
          </>
        ) : null}
        {live ? (
          <>
            <dt>Round trip</dt>
            <dd class="num">{millis(seen.rtt)}</dd>
            <dt>First picture</dt>
            <dd class="num">{millis(talk.firstFrame.value)}</dd>
            <dt>Reply after</dt>
            <dd class="num">{millis(talk.reply.value)}</dd>
            <dt>Picture</dt>
            <dd class="num">
              {seen.fps === null ? "–" : `${Math.round(seen.fps)} fps`}
              {seen.width ? <span class="soft">{` ${seen.width}×${seen.height}`}</span> : null}
            </dd>
            <dt>Lips and voice</dt>
            <dd class="num">
              {seen.sync === null ? "–" : `${Math.round(Math.abs(seen.sync))} ms`}
              <span class={bad ? "alert-text" : "soft"}>
                {seen.sync === null ? "" : bad ? (seen.sync > 0 ? " picture late" : " picture early") : " in sync"}
              </span>
            </dd>
            <dt>Lost</dt>
            <dd class="num">{seen.lost === null ? "–" : `${(100 * seen.lost).toFixed(1)} %`}</dd>
            <dt>Received</dt>
            <dd class="num">{seen.rate === null ? "–" : `${Math.round(seen.rate)} kbit/s`}</dd>
            <dt>Path</dt>
            <dd class="num">
              {seen.path ? `${seen.path.remote} ${seen.path.protocol}` : "–"}
              {seen.path?.address ? <span class="under">{seen.path.address}</span> : null}
            </dd>
          </>
        ) : null}
      </dl>
      {live ? null : <p class="hint">Latency, frame rate and how well lips follow the voice are measured while you talk.</p>}
    </Card>
  );
}

function Sessions({ item, talk }: { item: Instance; talk: Talk }) {
  const found = useSignal<api.SessionView[]>([]);
  const mine = talk.session.value || held.value[item.name];
  const count = item.connections;
  useEffect(() => {
    const abort = new AbortController();
    api
      .sessions(item.name, abort.signal)
      .then((sessions) => (found.value = sessions))
      .catch(() => undefined);
    return () => abort.abort();
  }, [item.name, count, found]);
  const end = async (avatarId: string) => {
    try {
      await leave(item.name, avatarId);
      say(`Session ${avatarId} was ended.`);
    } catch (error) {
      say(api.told(error), true);
    }
  };
  const others = count - found.value.length;
  return (
    <Card title="Sessions">
      {found.value.length ? (
        <ul class="sessions">
          {found.value.map((session) => (
            <li key={session.avatar_id}>
              <span>
                <span class="strong">{session.avatar_id}</span>
                {session.avatar_id === mine ? <span class="tag">this tab</span> : null}
                <span class="under">
                  {session.user ? `${session.user} · ` : ""}since <Moment time={session.since} />
                </span>
              </span>
              <button type="button" class="quiet" onClick={() => void end(session.avatar_id)}>
                End<span class="sr"> session {session.avatar_id}</span>
              </button>
            </li>
          ))}
        </ul>
      ) : (
        <p class="soft">{count ? "None of yours." : "Nobody is connected."}</p>
      )}
      {others > 0 && found.value.length ? <p class="soft">{counted(others, "other")} beside them.</p> : null}
      {others > 0 && !found.value.length ? <p class="soft">{counted(others, "session")} of others.</p> : null}
    </Card>
  );
}

function Recent({ name }: { name: string }) {
  const found = newestFirst(scene.value.events).filter(([, item]) => item.kind === "AvatarInstance" && item.name === name);
  return (
    <section aria-labelledby="recent">
      <div class="section-head">
        <h2 id="recent">Events</h2>
      </div>
      {found.length ? <Happenings items={found.slice(0, 8)} about={false} /> : <p class="soft">None in the last hour.</p>}
    </section>
  );
}

function Details({ item }: { item: Instance }) {
  const namespace = hello.value?.namespace ?? "default";
  return (
    <section aria-labelledby="details">
      <div class="section-head">
        <h2 id="details">Details</h2>
      </div>
      <div class="two">
        <div>
          <h3>Conditions</h3>
          {item.conditions.length ? (
            <ul class="conditions">
              {item.conditions.map((fact) => (
                <Condition key={fact.type} fact={fact} />
              ))}
            </ul>
          ) : (
            <p class="soft">The operator has not said anything yet.</p>
          )}
        </div>
        <div>
          <h3>Instance</h3>
          <dl class="facts">
            <dt>Name</dt>
            <dd>{item.name}</dd>
            <dt>Pool</dt>
            <dd>{item.pool}</dd>
            <dt>Pod</dt>
            <dd>{item.pod ?? "–"}</dd>
            <dt>Model</dt>
            <dd>{item.model || "–"}</dd>
            <dt>Age</dt>
            <dd>
              <Ago since={item.created} />
            </dd>
            <dt>Restarts</dt>
            <dd class="num">{item.restarts}</dd>
            {item.ended ? (
              <>
                <dt>Last end</dt>
                <dd>
                  {item.ended.reason || "not known"}
                  {item.ended.exit_code !== null ? <span class="soft num"> exit {item.ended.exit_code}</span> : null}
                  <span class="under">{item.ended.message}</span>
                </dd>
              </>
            ) : null}
          </dl>
          <h3>Logs</h3>
          <p class="soft">What its process says:</p>
          <pre>
            kubectl avatar logs -n {namespace} {item.name}
          </pre>
        </div>
      </div>
    </section>
  );
}

function Condition({ fact }: { fact: Fact }) {
  // Read so that ages stay true.
  void now.value;
  const good = fact.status === "True";
  return (
    <li>
      <span class={`phase ${good ? "good" : fact.status === "False" ? "busy" : "off"}`}>
        <svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">
          {good ? <path class="line thick" d="M3.5 8.5 6.5 11.5 12.5 5" /> : fact.status === "False" ? <path class="line thick" d="M4 8h8" /> : <circle class="line dashed" cx="8" cy="8" r="5" />}
        </svg>
        <span>
          {fact.type} <small>{good ? "" : fact.status === "False" ? "no" : "unknown"}</small>
        </span>
      </span>
      <span class="under">
        {fact.reason}
        {fact.message ? `: ${fact.message}` : ""}
      </span>
    </li>
  );
}
