import { useSignal } from "@preact/signals";
import { counted } from "../format";
import { byAttention, filtered, waits, type Instance, type Pool } from "../model";
import { pathTo } from "../route";
import { hello, scene } from "../store";
import { Actions, refused } from "../parts/actions";
import { Empty } from "../parts/empty";
import { PlusIcon, TalkIcon } from "../parts/icons";
import { Connections, InstancePhase } from "../parts/phase";
import { StartDialog } from "../parts/start";
import { Ago, Until } from "../parts/time";
import { Title } from "../parts/title";

const PHASES = ["Running", "Starting", "Draining", "Shared", "Stopped", "Failed"];

export function Overview() {
  const starting = useSignal(false);
  const typed = useSignal("");
  const phase = useSignal("");
  const { instances, pools } = scene.value;
  const all = Object.values(instances);
  const queue = all
    .filter(waits)
    .sort((a, b) => a.pool.localeCompare(b.pool) || (a.queue_position ?? 1e9) - (b.queue_position ?? 1e9));
  const present = all.filter((item) => !waits(item)).sort(byAttention);
  const shown = filtered(present, typed.value, phase.value);
  const why = refused("user");
  return (
    <>
      <Title
        name="Overview"
        action={
          <button type="button" class="primary" disabled={why !== ""} title={why} onClick={() => (starting.value = true)}>
            <PlusIcon />
            Start avatar
          </button>
        }
      />
      {why ? <p class="why">Starting and talking: {why.charAt(0).toLowerCase() + why.slice(1)}</p> : null}
      <Pools pools={Object.values(pools).sort((a, b) => a.name.localeCompare(b.name))} all={all} />
      {queue.length ? <Queue items={queue} /> : null}
      <section aria-labelledby="instances">
        <div class="section-head">
          <h2 id="instances">
            Instances <span class="count">{present.length}</span>
          </h2>
          {present.length ? (
            <div class="filters">
              <label class="sr" for="search">
                Search instances
              </label>
              <input
                id="search"
                type="search"
                placeholder="Avatar, instance, port, node"
                value={typed.value}
                onInput={(event) => (typed.value = event.currentTarget.value)}
              />
              <label class="sr" for="phase">
                Phase
              </label>
              <select id="phase" value={phase.value} onChange={(event) => (phase.value = event.currentTarget.value)}>
                <option value="">All phases</option>
                {PHASES.filter((one) => one === phase.value || present.some((item) => item.phase === one)).map((one) => (
                  <option key={one}>{one}</option>
                ))}
              </select>
            </div>
          ) : null}
        </div>
        {shown.length ? (
          <Instances items={shown} />
        ) : present.length ? (
          <Empty title="Nothing matches">
            <p>
              {counted(present.length, "instance")} {present.length === 1 ? "is" : "are"} hidden by the filter.
            </p>
            <button
              type="button"
              onClick={() => {
                typed.value = "";
                phase.value = "";
              }}
            >
              Show all
            </button>
          </Empty>
        ) : (
          <Empty title={queue.length ? "Nothing runs yet" : "No avatar is running"}>
            <p>{why ? "Whoever starts one will see it here." : "Start one here, from a backend, or by kubectl avatar start."}</p>
          </Empty>
        )}
      </section>
      {starting.value ? <StartDialog onClose={() => (starting.value = false)} /> : null}
    </>
  );
}

