import { DriverError } from "../../errors.ts";
import { heldOutRows } from "../../formats/held-out.ts";
import { type TrainingRows, trainingRows } from "../../formats/training-rows.ts";
import type { LoadedDataset, TrainingRun } from "../../pipeline/handles.ts";
import type { DataReady } from "../../protocol/wire.ts";

/** What both sides must agree on before a step is made, for one of a run's data sets. */
export type ExpectedData = Omit<DataReady, "type">;

export interface PreparedData {
  /** All rows of the data file, those that test_size holds out included. */
  train: TrainingRows;
  /** Indices of the rows that test_size holds out. */
  held_out: ReadonlySet<number>;
  /** Rows of the held-out file that are trained on as well: their loss says nothing about others. */
  overlap: number;
  expected: readonly ExpectedData[];
}

/** Renders and tokenises a data set once, however many runs of a plan read it. */
export class RowCache {
  readonly #made = new Map<string, TrainingRows>();

  /** @throws {DriverError} `DATA_INVALID` with every fault of the file. */
  rows(run: TrainingRun, data: LoadedDataset): TrainingRows {
    const { rendering, chat_template_kwargs, training } = run.planned.config;
    const limits = { max_length: training.max_length, max_positions: run.staged.model.config.max_position_embeddings };
    const key = JSON.stringify([run.staged.sha256, data.sha256, data.file, rendering, chat_template_kwargs, limits]);
    const known = this.#made.get(key);
    if (known !== undefined) return known;
    const made = trainingRows(data.rows, data.file, run.staged.chat, chat_template_kwargs, rendering, limits);
    this.#made.set(key, made);
    return made;
  }

  /** All data sets of a run as the driver sees them. */
  prepare(run: TrainingRun): PreparedData {
    const train = this.rows(run, run.data);
    const expected: ExpectedData[] = [{ role: "train", ...train.digests }];
    const held_out_file = run.eval_data === null ? null : this.rows(run, run.eval_data);
    if (held_out_file !== null) expected.push({ role: "held_out", ...held_out_file.digests });
    if (run.kl_data !== null) expected.push({ role: "kl", ...this.rows(run, run.kl_data).digests });
    const { seed, test_size } = run.planned.config.training;
    const held_out = heldOutRows(seed, train.rows.length, test_size);
    const rows = held_out_file?.rows ?? train.rows.filter((_, index) => held_out.has(index));
    const trained = new Set(train.rows.filter((_, index) => !held_out.has(index)).map(rowKey));
    return { train, held_out, overlap: rows.filter((row) => trained.has(rowKey(row))).length, expected };
  }
}

const rowKey = ({ token_ids }: { token_ids: readonly number[] }): string => token_ids.join(" ");

/**
 * Both sides render and tokenise the data on their own; training goes on only if they agree on every token and target.
 *
 * @throws {DriverError} `TOKENS_DIFFER`: the model would be trained on another text than the one that is served.
 */
export function compareData(expected: readonly ExpectedData[], found: DataReady): void {
  const own = expected.find(({ role }) => role === found.role);
  if (own === undefined)
    throw new DriverError("INTERNAL", `The bridge read ${found.role} rows, which this run does not have`);
  const keys = Object.keys(own) as (keyof ExpectedData)[];
  const different = keys.filter((key) => own[key] !== found[key]);
  const [key] = different;
  if (key === undefined) return;
  throw new DriverError(
    "TOKENS_DIFFER",
    `The ${found.role} tokens of TypeScript and Python differ in ${different.join(", ")}: expected ${own[key]}, got ${found[key]}`,
    {
      hint: "The model's tokenizer or chat template means different things to the two libraries. Please report it.",
      facts: { expected: own, found },
    },
  );
}
