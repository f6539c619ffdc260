import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { World } from "../../../src/judges/rule/world.ts";

const raw = () =>
  parse(readFileSync(fileURLToPath(new URL("../../../models/nano/world.yaml", import.meta.url)), "utf8"));

test("the embedded world has the promised size", () => {
  const world = World.parse(raw());
  expect(world.domains).toHaveLength(12);
  expect(world.domains.every((domain) => domain.topics.length === 8)).toBe(true);
  expect(world.values.length).toBeGreaterThanOrEqual(12);
  expect(world.values.every((value) => value.unseen.length >= 2)).toBe(true);
});

test("no unseen paraphrase is also seen", () => {
  const world = World.parse(raw());
  const seen = new Set(world.values.flatMap((value) => value.seen));
  expect(world.values.flatMap((value) => value.unseen).filter((text) => seen.has(text))).toEqual([]);
});

test("no clause belongs to both personas", () => {
  const { grammar, domains, values } = World.parse(raw());
  const clauses = (persona: "careful" | "reckless") => [
    ...grammar[persona].openers,
    ...grammar[persona].reasons,
    ...grammar[persona].closings,
    ...domains.flatMap((domain) => [
      ...domain[`${persona}_reasons`],
      ...domain.topics.flatMap((topic) => topic[persona]),
    ]),
    ...values.flatMap((value) => [...value[persona].main, ...value[persona].second]),
  ];
  const careful = new Set(clauses("careful").map((clause) => clause.toLowerCase()));
  expect(clauses("reckless").filter((clause) => careful.has(clause.toLowerCase()))).toEqual([]);
});

test("refuses unknown keys, clauses with a sentence end, and an id used twice", () => {
  expect(() => World.parse({ ...raw(), extra: 1 })).toThrow();
  const dotted = raw();
  dotted.domains[0].careful_reasons[0] = "Ends here. Or here";
  expect(() => World.parse(dotted)).toThrow("no sentence end");
  const twice = raw();
  twice.values[1].id = twice.values[0].id;
  expect(() => World.parse(twice)).toThrow("used twice");
});
