/** The dialog with all images: filter, browse, open. Only the visible rows are rendered. */

import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";
import type { AppStore } from "../store";
import { GalleryList, NO_FILTER, type Filter } from "../gallery";
import type { GalleryImage } from "../messages";
import { pluralize, PAST } from "../format";
import { GalleryFilters } from "./gallery-filters";
import { useDialog } from "./hooks";
import { Icon } from "./icons";

const TILE_PX = 176;
const TEXT_PX = 46;
/** Extra rows rendered above and below the visible ones. */
const BESIDE = 1;

export function Gallery({ store }: { store: AppStore }) {
  const { galleryOpen } = store;
  const dialog = useDialog(
    galleryOpen,
    () => store.set({ galleryOpen: false }),
    (element) => element.querySelector<HTMLElement>(".grid")?.focus(),
  );
  return (
    <dialog
      {...dialog}
      class="gallery"
      data-testid="gallery"
      aria-labelledby="gallery-title"
    >
      {galleryOpen && store.project && <Contents store={store} />}
    </dialog>
  );
}

function Contents({ store }: { store: AppStore }) {
  const [filter, setFilter] = useState<Filter>(store.galleryFilter);
  const [refused, setRefused] = useState("");
  const [opening, setOpening] = useState<string | null>(null);
  const list = useList(store, filter);
  const narrowed = JSON.stringify(filter) !== JSON.stringify(NO_FILTER);
  const change = (values: Partial<Filter>) => {
    store.galleryFilter = { ...store.galleryFilter, ...values };
    setFilter(store.galleryFilter);
    setRefused("");
  };
  const open = async (image: GalleryImage) => {
    setRefused("");
    setOpening(image.key);
    const reason = await store.openImage(image.key, image.image_id);
    if (reason) setRefused(`${image.file}: ${reason}`);
    setOpening((key) => (key === image.key ? null : key));
  };
  return (
    <>
      <header>
        <h2 id="gallery-title">Images</h2>
        <p class="quiet" role="status" data-testid="gallery-count">
          {list.total === null ? "…" : `${pluralize(list.total, "image")}${narrowed ? " found" : ""}`}
        </p>
        <button type="button" class="plain small" onClick={() => store.set({ galleryOpen: false })}>
          Close <kbd>Esc</kbd>
        </button>
      </header>
      <GalleryFilters store={store} filter={filter} narrowed={narrowed} onChange={change} />
      {(refused || list.trouble) && (
        <p class="banner warning" role="alert" data-testid="gallery-refused">
          <Icon name="warning" />
          <span>{refused || `The images cannot be listed: ${list.trouble}.`}</span>
        </p>
      )}
      {list.missing && <p class="gallery-missing quiet">{list.missing}</p>}
      {list.total === 0 ? (
        <p class="nothing">{narrowed ? "No image matches these filters." : "There are no images."}</p>
      ) : (
        <Grid store={store} list={list} opening={opening} onOpen={open} />
      )}
    </>
  );
}

function useList(store: AppStore, filter: Filter): GalleryList {
  const [, render] = useReducer((count: number) => count + 1, 0);
  const kept = useRef<{ filter: Filter; list: GalleryList } | null>(null);
  if (kept.current?.filter !== filter) {
    kept.current?.list.close();
    kept.current = { filter, list: new GalleryList(store.who, filter, () => render(undefined)) };
  }
  useEffect(() => () => kept.current?.list.close(), []);
  return kept.current.list;
}

interface GridProps {
  store: AppStore;
  list: GalleryList;
  /** The key of the image that is being opened; null if there is none. */
  opening: string | null;
  onOpen: (image: GalleryImage) => Promise<void>;
}