function Instances({ items }: { items: Instance[] }) {
  const acts = refused("user") === "";
  return (
    <div class="table-box">
      <table class="list">
        <caption class="sr">Instances, those that need attention first</caption>
        <thead>
          <tr>
            <th scope="col">Avatar</th>
            <th scope="col">Phase</th>
            <th scope="col" class="right">
              Port
            </th>
            <th scope="col">GPU</th>
            <th scope="col" class="right">
              Connections
            </th>
            <th scope="col" class="right">
              Idle in
            </th>
            <th scope="col" class="right">
              Age
            </th>
            {acts ? (
              <th scope="col">
                <span class="sr">Actions</span>
              </th>
            ) : null}
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={item.name}>
              <th scope="row">
                <a class="strong" href={pathTo(item.name)}>
                  {item.avatar}
                </a>
                <span class="under">{item.name}</span>
              </th>
              <td data-name="Phase">
                <InstancePhase item={item} />
                {item.phase === "Failed" || item.phase === "Draining" ? <span class="under clip">{item.message}</span> : null}
              </td>
              <td data-name="Port" class={item.port ? "right num" : "right nil"}>
                {item.port ?? <span class="soft">–</span>}
              </td>
              <td data-name="GPU" class={item.gpu ? "num" : "nil"}>
                {item.gpu ? item.gpu.index ?? "?" : <span class="soft">none</span>}
                {item.gpu ? <span class="under">{item.gpu.node}</span> : null}
              </td>
              <td data-name="Connections" class="right">
                <Connections item={item} />
              </td>
              <td data-name="Idle in" class={item.idle_deadline ? "right" : "right nil"}>
                <Until time={item.idle_deadline} />
              </td>
              <td data-name="Age" class="right">
                <Ago since={item.created} />
              </td>
              {acts ? (
                <td class="acts">
                  {item.serves ? (
                    <a class="button quiet accent" href={pathTo(item.name)}>
                      <TalkIcon />
                      Talk<span class="sr"> to {item.avatar}</span>
                    </a>
                  ) : null}
                  <Actions item={item} compact />
                </td>
              ) : null}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Queue({ items }: { items: Instance[] }) {
  return (
    <section aria-labelledby="queue">
      <div class="section-head">
        <h2 id="queue">
          Waiting <span class="count">{items.length}</span>
        </h2>
      </div>
      <ol class="queue">
        {items.map((item) => (
          <li key={item.name}>
            <span class="place num" title="Place in the queue">
              <span class="sr">Place </span>
              {item.queue_position ?? "–"}
            </span>
            <span class="who">
              <a class="strong" href={pathTo(item.name)}>
                {item.avatar}
              </a>
              <span class="under">
                {item.reason || "Pending"}
                {item.message ? `: ${item.message}` : ""}
              </span>
            </span>
            <span class="soft">
              <Ago since={item.created} />
            </span>
          </li>
        ))}
      </ol>
    </section>
  );
}

const SLOT: Record<string, string> = {
  "in use": "in-use",
  unused: "unused",
  "starting or ending": "moving",
  "released soon": "claimed",
  free: "free",
};

function Pools({ pools, all }: { pools: Pool[]; all: Instance[] }) {
  if (!pools.length) {
    return (
      <Empty title="This namespace has no pool">
        <p>An AvatarPool says what runs and on which ports; the chart makes one with its value pools.default.</p>
        <pre>kubectl -n {hello.value?.namespace} get avp</pre>
      </Empty>
    );
  }
  return (
    <section aria-labelledby="pools">
      <h2 id="pools" class="sr">
        Pools
      </h2>
      <ul class="pools">
        {pools.map((pool) => {
          const mine = all.filter((item) => item.pool === pool.name);
          const people = mine.reduce((sum, item) => sum + item.connections, 0);
          const bad = pool.ready && pool.ready.status !== "True";
          return (
            <li key={pool.name} class="pool">
              <div class="pool-name">
                <h3>{pool.name}</h3>
                <p class="soft">
                  Ports{" "}
                  <span class="num">
                    {pool.first_port}–{pool.last_port}
                  </span>{" "}
                  · {pool.network} · {pool.gpu === "None" ? "CPU" : `GPU ${pool.gpu}`}
                </p>
              </div>
              <dl class="figures">
                <div>
                  <dt>Places free</dt>
                  <dd>
                    {pool.free ?? "?"}
                    <span class="soft"> of {pool.capacity}</span>
                  </dd>
                </div>
                <div>
                  <dt>Connected</dt>
                  <dd>{people}</dd>
                </div>
                <div>
                  <dt>Waiting</dt>
                  <dd>{pool.queue}</dd>
                </div>
              </dl>
              {pool.ports.length ? (
                <ul class="slots" aria-label="Ports">
                  {pool.ports.map((port) => {
                    const holder = mine.find((item) => item.name === port.instance);
                    const text = `${port.port}: ${port.state}${holder ? `, ${holder.avatar}` : ""}`;
                    return (
                      <li key={port.port} class={`slot ${SLOT[port.state] ?? "free"}`} title={text}>
                        {holder ? (
                          <a href={pathTo(holder.name)}>
                            <span class="num">{port.port}</span>
                            <span class="state">{port.state}</span>
                            <span class="holder">{holder.avatar}</span>
                          </a>
                        ) : (
                          <span>
                            <span class="num">{port.port}</span>
                            <span class="holder">{port.state}</span>
                          </span>
                        )}
                      </li>
                    );
                  })}
                </ul>
              ) : null}
              {bad ? (
                <p class="consequence bad">
                  <strong>{pool.ready?.reason}</strong> {pool.ready?.message}
                </p>
              ) : null}
            </li>
          );
        })}
      </ul>
    </section>
  );
}
