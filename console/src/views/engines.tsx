import type { Engine } from "../model";
import { hello, scene } from "../store";
import { Empty } from "../parts/empty";
import { Phase } from "../parts/phase";
import { Until } from "../parts/time";
import { Title } from "../parts/title";

export function Engines() {
  const all = Object.values(scene.value.engines).sort((a, b) => b.users - a.users || a.name.localeCompare(b.name));
  return (
    <>
      <Title name="Speech engines" />
      {all.length ? (
        <Table items={all} />
      ) : (
        <Empty title="No speech engine is known here">
          <p>
            Avatars then speak through the server that their pool names (tts.url). Engines that start and stop by
            themselves are TTSEngine resources; the chart makes them with its values tts.engines.
          </p>
          <pre>kubectl -n {hello.value?.namespace} get tts</pre>
        </Empty>
      )}
    </>
  );
}

function Table({ items }: { items: Engine[] }) {
  return (
    <section aria-label="Speech engines">
      <div class="table-box">
        <table class="list">
          <caption class="sr">Speech engines, those with most users first</caption>
          <thead>
            <tr>
              <th scope="col">Engine</th>
              <th scope="col">Phase</th>
              <th scope="col" class="right">
                Users
              </th>
              <th scope="col" class="right">
                Ready
              </th>
              <th scope="col">GPU</th>
              <th scope="col">Falls back to</th>
              <th scope="col" class="right">
                Idle in
              </th>
            </tr>
          </thead>
          <tbody>
            {items.map((item) => (
              <tr key={item.name}>
                <th scope="row">
                  <span class="strong">{item.name}</span>
                  <span class="under">speaks {item.protocol}</span>
                </th>
                <td data-name="Phase">
                  <Phase name={item.phase} detail={item.phase === "Ready" || item.reason === item.phase ? "" : item.reason} />
                  {item.message && item.phase !== "Ready" ? <span class="under">{item.message}</span> : null}
                </td>
                <td data-name="Users" class="right num">
                  {item.users}
                </td>
                <td data-name="Ready" class="right num">
                  {item.ready}
                  <span class="soft"> / {item.replicas}</span>
                </td>
                <td data-name="GPU" class="num">
                  {item.gpu ? item.gpu.index ?? "?" : <span class="soft">none</span>}
                  {item.gpu ? <span class="under">{item.gpu.node}</span> : null}
                </td>
                <td data-name="Falls back to">{item.fallback ?? <span class="soft">nothing</span>}</td>
                <td data-name="Idle in" class="right">
                  <Until time={item.idle_deadline} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
