import { at, counted, gib, span } from "../format";
import type { Gpu, Instance, Memory } from "../model";
import { pathTo } from "../route";
import { now, scene } from "../store";
import { Empty } from "../parts/empty";
import { Title } from "../parts/title";

// As `kubectl avatar top` has it.
const HOT = 85;

export function Gpus() {
  const { gpus, instances } = scene.value;
  const all = Object.values(gpus).sort((a, b) => a.node.localeCompare(b.node) || a.index - b.index);
  const nodes = [...new Set(all.map((gpu) => gpu.node))];
  const holders = Object.values(instances).filter((item) => item.gpu && !item.shared_with);
  if (!all.length) {
    return (
      <>
        <Title name="GPUs" />
        <Empty title="No node reports a GPU">
          <p>
            The agent on GPU nodes measures their memory. Avatars on CPUs need none. With GPUs, switch it on and see
            that it runs:
          </p>
          <pre>{"helm upgrade … --set agent.enabled=true\nkubectl get gpunodes"}</pre>
        </Empty>
      </>
    );
  }
  return (
    <>
      <Title name="GPUs" />
      {nodes.map((node) => {
        const mine = all.filter((gpu) => gpu.node === node);
        return (
          <section key={node} aria-labelledby={`node-${node}`}>
            <div class="section-head">
              <h2 id={`node-${node}`}>
                {node} <span class="count">{mine.length}</span>
              </h2>
              <Reported gpu={mine[0]} />
            </div>
            <ul class="gpus">
              {mine.map((gpu) => (
                <OneGpu key={gpu.uuid} gpu={gpu} holders={holders.filter((item) => item.gpu?.uuid === gpu.uuid)} />
              ))}
            </ul>
          </section>
        );
      })}
    </>
  );
}

function isStale(gpu: Gpu): boolean {
  const then = at(gpu.stale);
  return then === null || then <= now.value;
}

function Reported({ gpu }: { gpu: Gpu | undefined }) {
  if (!gpu) return null;
  const then = at(gpu.reported);
  if (then === null) return <p class="soft">never reported</p>;
  const ago = span(now.value - then);
  if (isStale(gpu)) {
    return (
      <p class="alert-text">
        No report for {ago}: what is shown is old. See that the agent's pod on this node runs.
      </p>
    );
  }
  return <p class="soft num">reported {ago} ago</p>;
}

function OneGpu({ gpu, holders }: { gpu: Gpu; holders: Instance[] }) {
  const hot = gpu.temperature !== null && gpu.temperature >= HOT;
  const alerts = [...gpu.alerts.map((alert) => ({ type: alert.type, text: alert.message }))];
  if (gpu.cordoned) alerts.push({ type: "Cordoned", text: "It gets no new avatars (GPUNode spec.cordoned)." });
  return (
    <li class={isStale(gpu) ? "gpu old" : "gpu"}>
      <div class="gpu-head">
        <h3>
          GPU <span class="num">{gpu.index}</span> <span class="soft">{gpu.product || "unknown model"}</span>
        </h3>
        <dl class="inline">
          <div class={hot ? "hot" : ""}>
            <dt>Temperature</dt>
            <dd class="num">
              {gpu.temperature === null ? "–" : `${gpu.temperature} °C`}
              {hot ? " hot" : ""}
            </dd>
          </div>
          <div>
            <dt>Busy</dt>
            <dd class="num">{gpu.utilization === null ? "–" : `${gpu.utilization} %`}</dd>
          </div>
          <div>
            <dt>Power</dt>
            <dd class="num">
              {gpu.power === null ? "–" : `${Math.round(gpu.power)} W`}
              {gpu.power_limit ? <span class="soft"> of {Math.round(gpu.power_limit)}</span> : null}
            </dd>
          </div>
        </dl>
      </div>
      {gpu.memory ? <MemoryBar memory={gpu.memory} /> : <p class="soft">The driver cannot tell its memory.</p>}
      {alerts.length ? (
        <ul class="alerts" aria-label="Alerts">
          {alerts.map((alert) => (
            <li key={alert.type}>
              <svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">
                <path d="M8 2 15 14H1Z" />
                <path class="sign" d="M8 6.5v3.2M8 11.4v.8" />
              </svg>
              <span>
                <strong>{alert.type}</strong> {alert.text}
              </span>
            </li>
          ))}
        </ul>
      ) : null}
      <p class="on-gpu">
        {holders.length ? (
          <>
            <span class="soft">{counted(holders.length, "avatar")}: </span>
            {holders.map((item, index) => (
              <span key={item.name}>
                {index ? ", " : ""}
                <a href={pathTo(item.name)}>{item.avatar}</a>{" "}
                <span class="soft num">{item.gpu?.reserved ? `${gib(item.gpu.reserved)} GiB` : ""}</span>
              </span>
            ))}
          </>
        ) : (
          <span class="soft">No avatar of this namespace is on it.</span>
        )}
      </p>
    </li>
  );
}

function MemoryBar({ memory }: { memory: Memory }) {
  const parts: [string, string, number][] = [
    ["used", "Avatars", memory.used],
    ["reserved", "Reserved", memory.reserved],
    ["external", "Others", memory.external],
    ["free", "Free", memory.free],
  ];
  const total = Math.max(1, parts.reduce((sum, [, , mib]) => sum + mib, 0));
  let from = 0;
  return (
    <div class="memory">
      <svg class="bar" viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true" focusable="false">
        <Patterns />
        {parts.map(([kind, , mib]) => {
          const width = (1000 * mib) / total;
          const x = from;
          from += width;
          return mib > 0 ? <rect key={kind} class={`part ${kind}`} x={x} y="0" width={width} height="24" /> : null;
        })}
      </svg>
      <dl class="inline parts">
        {parts.map(([kind, name, mib]) => (
          <div key={kind}>
            <dt>
              <Swatch kind={kind} />
              {name}
            </dt>
            <dd class="num">
              {gib(mib)} <span class="soft">GiB</span>
            </dd>
          </div>
        ))}
        <div>
          <dt>Total</dt>
          <dd class="num">
            {gib(memory.total)} <span class="soft">GiB</span>
          </dd>
        </div>
      </dl>
    </div>
  );
}

/** Hatching: the parts differ without colours, too. */
function Patterns() {
  return (
    <defs>
      <pattern id="hatch" width="12" height="24" patternUnits="userSpaceOnUse">
        <rect width="12" height="24" class="hatch-ground" />
        <rect width="5" height="24" class="hatch-line" />
      </pattern>
      <pattern id="dots" width="10" height="12" patternUnits="userSpaceOnUse">
        <rect width="10" height="12" class="dots-ground" />
        <rect x="2" y="3" width="4" height="5" class="dots-dot" />
      </pattern>
    </defs>
  );
}

function Swatch({ kind }: { kind: string }) {
  return (
    <svg class="swatch" viewBox="0 0 24 14" aria-hidden="true" focusable="false">
      <Patterns />
      <rect class={`part ${kind}`} width="24" height="14" rx="2" />
    </svg>
  );
}
