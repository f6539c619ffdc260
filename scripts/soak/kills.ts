import assert from "node:assert/strict";
import { Sandbox } from "../../test/helpers/cli.ts";
import { comparableResults, writeSmallExperiment } from "../../test/helpers/experiment.ts";
import { runAndKill, type Victim } from "../../test/helpers/kill.ts";

const VICTIMS: readonly Victim[] = ["driver", "bridge", "engine"];

/** Uniform numbers in [0, 1). Source: mulberry32 by Tommy Ettinger, public domain. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Kills (-9) one process of a running experiment at random moments until `kills` have hit; whenever the experiment gets through,
 * its results must equal an undisturbed run's, and a new one begins.
 */
export async function soakKills(kills: number, seed: number): Promise<void> {
  const next = random(seed);
  using calm = new Sandbox();
  const undisturbed = await calm.run("run", writeSmallExperiment(calm));
  assert.equal(undisturbed.code, 0, undisturbed.stderr);
  const expected = comparableResults(calm);
  console.log(`undisturbed: ${undisturbed.seconds.toFixed(1)} s, ${Object.keys(expected).length} files compared`);
  const hits: Record<Victim, number> = { driver: 0, bridge: 0, engine: 0 };
  const total = () => VICTIMS.reduce((sum, victim) => sum + hits[victim], 0);
  let finished = 0;
  while (total() < kills) {
    using rough = new Sandbox();
    const args = ["run", writeSmallExperiment(rough)];
    for (let through = false; !through; ) {
      const victim = VICTIMS[Math.floor(next() * VICTIMS.length)] as Victim;
      const after_ms = next() * undisturbed.seconds * 1000;
      const { outcome, hit } =
        total() < kills
          ? await runAndKill(rough, args, victim, after_ms)
          : { outcome: await rough.run(...args), hit: "nobody" as const };
      if (hit === "nobody") {
        assert.equal(outcome.code, 0, outcome.stderr);
        through = true;
      } else {
        hits[hit] += 1;
        console.log(`kill ${total()}/${kills}: ${hit} after ${(after_ms / 1000).toFixed(1)} s`);
      }
    }
    assert.deepEqual(comparableResults(rough), expected);
    finished += 1;
    console.log(`run ${finished} got through: equal to the undisturbed one`);
  }
  console.log(
    `${total()} kills (${VICTIMS.map((victim) => `${hits[victim]} ${victim}`).join(", ")}), ${finished} runs, all equal`,
  );
}
