import type { Happening } from "../model";
import { pathTo } from "../route";
import { Moment } from "./time";

const KIND: Record<string, string> = {
  AvatarInstance: "Instance",
  AvatarPool: "Pool",
  Avatar: "Avatar",
  TTSEngine: "Engine",
  GPUNode: "GPU node",
};

/** `about`: whether it must be said what each is about. */
export function Happenings({ items, about = true }: { items: [string, Happening][]; about?: boolean }) {
  return (
    <ol class="happenings">
      {items.map(([key, item]) => (
        <li key={key} class={item.type === "Warning" ? "warning" : ""}>
          <span class="when">
            <Moment time={item.at} />
          </span>
          <span class="what">
            <span class="reason">
              {item.type === "Warning" ? (
                <svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">
                  <path d="M8 2 15 14H1Z" />
                  <path class="sign" d="M8 6.5v3.2M8 11.4v.8" />
                </svg>
              ) : null}
              {item.type === "Warning" ? <span class="sr">Warning: </span> : null}
              {item.reason}
              {item.count > 1 ? <span class="soft num"> ×{item.count}</span> : null}
            </span>
            {about ? (
              <span class="about">
                {KIND[item.kind] ?? item.kind}{" "}
                {item.kind === "AvatarInstance" ? <a href={pathTo(item.name)}>{item.name}</a> : <span>{item.name}</span>}
              </span>
            ) : null}
          </span>
          <span class="message">{item.message}</span>
        </li>
      ))}
    </ol>
  );
}

export function newestFirst(events: Record<string, Happening>): [string, Happening][] {
  return Object.entries(events).sort(
    ([, a], [, b]) => (b.at ?? "").localeCompare(a.at ?? "") || b.order - a.order,
  );
}
