import { counted } from "../format";
import type { Instance } from "../model";

type Tone = "good" | "busy" | "bad" | "off";

/** What a phase looks like: a tone, and a shape of its own for those who see no colours. */
const LOOKS: Record<string, [Tone, string]> = {
  Running: ["good", "disc"],
  Ready: ["good", "disc"],
  Shared: ["good", "pair"],
  Starting: ["busy", "half"],
  Pending: ["busy", "ring"],
  Draining: ["busy", "down"],
  Fallback: ["busy", "down"],
  Failed: ["bad", "cross"],
  Stopped: ["off", "square"],
};

function Shape({ kind }: { kind: string }) {
  switch (kind) {
    case "disc":
      return <circle cx="8" cy="8" r="5" class="solid" />;
    case "pair":
      return (
        <>
          <circle cx="5.5" cy="8" r="3.7" class="line" />
          <circle cx="10.5" cy="8" r="3.7" class="solid" />
        </>
      );
    case "half":
      return (
        <>
          <circle cx="8" cy="8" r="5" class="line" />
          <path d="M8 3a5 5 0 0 1 0 10Z" class="solid" />
        </>
      );
    case "ring":
      return <circle cx="8" cy="8" r="5" class="line dashed" />;
    case "down":
      return <path d="M3 5h10l-5 7Z" class="solid" />;
    case "cross":
      return <path d="M4 4l8 8M12 4l-8 8" class="line thick" />;
    default:
      return <rect x="3.5" y="3.5" width="9" height="9" rx="1.5" class="line" />;
  }
}

export function Phase({ name, detail }: { name: string; detail?: string }) {
  const [tone, shape] = LOOKS[name] ?? ["off", "square"];
  return (
    <span class={`phase ${tone}`}>
      <svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">
        <Shape kind={shape} />
      </svg>
      <span>
        {name}
        {detail ? <small> {detail}</small> : null}
      </span>
    </span>
  );
}

/** What one must know with the phase. */
export function detailOf(item: Instance): string {
  if (item.phase === "Pending" && item.queue_position) return `place ${item.queue_position}`;
  if (item.phase === "Shared" && item.shared_with) return `with ${item.shared_with}`;
  if ((item.phase === "Failed" || item.phase === "Starting") && item.reason && item.reason !== item.phase) {
    return item.reason;
  }
  return "";
}

export function InstancePhase({ item }: { item: Instance }) {
  return <Phase name={item.phase} detail={detailOf(item)} />;
}

/** Connections that were counted, and sessions that the runtime was seen to have beyond them. */
export function Connections({ item }: { item: Instance }) {
  const seen = item.observed ?? 0;
  return (
    <span class="num">
      {item.connections}
      {item.max_sessions ? <span class="soft"> / {item.max_sessions}</span> : null}
      {seen > item.connections ? (
        <span class="soft" title="Seen by the runtime, and counted by no backend">
          {" "}
          ({counted(seen, "session")} seen)
        </span>
      ) : null}
    </span>
  );
}
