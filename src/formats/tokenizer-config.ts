import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { DriverError } from "../errors.ts";

const Token = z.union([z.string(), z.looseObject({ content: z.string() })]).nullish();
const NamedTemplate = z.looseObject({ name: z.string(), template: z.string() });
const TokenizerConfig = z.looseObject({
  bos_token: Token,
  eos_token: Token,
  pad_token: Token,
  unk_token: Token,
  sep_token: Token,
  cls_token: Token,
  mask_token: Token,
  chat_template: z.union([z.string(), z.array(NamedTemplate)]).nullish(),
});
type TokenizerConfig = z.output<typeof TokenizerConfig>;

/** Source: transformers 5 `tokenization_utils_base.py` `SPECIAL_TOKENS_ATTRIBUTES`. */
const NAMED_TOKENS = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
] as const;
export type NamedToken = (typeof NAMED_TOKENS)[number];

function readTokenizerConfig(dir: string): TokenizerConfig {
  const file = join(dir, "tokenizer_config.json");
  if (!existsSync(file)) throw refuse(file, "expected a file, got nothing there");
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw refuse(file, `expected JSON, got an error: ${(error as Error).message}`);
  }
  const parsed = TokenizerConfig.safeParse(json);
  if (parsed.success) return parsed.data;
  throw refuse(file, `${parsed.error.issues[0]?.path.join(".")}: ${parsed.error.issues[0]?.message}`);
}

function refuse(file: string, message: string): DriverError {
  return new DriverError("MODEL_INVALID", `Cannot read ${file}: ${message}`, {
    hint: "Use a folder as save_pretrained of the tokenizer writes it.",
    facts: { file },
  });
}

/** The named special tokens that are set; transformers gives the template these and no others. */
export function specialTokens(dir: string): Partial<Record<NamedToken, string>> {
  const config = readTokenizerConfig(dir);
  const tokens: Partial<Record<NamedToken, string>> = {};
  for (const name of NAMED_TOKENS) {
    const token = config[name];
    if (token !== null && token !== undefined) tokens[name] = typeof token === "string" ? token : token.content;
  }
  return tokens;
}

/**
 * The chat template: chat_template.jinja if there is one, else the entry of tokenizer_config.json ("default" of a list).
 * Line ends are `\n`, as Python reads them.
 */
export function readTemplate(dir: string): string | undefined {
  const file = join(dir, "chat_template.jinja");
  if (existsSync(file)) return readFileSync(file, "utf8").replace(/\r\n?/g, "\n");
  const { chat_template } = readTokenizerConfig(dir);
  if (!Array.isArray(chat_template)) return chat_template ?? undefined;
  return chat_template.find(({ name }) => name === "default")?.template;
}
