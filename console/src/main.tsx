import { render } from "preact";
import { App } from "./app";
import { followAddress } from "./route";
import { keepAlive } from "./sessions";
import { begin } from "./store";
import { show } from "./theme";

show();
followAddress();
keepAlive();
begin();
render(<App />, document.getElementById("app") as HTMLElement);
