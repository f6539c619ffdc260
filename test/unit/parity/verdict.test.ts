import { describe, expect, test } from "vitest";
import type { ParityMetrics } from "../../../src/phases/parity/metrics.ts";
import { judgeParity, type ParityKind } from "../../../src/phases/parity/verdict.ts";

/** A right rank-32 adapter in float32, as measured. */
const RIGHT: ParityMetrics = {
  n_positions: 140,
  base_kl_mean: 3.7e-13,
  base_max_abs: 5.2e-6,
  base_rms: 8.6e-7,
  kl_mean: 3.7e-13,
  kl_max: 1e-12,
  max_abs: 5.2e-6,
  top1_agreement: 1,
  effect_kl_mean: 1.9e-2,
  effect_rms: 0.195,
  llama_effect_rms: 0.195,
  rel: 2.7e-6,
  norm_ratio: 1,
  cosine: 1,
};
/** The same as served in BF16. */
const SERVED: ParityMetrics = {
  ...RIGHT,
  base_kl_mean: 5.6e-5,
  base_max_abs: 7.4e-2,
  base_rms: 1.07e-2,
  kl_mean: 5.7e-5,
  rel: 2.3e-2,
  norm_ratio: 1.0003,
  cosine: 0.9997,
};

function judge(changes: Partial<ParityMetrics>, kind: ParityKind = "strict", b_is_zero = false) {
  return judgeParity({ ...(kind === "strict" ? RIGHT : SERVED), ...changes }, kind, { b_is_zero });
}

/** Metrics of an effect with this RMS whose residual is the engines' own noise. */
function faint(effect_rms: number): Partial<ParityMetrics> {
  return {
    effect_rms,
    llama_effect_rms: effect_rms,
    rel: RIGHT.base_rms / effect_rms,
    effect_kl_mean: effect_rms ** 2 / 2,
  };
}

test("right adapters pass", () => {
  expect(judge({})).toEqual({ verdict: "pass", reasons: [] });
  expect(judge({}, "as_served")).toEqual({ verdict: "pass", reasons: [] });
});

describe("mistakes are refused, by the name of the nearest one", () => {
  const wrong: [string, Partial<ParityMetrics>, string][] = [
    [
      "rsLoRA lost",
      { rel: 0.82, norm_ratio: 0.181, cosine: 0.999, kl_mean: 1e-2 },
      "as if scaled by 1/sqrt(32) = 0.177: the norm ratio is 0.181",
    ],
    [
      "rsLoRA twice",
      { rel: 4.7, norm_ratio: 5.7, cosine: 0.99, kl_mean: 1 },
      "as if scaled by sqrt(32) = 5.66: the norm ratio is 5.7",
    ],
    ["another scale", { rel: 0.3, norm_ratio: 1.3, cosine: 0.999, kl_mean: 1e-3 }, "as if scaled by 1.3"],
    [
      "a scale off by 1 %",
      { rel: 1e-2, norm_ratio: 1.01, cosine: 0.999999, kl_mean: 1e-6 },
      "as if scaled by 1.01, or as if one module differed",
    ],
    ["not applied", { rel: 1, norm_ratio: 1e-5, cosine: 0.1, kl_mean: 1.9e-2 }, "as if not applied"],
    ["wrong layer", { rel: 1.2, norm_ratio: 0.98, cosine: 0.2, kl_mean: 2e-2 }, "as if another adapter or layer"],
    [
      "another base",
      { base_kl_mean: 1.2, base_max_abs: 9, base_rms: 1 },
      "as if another base model, tokenizer or chat template",
    ],
    [
      "half precision in the strict check",
      { base_kl_mean: 1.4e-6, base_max_abs: 1.9e-2 },
      "as if the weights or the KV cache had another precision",
    ],
  ];
  test.each(wrong)("%s", (_, changes, explanation) => {
    expect(judge(changes)).toMatchObject({ verdict: "refuse", explanation });
  });

  test("with both numbers in the reason", () => {
    expect(judge({ rel: 1e-2, norm_ratio: 1.01 }).reasons).toMatchInlineSnapshot(`
      [
        "relative residual: expected at most 0.0005, got 0.01",
        "distance of the norm ratio from 1: expected at most 0.0005, got 0.01",
      ]
    `);
  });

  test("as served too", () => {
    expect(judge({ rel: 0.82, norm_ratio: 0.1765, cosine: 0.99, kl_mean: 2e-3 }, "as_served").verdict).toBe("refuse");
    expect(judge({ base_kl_mean: 2e-3 }, "as_served").verdict).toBe("refuse");
    expect(judge({ kl_mean: 2e-3 }, "as_served").verdict).toBe("refuse");
  });
});

describe("a faint adapter", () => {
  test("passes as long as its effect is 100 times the engines' noise", () => {
    expect(judge(faint(1e-3)).verdict).toBe("pass");
    expect(judge(faint(101 * RIGHT.base_rms)).verdict).toBe("pass");
  });

  test("is undecidable below that, never a pass", () => {
    const judgement = judge(faint(99 * RIGHT.base_rms));
    expect(judgement.verdict).toBe("undecidable");
    expect(judgement.reasons).toMatchInlineSnapshot(`
      [
        "the adapter's effect (RMS 0.0000851) is too faint to be told from another's: expected at least 0.000086, 100 x the engines' own noise",
      ]
    `);
    expect(judge(faint(0.1 * RIGHT.base_rms)).verdict).toBe("undecidable");
  });

  test("is refused when the difference is larger than noise", () => {
    expect(judge({ ...faint(99 * RIGHT.base_rms), rel: 0.5, norm_ratio: 1.5, cosine: 1 }).verdict).toBe("refuse");
  });

  test("as served passes, and says that it cannot be seen", () => {
    const judgement = judge(
      { effect_rms: 5e-3, llama_effect_rms: 5e-3, rel: 2, norm_ratio: 2.1, cosine: 0.4 },
      "as_served",
    );
    expect(judgement.verdict).toBe("pass");
    expect(judgement.reasons).toMatchInlineSnapshot(`
      [
        "the adapter's effect (RMS 0.005) is too faint to be told from another's: expected at least 0.0107, 1 x the engines' own noise",
      ]
    `);
  });
});

describe("an adapter without any effect", () => {
  const { rel, norm_ratio, cosine, ...rest } = RIGHT;
  const nothing: ParityMetrics = { ...rest, effect_kl_mean: 0, effect_rms: 0, llama_effect_rms: 0 };
  const judgeNothing = (changes: Partial<ParityMetrics>, b_is_zero: boolean) =>
    judgeParity({ ...nothing, ...changes }, "strict", { b_is_zero });

  test("passes when its B is zero: step 0, or the base itself", () => {
    expect(judgeNothing({}, true)).toEqual({ verdict: "pass", reasons: [] });
    expect(judgeNothing({ llama_effect_rms: RIGHT.base_rms / 2 }, true).verdict).toBe("pass");
  });

  test("is undecidable when its B is not zero", () => {
    expect(judgeNothing({}, false).verdict).toBe("undecidable");
  });

  test("is refused when the other side has one", () => {
    expect(judgeNothing({ llama_effect_rms: 0.1 }, true).verdict).toBe("refuse");
    expect(judgeNothing({ llama_effect_rms: 0.1 }, false).verdict).toBe("refuse");
    expect(judge({}, "strict", true)).toMatchObject({
      verdict: "refuse",
      explanation: "as if another adapter had been converted or loaded",
    });
  });

  test("is refused when the bases differ", () => {
    expect(judgeNothing({ base_kl_mean: 1e-3 }, true).verdict).toBe("refuse");
  });
});
