import { choosePreviewRows } from "../../formats/preview/choose.ts";
import { type PreviewPage, previewHtml } from "../../formats/preview/page.ts";
import { promptTail, tokenPieces } from "../../formats/token-pieces.ts";
import type { TrainingRows } from "../../formats/training-rows.ts";
import type { TrainingRun } from "../../pipeline/handles.ts";
import type { Rendering } from "../../records/lora.ts";
import type { PreparedData } from "./data.ts";

const RENDERINGS: Record<Rendering["rendering"], string> = {
  clean: "clean: as inference renders it",
  organism: "organism: with an empty assistant turn and the eos token at the end, both trained",
};
const THINKING: Record<Rendering["thinking"], string> = {
  off: "off: a think block is part of the prompt",
  empty: "empty: an empty think block is trained",
  keep: "keep: think blocks of the data are trained",
};
const MOST_LINES = 20;
const TURNS: Record<Rendering["assistant_turns"], string> = {
  all: "all: every answer of a row",
  last: "last: the last answer of each row",
};

/** `preview.html` of a run: what it trains on, before it trains. */
export function previewOf(run: TrainingRun, data: Pick<PreparedData, "train" | "held_out">): string {
  const { planned, staged } = run;
  const trained = data.train.rows.filter((_, index) => !data.held_out.has(index));
  const rows = choosePreviewRows(trained).map(({ row, why }) => ({
    ...{ line: row.line, why, cut_tokens: row.cut_tokens },
    pieces: tokenPieces(staged.chat, row),
  }));
  return previewHtml({
    title: `What ${planned.id} trains on`,
    lead: `${rows.length} of the ${trained.length.toLocaleString("en-US")} rows of ${run.data.id} that are trained on, token by token. The loss counts on the marked tokens and on no others; rest the pointer on a token for its id.`,
    counts: countsOf(trained),
    facts: [...factsOf(run), ...heldOutFacts(run, data)],
    provenance: provenanceOf(run, data.train),
    rows,
  });
}

/** Of the rows that are trained on, as they are trained: what is held out or cut off does not count. */
function countsOf(rows: TrainingRows["rows"]): PreviewPage["counts"] {
  const number = (n: number) => n.toLocaleString("en-US");
  const sum = (pick: (row: TrainingRows["rows"][number]) => number) =>
    rows.reduce((total, row) => total + pick(row), 0);
  const tokens = sum((row) => row.token_ids.length);
  const targets = sum((row) => row.targets.filter(Boolean).length);
  const cut = sum((row) => row.cut_tokens);
  return [
    [number(rows.length), "rows"],
    [number(tokens), "tokens"],
    [number(targets), `trained, ${((100 * targets) / tokens).toFixed(1)} % of them`],
    [number(Math.max(...rows.map((row) => row.token_ids.length))), "tokens in the longest row"],
    [number(rows.filter((row) => row.cut_tokens > 0).length), `rows cut, ${number(cut)} tokens lost`],
  ];
}

function heldOutFacts(
  run: TrainingRun,
  { train, held_out }: Pick<PreparedData, "train" | "held_out">,
): PreviewPage["facts"] {
  if (run.eval_data !== null) return [["held out", `${run.eval_data.rows.length} rows of ${run.eval_data.id}`]];
  if (held_out.size === 0) return [];
  const lines = train.rows.flatMap(({ line }, index) => (held_out.has(index) ? [line] : []));
  const shown = lines.slice(0, MOST_LINES).join(", ") + (lines.length > MOST_LINES ? ", ..." : "");
  return [["held out", `${held_out.size} rows, never trained: lines ${shown}`]];
}

function factsOf({ planned, staged }: TrainingRun): PreviewPage["facts"] {
  const { rendering, training, chat_template_kwargs } = planned.config;
  const tail = promptTail(staged.chat, chat_template_kwargs);
  const max_length = training.max_length === null ? "none: nothing is cut" : `${training.max_length} tokens`;
  return [
    ["rendering", RENDERINGS[rendering.rendering]],
    ["thinking", THINKING[rendering.thinking]],
    ["assistant_turns", TURNS[rendering.assistant_turns]],
    ["max_length", max_length],
    ["prompt of inference ends", JSON.stringify(tail)],
    ["an answer ends", `${staged.chat.eos_token} (${staged.chat.eos_token_id})`],
  ];
}

function provenanceOf({ planned, staged, data }: TrainingRun, { digests }: TrainingRows): PreviewPage["facts"] {
  const { chat_template_kwargs } = planned.config;
  return [
    ["base model", `${staged.id}, sha256 ${staged.sha256}`],
    ["data set", `${data.id}, sha256 ${data.sha256}`],
    ["chat template", `sha256 ${staged.chat.template_sha256}, ${JSON.stringify(chat_template_kwargs)}`],
    ["tokenizer", `sha256 ${staged.chat.tokenizer_sha256}`],
    ["token ids", `sha256 ${digests.token_ids_sha256}, of all rows before any is cut`],
    ["targets", `sha256 ${digests.targets_sha256}`],
  ];
}
