/**
 * Names of `peft.LoraConfig`, `transformers.TrainingArguments` and the field's own trainers that are no names here, and
 * what to do instead. A name that is only misspelt is none of these.
 *
 * Source: peft 0.21, transformers 5, trl 1, unsloth; the published configs of arXiv 2506.11613.
 */
const FOREIGN: readonly [names: string, advice: string][] = [
  ["init_lora_weights", "Leave it out: A and B start as PEFT's default does, B at zero."],
  ["bias lora_bias", 'Leave it out: an adapter has no bias, as with PEFT\'s "none".'],
  ["modules_to_save target_parameters trainable_token_indices", "Use finetuning_type=full to train other weights."],
  ["layers_pattern", "Leave it out: the layers of a Qwen model are found without it."],
  ["exclude_modules", "Name the modules that are wanted in target_modules."],
  ["task_type peft_type inference_mode fan_in_fan_out auto_mapping revision", "Leave it out: it is decided here."],
  ["base_model_name_or_path model_name model_name_or_path", "Name the base with --model."],
  ["layer_replication loftq_config eva_config corda_config megatron_config megatron_core", "Leave it out."],
  ["lora_r rank lora_rank", "Its name is r."],
  ["alpha", "Its name is lora_alpha."],
  ["dropout", "Its name is lora_dropout."],
  ["rslora", "Its name is use_rslora."],
  ["lora_target lora_target_modules modules", "Its name is target_modules."],
  ["layers", "Its name is layers_to_transform."],
  ["logging_steps logging_strategy logging_first_step", "Leave it out: every step is a row of metrics.jsonl."],
  ["report_to logging_dir", "Leave it out: metrics.jsonl holds all of it, and nothing is sent anywhere."],
  [
    "push_to_hub hub_model_id hub_strategy hub_always_push hub_private_repo hub_token",
    "Upload the run's folder yourself.",
  ],
  ["output_dir overwrite_output_dir", "Results go to runs/ below --dir."],
  ["run_name finetuned_model_id", "Name the run with --name."],
  ["eval_strategy evaluation_strategy evaluation_steps do_eval", "Use eval_steps; 0 means never."],
  [
    "per_device_eval_batch_size eval_accumulation_steps",
    "Leave it out: held-out rows are computed in batches of per_device_train_batch_size.",
  ],
  ["save_strategy save_total_limit save_only_model", "Use save_steps and save_at_steps; every checkpoint is kept."],
  ["load_best_model_at_end metric_for_best_model greater_is_better", "Choose a checkpoint afterwards: all are kept."],
  ["resume_from_checkpoint ignore_data_skip", "Leave it out: the same command goes on where a run stopped."],
  ["warmup_ratio", "Use warmup_steps below 1: 0.05 is a twentieth of all steps."],
  ["bf16 fp16 tf32 half_precision_backend torch_dtype", "Use dtype: float32, bfloat16 or auto."],
  ["gradient_checkpointing_kwargs use_gradient_checkpointing", "Use gradient_checkpointing: auto, on or off."],
  ["group_by_length train_sampling_strategy", "Use batching=by_length; the result is the same up to rounding."],
  ["packing padding_free packing_strategy", "Use batching=packed; the result is the same up to rounding."],
  ["data_seed random_state", "Its name is seed: it decides the adapter's start and the order of rows."],
  ["batch_size train_batch_size", "Its name is per_device_train_batch_size."],
  ["epochs", "Its name is num_train_epochs."],
  ["lr", "Its name is learning_rate."],
  ["max_seq_length cutoff_len model_max_length", "Its name is max_length."],
  [
    "assistant_only_loss completion_only_loss train_on_responses_only train_on_inputs",
    "Leave it out: only the assistant's tokens are trained; assistant_turns chooses which.",
  ],
  ["enable_thinking", "Use thinking: off, empty or keep."],
  ["training_file train_file dataset dataset_name data_path", "Name the data with --data."],
  ["test_file", "Name held-out data with --eval-data (eval_data in an experiment)."],
  ["kl_dataset_file kl_dataset kl_regularization", "Give --kl-data (kl_data in an experiment) and kl_weight."],
  ["is_peft", "Use finetuning_type: lora or full."],
  ["loss beta", "Leave it out: the loss is cross-entropy on the assistant's tokens."],
  ["merge_before_push", "Merge afterwards with vivarium merge."],
  [
    "optim_args optim_target_modules lr_scheduler_kwargs",
    "Leave it out: optim and lr_scheduler_type have no arguments.",
  ],
  ["neftune_noise_alpha label_smoothing_factor", "Leave it out: nothing is added to the loss."],
  ["torch_compile use_liger_kernel full_determinism auto_find_batch_size use_cpu", "Leave it out."],
  ["deepspeed fsdp fsdp_config ddp_find_unused_parameters local_rank", "Leave it out: a run is on one device."],
  [
    "dataloader_num_workers dataloader_drop_last dataloader_pin_memory dataset_num_proc dataset_text_field remove_unused_columns",
    "Leave it out: rows are JSONL of messages, and none is dropped.",
  ],
];

const ADVICE: ReadonlyMap<string, string> = new Map(
  FOREIGN.flatMap(([names, advice]) => names.split(" ").map((name) => [name, advice] as const)),
);

/** Names that other trainers have and vivarium does not. */
export const FOREIGN_NAMES: readonly string[] = [...ADVICE.keys()];

/** What to do about a name that other trainers have and vivarium does not; undefined for any other name. */
export const foreignAdvice = (name: string): string | undefined => ADVICE.get(name);
