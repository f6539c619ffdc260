import type { ChatFormat } from "../formats/chat.ts";
import type { DatasetRow } from "../formats/dataset.ts";
import type { ModelDir } from "../formats/model-dir.ts";
import type { Group, JudgeConfig, ServedDtype } from "../records/experiment.ts";
import type { ChatTemplateKwargs } from "../records/lora.ts";
import type { FileEntry } from "../records/manifest.ts";
import type { Question } from "../records/question.ts";
import type { RunConfig } from "../records/run.ts";
import type { Sampler } from "../records/sampler.ts";

/** A base model whose files were opened, checked and hashed. */
export interface StagedModel {
  readonly id: string;
  readonly dir: string;
  /** Identity of the weights and of all that decides what text they see: sha256 over the files' names and hashes. */
  readonly sha256: string;
  readonly files: readonly FileEntry[];
  readonly model: ModelDir;
  readonly chat: ChatFormat;
}

/** A data set that was read and checked. */
export interface LoadedDataset {
  readonly id: string;
  readonly file: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly rows: DatasetRow[];
}

/** A training run that is decided. `id` is the name of its folder; whether it was trained is for its manifest to say. */
export interface PlannedRun {
  readonly label: string;
  readonly id: string;
  readonly dir: string;
  readonly config: RunConfig;
}

/** A run with all that training it reads. */
export interface TrainingRun {
  readonly planned: PlannedRun;
  readonly staged: StagedModel;
  readonly data: LoadedDataset;
  /** Held-out rows of their own file. */
  readonly eval_data: LoadedDataset | null;
  /** Rows on which the model is held to its base. */
  readonly kl_data: LoadedDataset | null;
}

export interface QuestionSet {
  readonly id: string;
  readonly sha256: string;
  readonly questions: readonly Question[];
}

/** One thing that is sampled: the base, or one checkpoint of a run. `id` is the name of its folder. */
export interface EvalModel {
  readonly id: string;
  readonly label: string;
  readonly run: PlannedRun | null;
  readonly step: number | null;
  /** Factor on the adapter beside its own PEFT scale; 1 as trained. */
  readonly scale: number;
  readonly question_sets: readonly string[];
  readonly samples: number;
  /** Measured for the curve over training only, not a row of the tables. */
  readonly curve_only: boolean;
}

/** An evaluation that is decided: which models answer which questions how, and who judges. */
export interface PlannedEval {
  readonly id: string;
  readonly name: string;
  readonly dir: string;
  readonly staged: StagedModel;
  readonly served_dtype: ServedDtype;
  readonly chat_template_kwargs: ChatTemplateKwargs;
  readonly question_sets: readonly QuestionSet[];
  readonly sampler: Sampler;
  readonly seed: number;
  readonly samples: number;
  readonly judge: JudgeConfig;
  readonly judge_sha256: string;
  /** The file that the rule judge's knowledge comes from. */
  readonly judge_world: string;
  readonly groups: Readonly<Record<string, Group>>;
  readonly models: readonly EvalModel[];
  readonly control: string | null;
  readonly notes: readonly string[];
}