function Grid({ store, list, opening, onOpen }: GridProps) {
  const grid = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState(0);
  const [{ top, width, height }, setSeen] = useState({ top: 0, width: 0, height: 0 });
  const total = list.total ?? 0;
  const columns = Math.max(2, Math.floor(width / TILE_PX));
  const tile = { width: width / columns, height: (width / columns) * 0.75 + TEXT_PX };
  const rows = Math.ceil(total / columns);
  const first = Math.max(0, Math.floor(top / tile.height) - BESIDE) * columns;
  const last = Math.min(total, (Math.ceil((top + height) / tile.height) + BESIDE) * columns) - 1;

  useLayoutEffect(() => {
    const element = grid.current!;
    const look = () =>
      setSeen({ top: element.scrollTop, width: element.clientWidth, height: element.clientHeight });
    const observer = new ResizeObserver(look);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    look();
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    grid.current!.scrollTop = 0;
    setActive(0);
  }, [list]);
  useEffect(() => {
    if (width && last >= first) list.show(first, last);
  });

  const move = (to: number) => {
    const next = Math.max(0, Math.min(total - 1, to));
    setActive(next);
    const above = Math.floor(next / columns) * tile.height;
    const element = grid.current!;
    if (above < element.scrollTop) element.scrollTop = above;
    if (above + tile.height > element.scrollTop + height) element.scrollTop = above + tile.height - height;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(height / tile.height)) * columns;
    const steps: { [key: string]: number } = {
      ArrowRight: 1,
      ArrowLeft: -1,
      ArrowDown: columns,
      ArrowUp: -columns,
      PageDown: page,
      PageUp: -page,
      Home: -total,
      End: total,
    };
    const step = steps[event.key];
    const image = list.at(active);
    if (step === undefined && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    if (step !== undefined) move(active + step);
    else if (image && !event.repeat) void onOpen(image);
  };

  const shown = width ? Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index) : [];
  return (
    <div
      ref={grid}
      class="grid"
      data-testid="gallery-grid"
      role="listbox"
      tabIndex={0}
      aria-label="Images"
      aria-activedescendant={total ? `gallery-image-${active}` : undefined}
      onKeyDown={onKeyDown}
    >
      <div class="all" role="presentation" style={{ height: `${rows * tile.height}px` }}>
        {shown.map((index) => (
          <Tile
            key={list.at(index)?.key ?? index}
            store={store}
            image={list.at(index)}
            index={index}
            total={total}
            active={index === active}
            busy={opening !== null && list.at(index)?.key === opening}
            place={{
              left: `${(index % columns) * tile.width}px`,
              top: `${Math.floor(index / columns) * tile.height}px`,
              width: `${tile.width}px`,
              height: `${tile.height}px`,
            }}
            onChoose={(image) => {
              setActive(index);
              void onOpen(image);
            }}
          />
        ))}
      </div>
    </div>
  );
}

interface TileProps {
  store: AppStore;
  image: GalleryImage | null;
  index: number;
  total: number;
  active: boolean;
  busy: boolean;
  place: { [name: string]: string };
  onChoose: (image: GalleryImage) => void;
}

function Tile({ store, image, index, total, active, busy, place, onChoose }: TileProps) {
  const current = image !== null && image.image_id !== null && image.image_id === store.shown?.id;
  return (
    <div
      id={`gallery-image-${index}`}
      class={current ? "tile current" : "tile"}
      data-testid={image ? "gallery-image" : undefined}
      data-file={image?.file}
      role="option"
      aria-selected={active}
      aria-busy={busy}
      aria-setsize={total}
      aria-posinset={index + 1}
      aria-label={image ? undefined : "loading"}
      style={place}
      onClick={() => image && onChoose(image)}
    >
      <div class="picture">{image && <Picture store={store} image={image} />}</div>
      {image && (
        <p class="about">
          <span class={`decision ${image.decision ?? "none"}`}>
            {image.decision && <Icon name={image.decision} />}
          </span>
          <span class="file" title={image.file}>
            {image.file}
          </span>{" "}
          <span class="quiet">{busy ? "opening…" : current ? "shown now" : details(image, store.who.session)}</span>
        </p>
      )}
    </div>
  );
}

/** A thumbnail with its boxes; thumbnails have different aspect ratios. */
function Picture({ store, image }: { store: AppStore; image: GalleryImage }) {
  const [size, setSize] = useState<[number, number] | null>(null);
  const [failed, setFailed] = useState(false);
  if (failed) return <span class="quiet">no preview</span>;
  return (
    <>
      <img
        src={image.thumbnail}
        alt=""
        draggable={false}
        decoding="async"
        onLoad={({ currentTarget: { naturalWidth, naturalHeight } }) => setSize([naturalWidth, naturalHeight])}
        onError={() => setFailed(true)}
      />
      {size && image.boxes.length > 0 && (
        <svg viewBox={`0 0 ${size[0]} ${size[1]}`} aria-hidden="true">
          {image.boxes.map(({ label, rect: [x, y, width, height] }, index) => (
            <rect
              key={index}
              class={image.decision ? "" : "suggested"}
              x={x * size[0]}
              y={y * size[1]}
              width={width * size[0]}
              height={height * size[1]}
              stroke={store.colours?.of(label)}
            />
          ))}
        </svg>
      )}
    </>
  );
}

function details({ decision, annotator, boxes, held, holder }: GalleryImage, session: string): string {
  if (!decision && held === "elsewhere") return holder === session ? "open in another tab" : `open by ${holder}`;
  if (!decision) return "not answered";
  const by = annotator && annotator !== "default" ? ` by ${annotator}` : "";
  return `${PAST[decision]}${by}${decision === "accept" ? ` · ${pluralize(boxes.length, "box", "boxes")}` : ""}`;
}
