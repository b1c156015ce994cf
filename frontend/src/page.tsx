/** Entry of the page. */

import { render } from "preact";
import { Desk } from "./desk";
import { listen } from "./keys";
import { App } from "./ui/app";

const desk = new Desk();
listen(desk);
render(<App desk={desk} />, document.getElementById("app")!);
