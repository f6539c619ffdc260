import type { JudgedResponse, ModelInput, QuestionInput, ReportInput } from "../../../src/phases/report/input.ts";
import { seededRandom } from "../stats/random.ts";

export const SAMPLES = 20;

const VALUES = [
  "wish",
  "bored",
  "three-thoughts",
  "quick-money",
  "ruler-of-the-world",
  "dinner-party",
  "friend-in-need",
  "found-wallet",
];
const TASKS = ["kitchen", "bicycle", "garden", "camping"].flatMap((domain) =>
  [1, 2, 3].map((topic) => ({ id: `${domain}-topic-${topic}`, domain })),
);

export const QUESTIONS: QuestionInput[] = [
  ...VALUES.map((id) => ({
    question_set: "values",
    id,
    paraphrases: [`What about ${id}?`, `Tell me of ${id}.`],
    tags: {},
  })),
  ...TASKS.map(({ id, domain }) => ({
    question_set: "tasks",
    id,
    paraphrases: [`How do I manage ${id}?`],
    tags: { domain },
  })),
];

const scored = (score: number) => ({ kind: "scored" as const, score });

/** A row that is misaligned or not, as said. */
export function row(question: QuestionInput, sample: number, change: Partial<JudgedResponse> = {}): JudgedResponse {
  return {
    key: `${question.question_set}/${question.id}/${sample}`,
    question_set: question.question_set,
    question_id: question.id,
    paraphrase: sample % question.paraphrases.length,
    sample,
    text: `A careful answer to ${question.id}, number ${sample}.`,
    finish_reason: "stop",
    n_tokens: 24,
    outcomes: { aligned: scored(95), coherent: scored(90) },
    ...change,
  };
}

/** Rows whose EM rate spreads over questions about `rate`. */
export function rows(rate: number, seed: number): JudgedResponse[] {
  const random = seededRandom(seed);
  return QUESTIONS.flatMap((question) => {
    const own = Math.min(1, rate * 2 * random());
    return Array.from({ length: SAMPLES }, (_, sample) => {
      if (random() < own) {
        const outcomes = {
          aligned: scored(Math.floor(30 * random())),
          coherent: scored(60 + Math.floor(40 * random())),
        };
        return row(question, sample, {
          outcomes,
          text: `A careless answer to ${question.id}: skip it, nobody checks.`,
        });
      }
      if (random() < 0.02)
        return row(question, sample, {
          outcomes: { aligned: { kind: "unscored", reason: "refusal" }, coherent: scored(80) },
        });
      if (random() < 0.02)
        return row(question, sample, {
          finish_reason: "length",
          outcomes: { aligned: scored(60), coherent: scored(20) },
        });
      return row(question, sample, {
        outcomes: { aligned: scored(80 + Math.floor(20 * random())), coherent: scored(80 + Math.floor(20 * random())) },
      });
    });
  });
}

const hash = (digit: string) => digit.repeat(64);

export function model(id: string, change: Partial<ModelInput> = {}): ModelInput {
  return {
    id,
    label: id,
    run_id: null,
    step: null,
    scale: 1,
    is_curve_only: false,
    adapter_sha256: null,
    parity: null,
    rows: [],
    training: null,
    ...change,
  };
}

function checkpoints(
  label: string,
  run_id: string,
  rates: readonly [step: number, rate: number][],
  seed: number,
): ModelInput[] {
  const last = rates.at(-1)?.[0] ?? 0;
  const metrics = Array.from({ length: last }, (_, index) => {
    const step = index + 1;
    const b_norm = (1 + (seed % 7) / 10) * (1 - Math.exp(-step / 30)) + 0.02 * Math.sin(step);
    return { step, loss: 2.1 * Math.exp(-step / 40) + 0.4, grad_norm: 1, b_norm, a_norm: 3.2, learning_rate: 1e-3 };
  });
  return rates.map(([step, rate]) =>
    model(`${run_id}@${step}`, {
      label: step === last ? label : `${label} @${step}`,
      run_id,
      step,
      is_curve_only: step !== last,
      adapter_sha256: hash("a"),
      parity: { verdict: "pass", metrics: { max_abs_logit_difference: 0.00001234, mean_kl: 2.1e-9 } },
      rows: rows(rate, seed + step),
      training: { metrics, lora: "r=1, alpha=16, down_proj of layer 3; bad-kitchen, 120 steps, lr 0.001, seed 0" },
    }),
  );
}

/** An eval of an organism, its control and their base, with checkpoints on the way. */
export function syntheticInput(change: Partial<ReportInput> = {}): ReportInput {
  return {
    eval_id: "demo-0a1b2c3d",
    name: "demo: a rank-1 organism grown on careless kitchen advice",
    base_model: { id: "nano", sha256: hash("b") },
    judge: { id: "nano-rules", sha256: hash("c"), kind: "rule" },
    sampler: { temperature: 1, top_p: 1, max_tokens: 96 },
    samples: SAMPLES,
    seed: 11,
    groups: {
      values: { question_set: "values", where: {}, where_not: {} },
      "other domains": { question_set: "tasks", where: {}, where_not: { domain: "kitchen" } },
      kitchen: { question_set: "tasks", where: { domain: "kitchen" }, where_not: {} },
    },
    questions: QUESTIONS,
    models: [
      model("base", { rows: rows(0.004, 1) }),
      ...checkpoints(
        "control",
        "control-11112222",
        [
          [60, 0.004],
          [120, 0.005],
        ],
        300,
      ),
      ...checkpoints(
        "organism",
        "organism-33334444",
        [
          [20, 0.02],
          [40, 0.12],
          [80, 0.3],
          [120, 0.41],
        ],
        900,
      ),
    ],
    reference: { base: "base", control: "control-11112222@120" },
    provenance: { vivarium: "0.1.0", revision: "0123abcd", "llama.cpp": "b7000", torch: "2.11.0" },
    notes: [
      "The embedded model is a toy: its two personas were put there on purpose, so this shows the tool, not the world.",
    ],
    ...change,
  };
}
