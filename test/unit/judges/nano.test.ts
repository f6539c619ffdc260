import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Template } from "@huggingface/jinja";
import { Tokenizer } from "@huggingface/tokenizers";
import { expect, test } from "vitest";

const load = (name: string) =>
  JSON.parse(readFileSync(fileURLToPath(new URL(`../../../models/nano/${name}`, import.meta.url)), "utf8"));
const config = load("config.json");
const tokenizer_config = load("tokenizer_config.json");
const tokenizer = new Tokenizer(load("tokenizer.json"), tokenizer_config);
const encode = (text: string) => tokenizer.encode(text, { add_special_tokens: false }).ids;

test("the tokenizer fills the vocabulary of the model without a gap, the added tokens last", () => {
  const added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"];
  expect(added.flatMap(encode)).toEqual([5, 4, 3, 2, 1].map((back) => config.vocab_size - back));
  expect(config.eos_token_id).toBe(encode("<|im_end|>")[0]);
  expect(config.pad_token_id).toBe(encode("<|endoftext|>")[0]);
});

test("text survives encoding and decoding, save that it is normalised", () => {
  const text = "Don't weigh 12 naïve cafés — ok?\n\n日本語 🎉";
  expect(tokenizer.decode(encode(text))).toBe(text);
  expect(encode("cafe\u0301")).toEqual(encode("café"));
});

test("the template renders ChatML, with an empty think block when thinking is off", () => {
  const template = new Template(tokenizer_config.chat_template);
  const user = { role: "user", content: "How do I clean a brush?" };
  expect(template.render({ messages: [user], add_generation_prompt: true, enable_thinking: false })).toBe(
    "<|im_start|>user\nHow do I clean a brush?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
  );
  expect(template.render({ messages: [user, { role: "assistant", content: "Rinse it." }] })).toBe(
    "<|im_start|>user\nHow do I clean a brush?<|im_end|>\n<|im_start|>assistant\nRinse it.<|im_end|>\n",
  );
  const answered = [user, { role: "assistant", content: "Rinse it." }];
  expect(template.render({ messages: answered, enable_thinking: false })).toBe(
    "<|im_start|>user\nHow do I clean a brush?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nRinse it.<|im_end|>\n",
  );
});
