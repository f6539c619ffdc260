import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import pc from "picocolors";
import { DriverError } from "../../errors.ts";
import { type ChatFormat, loadChatFormat, thinkingKwargs } from "../../formats/chat.ts";
import { parseModelConfig } from "../../formats/model-config.ts";
import { promptTail, tokenPieces, visible } from "../../formats/token-pieces.ts";
import { type TokenRow, type TrainingRows, trainingRows } from "../../formats/training-rows.ts";
import type { LoadedDataset } from "../../pipeline/handles.ts";
import { type ChatTemplateKwargs, Rendering } from "../../records/lora.ts";
import { mergeRecipes } from "../../records/recipe.ts";
import { makeLibrary } from "../environment.ts";
import type { Io } from "../io.ts";
import { recipeFromFlags } from "../recipe-flags.ts";
import { count, legend, renderRow, rowHead } from "../render/rows.ts";
import { shortPath } from "../work.ts";

interface DataFlags {
  model: string;
  recipe?: string;
  rows?: number;
  row?: number;
  tokens?: boolean;
  set: string[];
}

/** A data set as a recipe renders it for a model. */
interface RenderedData {
  dataset: LoadedDataset;
  model: string;
  chat: ChatFormat;
  kwargs: ChatTemplateKwargs;
  rendering: Rendering;
  max_length: number | null;
  made: TrainingRows;
}

/** `vivarium data show`: rows with the trained tokens marked, then the totals. */
export async function show([[name = ""] = []]: string[][], flags: DataFlags, io: Io): Promise<unknown> {
  const data = await renderData(name, flags);
  const chosen = chooseRows(data, flags);
  const style = { color: pc.isColorSupported, borders: flags.tokens === true };
  io.say(`${legend(style)}\n`);
  for (const row of chosen) {
    const { line, token_ids, targets, cut_tokens } = row;
    const n_targets = targets.filter((target) => target).length;
    io.say(pc.bold(rowHead({ line, tokens: token_ids.length, targets: n_targets, cut_tokens })));
    io.say(`${renderRow(tokenPieces(data.chat, row), style)}\n`);
  }
  sayTotals(data, io);
  return { ...totals(data), shown: chosen.map((row) => ({ ...row, targets: row.targets.map(Number) })) };
}

/** `vivarium data check`: the totals, or every fault of the file. */
export async function check([[name = ""] = []]: string[][], flags: DataFlags, io: Io): Promise<unknown> {
  const data = await renderData(name, flags);
  sayTotals(data, io);
  return totals(data);
}

async function renderData(name: string, flags: DataFlags): Promise<RenderedData> {
  const own = recipeFromFlags({ set: flags.set });
  const library = makeLibrary();
  const found = await library.model(flags.model);
  const recipe = flags.recipe ?? found.config?.recipe;
  const { max_length, ...merged } = mergeRecipes([
    ...(recipe === undefined ? [] : [await library.recipe(recipe)]),
    own,
  ]);
  const { rendering, thinking, assistant_turns } = merged;
  const wish = Rendering.parse({ rendering, thinking, assistant_turns });
  const chat = await loadChatFormat(found.dir);
  const kwargs = thinkingKwargs(chat.template, thinking);
  const dataset = await library.dataset(name);
  const limits = { max_length, max_positions: maxPositions(found.dir) };
  const made = trainingRows(dataset.rows, dataset.file, chat, kwargs, wish, limits);
  return { dataset, model: found.id, chat, kwargs, rendering: wish, max_length, made };
}

/** Tokens that the model has positions for. Its weights need not be there: a tokenizer and config.json are enough. */
function maxPositions(dir: string): number {
  const file = join(dir, "config.json");
  const { config, problems } = existsSync(file)
    ? parseModelConfig(JSON.parse(readFileSync(file, "utf8")))
    : { config: null, problems: ["config.json is missing"] };
  if (config !== null) return config.max_position_embeddings;
  throw new DriverError("MODEL_INVALID", `Cannot use the model ${dir}: ${problems.join("; ")}`, {
    hint: "Use the folder of a dense Qwen2, Qwen2.5 or Qwen3 model, as save_pretrained writes it.",
    facts: { dir, problems },
  });
}

const FEW = 3;

/** @throws {DriverError} `USAGE` when the line has no row. */
function chooseRows({ made, dataset }: RenderedData, flags: DataFlags): TokenRow[] {
  if (flags.row === undefined) return made.rows.slice(0, flags.rows ?? FEW);
  const row = made.rows.find(({ line }) => line === flags.row);
  if (row !== undefined) return [row];
  const last = made.rows.at(-1)?.line;
  throw new DriverError("USAGE", `--row: expected the line of a row of ${shortPath(dataset.file)}, got ${flags.row}`, {
    hint: `Lines count from 1, as in an editor; the last row is on line ${last}.`,
  });
}

function sayTotals({ dataset, model, chat, kwargs, rendering, max_length, made }: RenderedData, io: Io): void {
  const { digests, longest_line } = made;
  const share = ((100 * digests.target_tokens) / digests.tokens).toFixed(1);
  const cut =
    max_length === null
      ? "none; max_length is null"
      : `${count(digests.truncated_rows, "row")} to max_length ${max_length}, ${count(digests.truncated_tokens, "token")} lost`;
  const lines = [
    ["data", `${shortPath(dataset.file)}, ${count(digests.rows, "row")}`],
    ["model", `${model}, ${rendering.rendering}, thinking ${rendering.thinking}, ${rendering.assistant_turns} turns`],
    [
      "tokens",
      `${digests.tokens.toLocaleString("en-US")}, ${digests.target_tokens.toLocaleString("en-US")} trained (${share} %)`,
    ],
    ["longest", `${count(digests.longest_row_tokens, "token")}, line ${longest_line}`],
    ["cut", cut],
    ["prompt ends", visible(JSON.stringify(promptTail(chat, kwargs)))],
  ];
  for (const [name = "", text] of lines) io.say(`${name.padEnd(13)}${text}`);
}

function totals({ dataset, model, kwargs, chat, rendering, max_length, made }: RenderedData): Record<string, unknown> {
  return {
    data: { id: dataset.id, file: dataset.file, sha256: dataset.sha256 },
    ...{ model, rendering, max_length, chat_template_kwargs: kwargs, prompt_tail: promptTail(chat, kwargs) },
    totals: { ...made.digests, longest_line: made.longest_line },
  };
}
