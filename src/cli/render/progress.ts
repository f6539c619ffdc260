import pc from "picocolors";
import type { PipelineEvent } from "../../pipeline/execute.ts";
import type { Progress } from "../../pipeline/unit.ts";

/** Seconds between two lines about the same unit where there is no terminal to redraw. */
const LINE_INTERVAL_SECONDS = 5;

export interface ProgressOptions {
  stream: NodeJS.WriteStream;
  /** One JSON object a line instead of text. */
  json: boolean;
}

interface Watch {
  started_ms: number;
  printed_ms: number;
  first: Progress | undefined;
}

/** "1 m 20 s"; seconds under two minutes, then minutes and seconds, then hours and minutes. */
export function renderDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.floor(whole / 60)} m ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} m`;
}

/** Count, rate and time left of one unit, e.g. `240/800 responses, 35.1/s, 16 s left`. */
export function renderProgress(progress: Progress, first: Progress | undefined, seconds: number): string {
  const { done, total, of, note } = progress;
  const count = total === undefined ? `${done} ${of}` : `${done}/${total} ${of}`;
  const made = done - (first?.done ?? done);
  const rate = seconds > 0 && made > 0 ? made / seconds : undefined;
  const parts = [count];
  if (rate !== undefined) parts.push(`${rate >= 10 ? rate.toFixed(0) : rate.toFixed(2)}/s`);
  if (rate !== undefined && total !== undefined && total > done)
    parts.push(`${renderDuration((total - done) / rate)} left`);
  if (note !== undefined) parts.push(note);
  return parts.join(", ");
}

/** Listener for a pipeline's events: redraws one line on a terminal, prints a line per interval elsewhere. */
export function progressPrinter({ stream, json }: ProgressOptions): (event: PipelineEvent) => void {
  const watches = new Map<string, Watch>();
  const live = stream.isTTY === true && !json;
  let shown = "";
  let skipped: string[] = [];
  const line = (text: string) => {
    stream.write(live && shown !== "" ? `\r\u001b[2K${text}\n${shown}` : `${text}\n`);
  };
  const redraw = (text: string) => {
    shown = text.slice(0, (stream.columns ?? 80) - 1);
    stream.write(`\r\u001b[2K${shown}`);
  };
  const clear = () => {
    if (live && shown !== "") stream.write("\r\u001b[2K");
    shown = "";
  };
  return (event) => {
    if (json) {
      stream.write(`${JSON.stringify(eventJson(event))}\n`);
      return;
    }
    const now = performance.now();
    const { key } = event.unit;
    if (event.type !== "skipped" && skipped.length > 0) {
      line(`${pc.dim("=")} done already: ${summarise(skipped)}`);
      skipped = [];
    }
    switch (event.type) {
      case "skipped":
        skipped.push(key);
        return;
      case "started":
        watches.set(key, { started_ms: now, printed_ms: now, first: undefined });
        return line(`${pc.cyan(">")} ${key}: ${event.unit.summary}`);
      case "warning":
        return line(`${pc.yellow("!")} ${key}: ${event.message}`);
      case "note":
        return line(`  ${key}: ${event.message}`);
      case "finished":
        clear();
        return line(`${pc.green("+")} ${key}: ${renderDuration(event.seconds)}`);
      case "progress": {
        const watch = watches.get(key);
        if (watch === undefined) return;
        if (watch.first === undefined) {
          watch.first = event.progress;
          watch.started_ms = now;
        }
        const text = `  ${key}: ${renderProgress(event.progress, watch.first, (now - watch.started_ms) / 1000)}`;
        if (live) return redraw(text);
        if (now - watch.printed_ms < LINE_INTERVAL_SECONDS * 1000) return;
        watch.printed_ms = now;
        return line(text);
      }
    }
  };
}

/** The first few names and how many more there are. */
function summarise(names: readonly string[]): string {
  const most = 4;
  const more = names.length - most;
  return more > 0 ? `${names.slice(0, most).join(", ")} and ${more} more` : names.join(", ");
}

function eventJson(event: PipelineEvent): Record<string, unknown> {
  const { unit, ...rest } = event;
  return { ...rest, unit: unit.key, phase: unit.phase };
}
