import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { endOf, tidied } from "../account";
import { hello, link, problem, signIn, signOut } from "../store";
import { Mark } from "../parts/icons";

export function Login() {
  const typed = useSignal("");
  const complaint = useSignal("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    document.title = "Sign in · Avatars";
    field.current?.focus();
  }, []);
  const submit = (event: Event) => {
    event.preventDefault();
    const value = tidied(typed.value);
    const end = endOf(value);
    if (!value) complaint.value = "Paste a token first.";
    else if (!/^[\x21-\x7e]+$/.test(value)) complaint.value = "A token holds no spaces and no letters beyond ASCII.";
    else if (end !== null && end * 1000 < Date.now()) complaint.value = "This token has run out; get a new one.";
    else {
      complaint.value = "";
      signIn(value);
      return;
    }
    field.current?.focus();
  };
  const entering = link.value === "entering";
  useEffect(() => {
    if (problem.value) field.current?.select();
  }, [entering]);
  const told = complaint.value || (problem.value ? problem.value.charAt(0).toUpperCase() + problem.value.slice(1) : "");
  return (
    <main class="login" id="main">
      <form onSubmit={submit}>
        <Mark />
        <h1>Avatars</h1>
        {link.value === "refused" ? (
          <p>This token is good, but its role is not enough to look here: viewer is the least.</p>
        ) : (
          <p>Sign in with a token of the REST API.</p>
        )}
        <label for="token">Token</label>
        <input
          id="token"
          ref={field}
          type="password"
          autocomplete="off"
          spellcheck={false}
          value={typed.value}
          aria-invalid={told !== ""}
          aria-describedby="token-told token-hint"
          onInput={(event) => (typed.value = event.currentTarget.value)}
        />
        <p class="error" id="token-told" role="alert">
          {told}
        </p>
        <button type="submit" class="primary" disabled={entering}>
          {entering ? "Signing in…" : "Sign in"}
        </button>
        <p class="hint" id="token-hint">
          A JWT with sub, exp and a role (viewer, user or admin), or a Kubernetes token: kubectl create token NAME. It
          stays in this tab and is forgotten when you close it.
        </p>
        {hello.value ? (
          <button type="button" class="plain" onClick={signOut}>
            Start over
          </button>
        ) : null}
      </form>
    </main>
  );
}
