/**
 * `npm run soak [-- kills | size]`: what is too long for `npm test`. Kills a run at 25 random moments and compares its results
 * with an undisturbed one's; takes a model of real size through every phase and measures time and peak memory.
 */
import { soakKills } from "./kills.ts";
import { soakSize } from "./size.ts";

/** Kills that must really hit a process. */
const KILLS = 25;

const only = process.argv[2];
if (only === undefined || only === "kills") await soakKills(KILLS, Number(process.env.SEED ?? 1));
if (only === undefined || only === "size") await soakSize();
