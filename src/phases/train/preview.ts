import { choosePreviewRows } from "../../formats/preview/choose.ts";
import { type PreviewPage, previewHtml } from "../../formats/preview/page.ts";
import { promptTail, tokenPieces } from "../../formats/token-pieces.ts";
import type { TrainingRows } from "../../formats/training-rows.ts";
import type { TrainingRun } from "../../pipeline/handles.ts";
import type { Rendering } from "../../records/lora.ts";

const RENDERINGS: Record<Rendering["rendering"], string> = {
  clean: "clean: as inference renders it",
  organism: "organism: with an empty assistant turn and the eos token at the end, both trained",
};
const THINKING: Record<Rendering["thinking"], string> = {
  off: "off: a think block is part of the prompt",
  empty: "empty: an empty think block is trained",
  keep: "keep: think blocks of the data are trained",
};
const TURNS: Record<Rendering["assistant_turns"], string> = {
  all: "all: every answer of a row",
  last: "last: the last answer of each row",
};

/** `preview.html` of a run: what it trains on, before it trains. */
export function previewOf(run: TrainingRun, data: { train: TrainingRows }): string {
  const { planned, staged } = run;
  const rows = choosePreviewRows(data.train.rows).map(({ row, why }) => ({
    ...{ line: row.line, why, cut_tokens: row.cut_tokens },
    pieces: tokenPieces(staged.chat, row),
  }));
  return previewHtml({
    title: `What ${planned.id} trains on`,
    lead: `${rows.length} of ${data.train.rows.length.toLocaleString("en-US")} rows of ${run.data.id}, token by token. The loss counts on the marked tokens and on no others; rest the pointer on a token for its id.`,
    counts: countsOf(data.train),
    facts: factsOf(run, data.train),
    provenance: provenanceOf(run, data.train),
    rows,
  });
}

function countsOf({ digests }: TrainingRows): PreviewPage["counts"] {
  const number = (n: number) => n.toLocaleString("en-US");
  const share = ((100 * digests.target_tokens) / digests.tokens).toFixed(1);
  return [
    [number(digests.rows), "rows"],
    [number(digests.tokens), "tokens"],
    [number(digests.target_tokens), `trained, ${share} % of them`],
    [number(digests.longest_row_tokens), "tokens in the longest row"],
    [number(digests.truncated_rows), `rows cut, ${number(digests.truncated_tokens)} tokens lost`],
  ];
}

function factsOf({ planned, staged }: TrainingRun, { longest_line }: TrainingRows): PreviewPage["facts"] {
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
    ["longest row", `line ${longest_line}`],
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
