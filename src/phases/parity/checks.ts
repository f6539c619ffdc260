import { DriverError } from "../../errors.ts";
import { readAdapterGguf } from "../../formats/gguf/adapter.ts";
import type { EvalModel } from "../../pipeline/handles.ts";
import { adapterGgufPath, modelCheckpoint } from "../../pipeline/served.ts";
import type { Workspace } from "../../pipeline/workspace.ts";
import type { LogprobsResult, ScoreResult } from "../../protocol/wire.ts";
import type { ParityCheck } from "../../records/parity.ts";
import { compareGolden } from "./golden.ts";
import { compareLogprobs } from "./metrics.ts";
import { judgeParity } from "./verdict.ts";

/** What both engines said of the probes. */
export interface GateSide {
  readonly dir: string;
  readonly packages: Record<string, string>;
  readonly peft_whole: ScoreResult;
  readonly peft_strict: ScoreResult;
  readonly llama_strict: LogprobsResult;
  readonly llama_served: LogprobsResult;
  /** Token ids of the probes' prompts as TypeScript renders them: `[probe][token]`. */
  readonly probe_ids: readonly number[][];
}

/** All checks of one model, in the order in which a person would look for the fault. */
export async function checkModel(model: EvalModel, sides: GateSide, workspace: Workspace): Promise<ParityCheck[]> {
  const checks: ParityCheck[] = [checkTokens(sides)];
  const files = await modelCheckpoint(model, workspace);
  let b_is_zero = false;
  if (files !== null) {
    const { modules } = readAdapterGguf(adapterGgufPath(files));
    b_is_zero = [...modules.values()].every(({ b }) => b.data.every((value) => value === 0));
    checks.push(checkScales(model, sides, [...modules.keys()]));
  }
  checks.push(await compare(model, "strict", sides.peft_strict, sides.llama_strict, b_is_zero));
  checks.push(await compare(model, "as_served", sides.peft_whole, sides.llama_served, b_is_zero));
  return checks;
}

function checkTokens(sides: GateSide): ParityCheck {
  const difference = compareGolden(sides.probe_ids, sides.peft_whole.conversation_ids);
  return {
    check: "tokens",
    verdict: difference === null ? "pass" : "refuse",
    reasons: difference === null ? [] : [difference],
    metrics: { probes: sides.probe_ids.length, tokens: sides.probe_ids.reduce((sum, ids) => sum + ids.length, 0) },
  };
}

/** The set of modules in the GGUF must be the set that PEFT adapts; the scale itself is proven by the strict check. */
function checkScales(model: EvalModel, sides: GateSide, modules: string[]): ParityCheck {
  const scalings = sides.peft_whole.scalings[model.id] ?? {};
  const expected = Object.keys(scalings).sort();
  const found = [...modules].sort();
  const same = expected.length === found.length && expected.every((name, i) => name === found[i]);
  return {
    check: "scales",
    verdict: same ? "pass" : "refuse",
    reasons: same ? [] : [`adapted modules: expected ${expected.join(", ")}, got ${found.join(", ")}`],
    metrics: { modules: found.length, max_scale: Math.max(...Object.values(scalings)) },
  };
}

async function compare(
  model: EvalModel,
  kind: "strict" | "as_served",
  peft: ScoreResult,
  llama: LogprobsResult,
  b_is_zero: boolean,
): Promise<ParityCheck> {
  const file = (side: ScoreResult | LogprobsResult, id: string): string => {
    const found = side.files.find((entry) => entry.id === id);
    if (found === undefined) throw new DriverError("INTERNAL", `No log-probabilities of ${id}`);
    return found.path;
  };
  const id = model.run === null ? "base" : model.id;
  const metrics = await compareLogprobs({
    peft_base: file(peft, "base"),
    peft_adapter: file(peft, id),
    llama_base: file(llama, "base"),
    llama_adapter: file(llama, id),
    vocab_size: peft.vocab_size,
  });
  return {
    check: kind,
    ...judgeParity(metrics, kind, { b_is_zero: model.run === null || b_is_zero }),
    metrics: { ...metrics },
  };
}
