/** Entry of the page. */

import { render } from "preact";
import { AppStore } from "./store";
import { listen } from "./keys";
import { App } from "./ui/app";

const store = new AppStore();
listen(store);
render(<App store={store} />, document.getElementById("app")!);
