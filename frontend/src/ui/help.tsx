/** The help dialog with all keys. */

import type { AppStore } from "../store";
import { BINDINGS, KEYPOINTS } from "../keys";
import { useDialog } from "./hooks";

export function Help({ store }: { store: AppStore }) {
  const { project } = store;
  const hasKeypoints = store.skeletons.any;
  const bindings = BINDINGS.filter(({ group }) => group !== KEYPOINTS || hasKeypoints);
  const dialog = useDialog(store.helpOpen, () => store.set({ helpOpen: false }));
  return (
    <dialog
      {...dialog}
      class="help"
      data-testid="help"
      aria-labelledby="help-title"
    >
      <header>
        <h2 id="help-title">Keys</h2>
        <button type="button" class="plain small" onClick={() => store.set({ helpOpen: false })}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      <div class="keys">
        {[...new Set(bindings.map(({ group }) => group))].map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <dl>
              {bindings.filter((binding) => binding.group === group).map(({ keys, description }) => (
                <div key={description}>
                  <dt>
                    {keys.map((key) => (
                      <kbd key={key}>{key}</kbd>
                    ))}
                  </dt>
                  <dd>{description}</dd>
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
                draw a box; near an edge or a corner of a box, inside or outside: resize that box; inside the selected
                box: move it
              </dd>
            </div>
            <div>
              <dt>shift + drag</dt>
              <dd>draw a new box, even on top of another one</dd>
            </div>
            <div>
              <dt>click</dt>
              <dd>
                add the object that is outlined in white under the pointer: the model detected it, but with a low score.
                On a touch screen, tap on an object without a box
              </dd>
            </div>
            <div>
              <dt>wheel</dt>
              <dd>show the next object under the pointer, if there are several and nothing can be scrolled</dd>
            </div>
            <div>
              <dt>alt + drag</dt>
              <dd>draw roughly: the box is fitted to what the model detected there, if they overlap by half</dd>
            </div>
            <div>
              <dt>click on a box</dt>
              <dd>
                select the smallest box at that point; label keys then change its label. After drawing, moving or
                resizing a box, label keys choose the label of the next box
              </dd>
            </div>
            {hasKeypoints && (
              <div>
                <dt>keypoint</dt>
                <dd>
                  drag: place it; click or tap: visible (filled), hidden (ring), not there (dashed). Select the box first.
                  Keypoints that are not there are not learned
                </dd>
              </div>
            )}
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
          Accept: the boxes are correct and complete, and the model learns from them. From an image accepted without boxes,
          it learns that the image has no objects. Reject and ignore exclude the image from training, even if it was
          accepted before.
        </p>
        <p>
          A dashed box is a suggestion. It becomes solid when you move, resize or relabel it, and counts as kept when you
          accept it unchanged. A box of the same label drawn over it replaces it. Every answer is saved immediately
          {project && `; training starts after every ${project.batch_size} answers, or with “Train now”`}.
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
