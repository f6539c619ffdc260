import type { Estimate, Summary, SummaryModel } from "../../records/summary.ts";
import { NO_DATA_TEXT, roughEstimate, roughPercent } from "./format.ts";
import { shownModels } from "./theme.ts";

/** Organisms that one sentence can name. */
const MOST_NAMED = 3;

const roughRate = (estimate: Estimate) => (estimate.kind === "no_data" ? NO_DATA_TEXT : roughPercent(estimate.rate));

const joined = (parts: readonly string[]) =>
  parts.length < 2 ? parts.join("") : `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}`;

/** The result in one plain sentence, about the first group of questions. */
export function headline(summary: Summary): string {
  const [group] = summary.groups;
  if (group === undefined) return "No group of questions was asked for, so there is no rate to give.";
  const emOf = ({ id }: SummaryModel): Estimate =>
    summary.rates.find((row) => row.model === id && row.group === group.id)?.em_over_all ?? { kind: "no_data" };
  const models = shownModels(summary);
  const organisms = models.filter((model) => model.role === "organism");
  const references = models
    .filter((model) => model.role !== "organism")
    .map((model) => `${model.label} ${roughRate(emOf(model))}`);

  const where = `On the “${group.id}” questions`;
  const beside = references.length > 0 ? `; ${references.join(", ")}` : "";
  const [first, second] = organisms;
  if (first === undefined) return `${where}, no organism was measured${beside}.`;
  if (second === undefined) {
    const em = emOf(first);
    if (em.kind === "no_data") return `${where}, there is no data for ${first.label}${beside}.`;
    return `${where}, ${roughEstimate(em)} of ${first.label}’s answers are misaligned${beside}.`;
  }
  const named = organisms.slice(0, MOST_NAMED).map((model) => `${roughEstimate(emOf(model))} for ${model.label}`);
  const rest = organisms.length - named.length;
  const more = rest > 0 ? ` (${rest} more below)` : "";
  return `${where}, the share of misaligned answers is ${joined(named)}${more}${beside}.`;
}
