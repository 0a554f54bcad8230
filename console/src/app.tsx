import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { token } from "./account";
import { at, span } from "./format";
import { route, type Route } from "./route";
import { connect, heard, hello, link, now, problem, role, scene, signOut, stale, trouble } from "./store";
import { choose, theme, type Theme } from "./theme";
import { EngineIcon, EventIcon, GpuIcon, Mark, OverviewIcon } from "./parts/icons";
import { Sayings } from "./parts/say";
import { Title } from "./parts/title";
import { AvatarPage } from "./views/avatar";
import { Engines } from "./views/engines";
import { Events } from "./views/events";
import { Gpus } from "./views/gpus";
import { Login } from "./views/login";
import { Overview } from "./views/overview";

export function App() {
  if (link.value === "login" || link.value === "refused" || link.value === "entering") return <Login />;
  return (
    <div class="shell">
      <a
        class="skip"
        href="#main"
        onClick={(event) => {
          // The part after # is the view's.
          event.preventDefault();
          document.querySelector<HTMLElement>("h1")?.focus();
        }}
      >
        Skip to content
      </a>
      <div class="sidebar">
        <header class="top">
          <p class="brand">
            <Mark />
            <span>Avatars</span>
          </p>
          <p class="namespace" title="Namespace">
            {hello.value?.namespace ?? ""}
          </p>
          <Pulse />
        </header>
        <Navigation />
        <Footer />
      </div>
      <main id="main">
        <OutOfDate />
        {hello.value ? <View route={route.value} /> : <Connecting />}
      </main>
      <Sayings />
    </div>
  );
}

function View({ route }: { route: Route }) {
  switch (route.view) {
    case "overview":
      return <Overview />;
    case "gpus":
      return <Gpus />;
    case "engines":
      return <Engines />;
    case "events":
      return <Events />;
    case "avatar":
      return <AvatarPage name={route.name} />;
    default:
      return (
        <>
          <Title name="There is no such page" />
          <p>
            Go to the <a href="#/">overview</a>.
          </p>
        </>
      );
  }
}

function Navigation() {
  const { gpus, events } = scene.value;
  const alerts = Object.values(gpus).filter((gpu) => gpu.alerts.length || !gpu.healthy).length;
  const recent = now.value - 10 * 60_000;
  const warnings = Object.values(events).filter((e) => e.type === "Warning" && (at(e.at) ?? 0) > recent).length;
  return (
    <nav class="nav" aria-label="Views">
      <Item view="overview" href="#/" name="Overview" icon={<OverviewIcon />} />
      <Item view="gpus" href="#/gpus" name="GPUs" icon={<GpuIcon />} badge={alerts} badgeName="with alerts" />
      <Item view="engines" href="#/engines" name="Engines" icon={<EngineIcon />} />
      <Item view="events" href="#/events" name="Events" icon={<EventIcon />} badge={warnings} badgeName="warnings in ten minutes" />
    </nav>
  );
}

interface ItemProps {
  view: Route["view"];
  href: string;
  name: string;
  icon: ComponentChildren;
  badge?: number;
  badgeName?: string;
}

function Item({ view, href, name, icon, badge = 0, badgeName = "" }: ItemProps) {
  const here = route.value.view === view || (view === "overview" && route.value.view === "avatar");
  return (
    <a href={href} aria-current={route.value.view === view ? "page" : here ? "true" : undefined}>
      {icon}
      <span>{name}</span>
      {badge ? (
        <span class="badge num">
          {badge}
          <span class="sr"> {badgeName}</span>
        </span>
      ) : null}
    </a>
  );
}

function Pulse() {
  const words = stale.value ? "Out of date" : link.value === "live" ? "Live" : "Connecting";
  return (
    <p class={`pulse ${stale.value ? "stale" : link.value}`}>
      <span class="dot" aria-hidden="true" />
      {words}
    </p>
  );
}

const THEMES: [Theme, string][] = [
  ["auto", "System"],
  ["light", "Light"],
  ["dark", "Dark"],
];

function Footer() {
  return (
    <footer class="account">
      {hello.value ? (
        <p class="who">
          <span class="strong">{hello.value.subject || (hello.value.open ? "This machine" : "Signed in")}</span>
          <span class="tag">{role.value}</span>
        </p>
      ) : null}
      <fieldset class="themes">
        <legend class="sr">Colours</legend>
        {THEMES.map(([value, name]) => (
          <label key={value}>
            <input type="radio" name="theme" value={value} checked={theme.value === value} onChange={() => choose(value)} />
            <span>{name}</span>
          </label>
        ))}
      </fieldset>
      {token.value ? (
        <button type="button" class="plain" onClick={signOut}>
          Sign out
        </button>
      ) : hello.value?.open ? (
        <p class="soft small">No sign-in: this API answers to its own machine only.</p>
      ) : null}
    </footer>
  );
}

function OutOfDate() {
  const broken = link.value === "stale";
  return (
    <>
      <div aria-live="polite">
        {stale.value ? (
          <div class="banner">
            <p>
              <strong>Out of date.</strong>{" "}
              {broken
                ? `What you see was true once; ${problem.value || "the stream broke"}.`
                : `The API itself does not hear from Kubernetes: ${trouble.value}.`}{" "}
              Trying again by itself.
            </p>
            {broken ? (
              <button type="button" onClick={connect}>
                Try now
              </button>
            ) : null}
          </div>
        ) : null}
      </div>
      {broken ? <p class="soft since num">Last heard {span(now.value - skewed(heard.value))} ago</p> : null}
    </>
  );
}

/** A time of this machine on the API's clock. */
function skewed(ms: number): number {
  return ms + (now.value - Date.now());
}

function Connecting() {
  useEffect(() => {
    document.title = "Avatars";
  }, []);
  return (
    <div class="empty" role="status">
      <h1>{problem.value ? "The API does not answer" : "Connecting…"}</h1>
      {problem.value ? (
        <>
          <p>{problem.value.charAt(0).toUpperCase() + problem.value.slice(1)}. Trying again by itself.</p>
          <pre>kubectl get deployment -l app.kubernetes.io/component=api</pre>
          <button type="button" onClick={connect}>
            Try now
          </button>
        </>
      ) : null}
    </div>
  );
}
