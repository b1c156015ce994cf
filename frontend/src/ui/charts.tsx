/** Small charts with their values as text. */

import { figure } from "../format";

const WIDTH = 280;
const HEIGHT = 72;
const PAD = 6;

export interface Value {
  name: string;
  value: number;
}

interface LineProps {
  title: string;
  values: Value[];
  /** The unit of the x axis: "round" or "version". */
  per: string;
  format?: (value: number) => string;
  top?: number;
}

export function LineChart({ title, values, per, format = figure, top }: LineProps) {
  if (!values.length) return null;
  const numbers = values.map(({ value }) => value);
  const high = top ?? (Math.max(...numbers) || 1);
  const low = Math.min(0, ...numbers);
  const x = (index: number) =>
    values.length === 1 ? WIDTH / 2 : PAD + (index / (values.length - 1)) * (WIDTH - 2 * PAD);
  const y = (value: number) => HEIGHT - PAD - ((value - low) / (high - low || 1)) * (HEIGHT - 2 * PAD);
  const last = values[values.length - 1]!;
  const points = values.map(({ value }, index) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`);
  const spoken = `${title}: ${values
    .map(({ name, value }) => `${per} ${name} ${format(value)}`)
    .slice(-12)
    .join(", ")}`;
  return (
    <figure class="chart">
      <figcaption>
        <span>{title}</span>
        <strong>{format(last.value)}</strong>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={spoken} preserveAspectRatio="none">
        <line class="axis" x1={0} x2={WIDTH} y1={y(low)} y2={y(low)} />
        <polygon class="area" points={`${x(0)},${y(low)} ${points.join(" ")} ${x(values.length - 1)},${y(low)}`} />
        <polyline class="line" points={points.join(" ")} />
        {values.map(({ name, value }, index) => (
          <line key={index} class="dot" x1={x(index)} x2={x(index)} y1={y(value)} y2={y(value)}>
            <title>{`${per} ${name}: ${format(value)}`}</title>
          </line>
        ))}
      </svg>
    </figure>
  );
}

export interface Part {
  name: string;
  kind: "kept" | "changed" | "deleted";
  value: number;
}

/** A stacked bar. Hidden from screen readers, because the table beside it has the figures. */
export function Bar({ parts }: { parts: Part[] }) {
  const whole = parts.reduce((sum, { value }) => sum + value, 0);
  if (!whole) return <span class="quiet">–</span>;
  let from = 0;
  return (
    <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      {parts.map(({ kind, value }) => {
        const width = (value / whole) * 100;
        const at = from;
        from += width;
        return width > 0 && <rect key={kind} class={kind} x={at} y={0} width={width} height={10} />;
      })}
    </svg>
  );
}
