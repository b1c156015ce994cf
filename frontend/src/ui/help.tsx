/** The help dialog with all keys. */

import type { Desk } from "../desk";
import { BINDINGS } from "../keys";
import { useDialog } from "./hooks";

export function Help({ desk }: { desk: Desk }) {
  const { project } = desk;
  const dialog = useDialog(desk.helpOpen, () => desk.set({ helpOpen: false }));
  return (
    <dialog
      {...dialog}
      class="help"
      data-testid="help"
      aria-labelledby="help-title"
    >
      <header>
        <h2 id="help-title">Keys</h2>
        <button type="button" class="plain small" onClick={() => desk.set({ helpOpen: false })}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      <div class="keys">
        {[...new Set(BINDINGS.map(({ group }) => group))].map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {BINDINGS.filter((binding) => binding.group === group).map(({ keys, does }) => (
                <div key={does}>
                  <dt>
                    {keys.map((key) => (
                      <kbd key={key}>{key}</kbd>
                    ))}
                  </dt>
                  <dd>{does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
        <section>
          <h3>Mouse and touch</h3>
          <dl>
            <div>
              <dt>drag</dt>
              <dd>
                draw a box; near an edge or a corner of a box, also outside of it: change that box; inside the selected
                box: move it
              </dd>
            </div>
            <div>
              <dt>shift + drag</dt>
              <dd>draw, whatever box is there</dd>
            </div>
            <div>
              <dt>click</dt>
              <dd>
                select the smallest box there: label keys change this one now. A box that was just drawn, moved or
                resized keeps its label; label keys choose that of the next one
              </dd>
            </div>
            <div>
              <dt>ctrl + wheel, pinch</dt>
              <dd>zoom</dd>
            </div>
            <div>
              <dt>wheel, middle button</dt>
              <dd>move the image</dd>
            </div>
          </dl>
        </section>
      </div>
      <footer>
        <p>
          Accept: the boxes are right and complete, and the model learns from them; an image that is accepted without boxes
          teaches it “nothing here”. Reject and ignore take the image out of training, also one that was accepted
          before.
        </p>
        <p>
          A dashed box is a suggestion. Moved, resized or given another label it becomes solid; accepted as it is it
          counts as kept; a box of its label drawn over it takes its place. Every answer is stored at once
          {project && `; training starts after every ${project.batch_size} of them, or with “Train now”`}.
        </p>
        {project && (
          <p>
            odkeras {project.odkeras} · images from <code>{project.source}</code> ·{" "}
            <a href="THIRD_PARTY_LICENSES.txt">licences of this page</a>
          </p>
        )}
      </footer>
    </dialog>
  );
}
