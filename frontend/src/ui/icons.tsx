/** Icons as strokes on a 24 x 24 grid. Their meaning is in the text beside them or in the button's label. */

const PATHS = {
  accept: "M5 12.5l4.5 4.5L19 7.5",
  reject: "M6.5 6.5l11 11M17.5 6.5l-11 11",
  ignore: "M5 6l7 6-7 6zM18 6v12",
  undo: "M8.5 6L4.5 10l4 4M5 10h9a5 5 0 0 1 0 10h-3",
  back: "M8 7L4 11l4 4M4 11h10a6 6 0 0 1 6 6",
  forth: "M16 7l4 4-4 4M20 11H10a6 6 0 0 0-6 6",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  hand: "M8 12.5V6.2a1.4 1.4 0 0 1 2.8 0V11M10.8 11V4.7a1.4 1.4 0 0 1 2.8 0V11M13.6 11V6a1.4 1.4 0 0 1 2.8 0v6M16.4 12V8.5a1.4 1.4 0 0 1 2.8 0V14c0 4-2.4 6.5-6 6.5-3.2 0-4.6-1.3-6-3.9l-2.4-4.3c-.8-1.6 1-2.5 2-1.3L8 12.5",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6z",
  hidden:
    "M4 4l16 16M9.9 5.8A9 9 0 0 1 12 5.5c6 0 9.5 6.5 9.5 6.5a16 16 0 0 1-3.2 3.9M6.3 7.5A15.5 15.5 0 0 0 2.5 12S6 18.5 12 18.5a9 9 0 0 0 4-.9",
  box: "M5 5h14v14H5zM3.5 3.5h3v3h-3zM17.5 3.5h3v3h-3zM3.5 17.5h3v3h-3zM17.5 17.5h3v3h-3z",
  trash: "M4 7h16M9 7V4.5h6V7M6.5 7l1 13h9l1-13M10.5 11v5.5M13.5 11v5.5",
  clear: "M4 8V4h4M10.5 4h3M16 4h4v4M20 10.5v3M20 16v4h-4M13.5 20h-3M8 20H4v-4M4 13.5v-3M9 9l6 6M15 9l-6 6",
  help: "M9 9.2a3 3 0 1 1 4.3 2.7c-.9.4-1.3 1-1.3 2v.4M12 17.5v.1",
  save: "M5 4h11l3 3v13H5zM8 4v5h7V4M8 20v-6h8v6",
  chart: "M4 4v16h16M8 15l3.5-4 3 2.5L19 8",
  sliders: "M4 7h9M19 7h1M13 7a3 3 0 1 0 6 0a3 3 0 1 0-6 0M4 17h1M11 17h9M5 17a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
  pencil: "M4 20l1.2-4.6L16.6 4l3.4 3.4L8.6 18.8zM14 6.6l3.4 3.4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  grid: "M4 4h6.5v6.5H4zM13.5 4H20v6.5h-6.5zM4 13.5h6.5V20H4zM13.5 13.5H20V20h-6.5z",
  search: "M10.5 4a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM15.3 15.3L20.5 20.5",
  warning: "M12 4L2.5 20h19zM12 10v4.5M12 17.2v.1",
  arrow: "M7 17L17 7M9 7h8v8",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
