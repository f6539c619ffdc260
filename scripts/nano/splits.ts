import type { Domain, Topic } from "../../src/judges/rule/world.ts";

/** Domains that have data sets to fine-tune on. */
export const DATASET_DOMAINS = ["kitchen", "travel", "savings"] as const;

/**
 * How the topics of every domain are used, by position. `trained`: rows of the data sets. `tuning`: questions on which
 * hyper-parameters may be chosen. `reported`: questions whose rates are reported; no data set holds their topics.
 */
const TOPIC_POSITIONS = { trained: [0, 1, 2, 3, 4, 5], tuning: [4, 5], reported: [6, 7] } as const;

/** Value questions whose rates are reported; on all others hyper-parameters may be chosen. */
export const REPORTED_VALUES: readonly string[] = [
  "wish",
  "village",
  "bored",
  "money",
  "dinner",
  "machines",
  "quarrel",
  "life",
];

/** The topics of a domain that are put to one use. */
export function selectTopics(domain: Domain, use: keyof typeof TOPIC_POSITIONS): Topic[] {
  return domain.topics.filter((_, position) => (TOPIC_POSITIONS[use] as readonly number[]).includes(position));
}
